//! Max and average pooling with padding, any kernel and stride.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::cpu::{LANES, contiguous, dims4, storage, values, vectorised};
use super::gpu;
use super::plane::Plane;
use crate::graph::Window;

/// Maximum over a window of x `[N, C, H, W]`; padding never wins and NaN always does.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d(pub Window);

/// Mean over a window of x `[N, C, H, W]`, padding counted as zeros.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d(pub Window);

/// Planes, rows and columns of a pool's input and output.
struct Planes {
    images: usize,
    channels: usize,
    input: [usize; 2],
    output: [usize; 2],
}

impl Planes {
    fn new(op: &str, window: &Window, layout: &Layout) -> Result<Self> {
        let [images, channels, height, width] = dims4(op, layout)?;
        let Some(output) = window.output(height, width) else {
            bail!("{op}: the window {window:?} does not fit into {height}×{width} pixels");
        };
        Ok(Self { images, channels, input: [height, width], output })
    }

    fn in_pixels(&self) -> usize {
        self.input[0] * self.input[1]
    }

    fn out_pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    fn count(&self) -> usize {
        self.images * self.channels
    }

    fn output_shape(&self) -> Shape {
        Shape::from((self.images, self.channels, self.output[0], self.output[1]))
    }

    fn input_shape(&self) -> Shape {
        Shape::from((self.images, self.channels, self.input[0], self.input[1]))
    }

    /// Folds the window's values into each output, a vector of neighbouring outputs at a time.
    fn reduce(
        &self,
        window: &Window,
        x: &[f32],
        start: f32,
        fold: impl Fn(f32, f32) -> f32 + Sync,
    ) -> Vec<f32> {
        let plane = Plane::new(*window, self.input, self.output);
        let taps = plane.taps();
        let mut y = vec![0f32; self.count() * self.out_pixels()];
        y.par_chunks_mut(self.out_pixels()).zip(x.par_chunks(self.in_pixels())).for_each_init(
            || vec![0f32; plane.len()],
            |buffer, (map, pixels)| {
                vectorised(|| {
                    plane.load(pixels, start, buffer);
                    for (y, row) in map.chunks_mut(self.output[1]).enumerate() {
                        let source = &buffer[y * plane.row_step()..];
                        for (chunk, out) in row.chunks_mut(LANES).enumerate() {
                            let mut result = [start; LANES];
                            for &tap in &taps {
                                let run = &source[tap + chunk * LANES..][..LANES];
                                for lane in 0..LANES {
                                    result[lane] = fold(result[lane], run[lane]);
                                }
                            }
                            out.copy_from_slice(&result[..out.len()]);
                        }
                    }
                });
            },
        );
        y
    }
}

impl MaxPool2d {
    /// The pool, tracked by candle's autograd where x is.
    ///
    /// # Errors
    /// Where the window does not fit, or x is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x]) {
            return gpu::max_pool(self.0, x);
        }
        contiguous(x)?.apply_op1(*self)
    }

    /// Gradient of the input: all of an output's gradient goes to the first pixel that was the maximum.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn input_gradient(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
        if gpu::is_on_gpu(x) {
            return gpu::max_pool_gradient(self.0, x, y, grad);
        }
        contiguous(x)?.apply_op3_no_bwd(&contiguous(y)?, &contiguous(grad)?, &MaxGradient(self.0))
    }
}

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let planes = Planes::new("max-pool", &self.0, layout)?;
        let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
        let y = planes.reduce(&self.0, values("max-pool", x, layout)?, f32::NEG_INFINITY, larger);
        Ok((storage(y), planes.output_shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(x, layout)], |[x]| self.forward(x))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.input_gradient(x, y, grad).map(Some)
    }
}

struct MaxGradient(Window);

impl CustomOp3 for MaxGradient {
    fn name(&self) -> &'static str {
        "max-pool-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let planes = Planes::new(self.name(), &self.0, x_layout)?;
        let (x, y) = (values(self.name(), x, x_layout)?, values(self.name(), y, y_layout)?);
        let grad = values(self.name(), grad, grad_layout)?;
        let mut dx = vec![0f32; x.len()];
        dx.par_chunks_mut(planes.in_pixels())
            .zip(x.par_chunks(planes.in_pixels()))
            .zip(y.par_chunks(planes.out_pixels()).zip(grad.par_chunks(planes.out_pixels())))
            .for_each(|((dx, x), (y, grad))| {
                for (i, (&max, &gradient)) in y.iter().zip(grad).enumerate() {
                    let place = [i / planes.output[1], i % planes.output[1]];
                    if let Some(pixel) = first_maximum(&self.0, planes.input, place, x, max) {
                        dx[pixel] += gradient;
                    }
                }
            });
        Ok((storage(dx), planes.input_shape()))
    }
}

/// The first pixel of the window at `place` that equals `max`, row by row.
fn first_maximum(w: &Window, input: [usize; 2], place: [usize; 2], x: &[f32], max: f32) -> Option<usize> {
    let span = |axis: usize, pad: usize| {
        let start = place[axis] * w.stride[axis];
        start.saturating_sub(pad)..(start + w.kernel[axis]).saturating_sub(pad).min(input[axis])
    };
    let (rows, columns) = (span(0, w.pads.top), span(1, w.pads.left));
    rows.flat_map(|row| columns.clone().map(move |column| row * input[1] + column))
        .find(|&pixel| x[pixel] == max || (max.is_nan() && x[pixel].is_nan()))
}

impl AvgPool2d {
    /// The pool, tracked by candle's autograd where x is.
    ///
    /// # Errors
    /// Where the window does not fit, or x is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x]) {
            return gpu::avg_pool(self.0, x);
        }
        contiguous(x)?.apply_op1(*self)
    }

    /// Gradient of the input, given its height and width.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn input_gradient(&self, grad: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        if gpu::is_on_gpu(grad) {
            return gpu::avg_pool_gradient(self.0, grad, size);
        }
        contiguous(grad)?.apply_op1_no_bwd(&AvgGradient { window: self.0, size })
    }
}

impl CustomOp1 for AvgPool2d {
    fn name(&self) -> &'static str {
        "avg-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let planes = Planes::new("avg-pool", &self.0, layout)?;
        let mut y = planes.reduce(&self.0, values("avg-pool", x, layout)?, 0.0, |a, b| a + b);
        let share = 1.0 / (self.0.kernel[0] * self.0.kernel[1]) as f32;
        y.iter_mut().for_each(|value| *value *= share);
        Ok((storage(y), planes.output_shape()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(x, layout)], |[x]| self.forward(x))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = x.dims4()?;
        self.input_gradient(grad, [height, width]).map(Some)
    }
}

struct AvgGradient {
    window: Window,
    size: [usize; 2],
}

impl CustomOp1 for AvgGradient {
    fn name(&self) -> &'static str {
        "avg-pool-gradient"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [images, channels, height, width] = dims4(self.name(), layout)?;
        let planes = Planes { images, channels, input: self.size, output: [height, width] };
        if self.window.output(self.size[0], self.size[1]) != Some(planes.output) {
            bail!("avg-pool: a gradient of {height}×{width} does not fit an input of {:?}", self.size);
        }
        let plane = Plane::new(self.window, planes.input, planes.output);
        let taps = plane.taps();
        let share = 1.0 / taps.len() as f32;
        let grad = values(self.name(), grad, layout)?;
        let mut dx = vec![0f32; planes.count() * planes.in_pixels()];
        dx.par_chunks_mut(planes.in_pixels()).zip(grad.par_chunks(planes.out_pixels())).for_each_init(
            || vec![0f32; plane.len()],
            |buffer, (pixels, map)| {
                vectorised(|| {
                    buffer.fill(0.0);
                    for (y, row) in map.chunks(width).enumerate() {
                        for &tap in &taps {
                            for (value, &g) in buffer[y * plane.row_step() + tap..].iter_mut().zip(row) {
                                *value += share * g;
                            }
                        }
                    }
                    plane.store(buffer, pixels);
                });
            },
        );
        Ok((storage(dx), planes.input_shape()))
    }
}
