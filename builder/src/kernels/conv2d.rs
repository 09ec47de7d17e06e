//! 2-D convolution and its three gradients: im2col and a matrix product, or direct loops where each filter sees one
//! channel.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::columns::Geometry;
use super::cpu::{contiguous, dims4, storage, values};
use super::depthwise;
use super::matrix::{Into, Matrix, multiply};
use crate::graph::Window;

/// Convolution of x `[N, C, H, W]` with weight `[O, C/groups, kh, kw]` and an optional bias `[O]`.
#[derive(Clone, Copy, Debug)]
pub struct Conv2dKernel {
    /// Kernel, stride, dilation and padding.
    pub window: Window,
    /// Channel groups.
    pub groups: usize,
}

impl Conv2dKernel {
    /// The convolution, tracked by candle's autograd where an argument is.
    ///
    /// # Errors
    /// Where the shapes do not fit together, or the tensors are not f32.
    pub fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (x, weight) = (contiguous(x)?, contiguous(weight)?);
        match bias {
            Some(bias) => x.apply_op3(&weight, &contiguous(bias)?, *self),
            None => x.apply_op2(&weight, *self),
        }
    }

    /// Gradient of the input, given the input's height and width.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn input_gradient(&self, weight: &Tensor, grad: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        contiguous(grad)?.apply_op2_no_bwd(&contiguous(weight)?, &InputGradient { conv: *self, size })
    }

    /// Gradient of the weight.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn weight_gradient(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &WeightGradient(*self))
    }

    /// Gradient of the bias: the sum over images and pixels.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn bias_gradient(&self, grad: &Tensor) -> Result<Tensor> {
        grad.sum((0, 2, 3))
    }

    fn geometry(&self, x: [usize; 4], weight: [usize; 4]) -> Result<Geometry> {
        let [images, channels, height, width] = x;
        let [filters, group_inputs, kh, kw] = weight;
        let Self { window, groups } = *self;
        if groups == 0
            || channels != group_inputs * groups
            || !filters.is_multiple_of(groups)
            || [kh, kw] != window.kernel
        {
            bail!("conv2d: weight {weight:?} does not fit input {x:?} with {groups} groups");
        }
        let Some([out_height, out_width]) = window.output(height, width) else {
            bail!("conv2d: the window {window:?} does not fit into {height}×{width} pixels");
        };
        let output = [filters, out_height, out_width];
        Ok(Geometry { window, groups, images, input: [channels, height, width], output })
    }

    fn run(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let g = self.geometry(dims4("conv2d", x.1)?, dims4("conv2d", weight.1)?)?;
        if let Some(bias) = bias
            && bias.len() != g.output[0]
        {
            bail!("conv2d: a bias of {} numbers does not fit {} filters", bias.len(), g.output[0]);
        }
        let (x, weight) = (values("conv2d", x.0, x.1)?, values("conv2d", weight.0, weight.1)?);
        let y = if g.is_depthwise() {
            depthwise::forward(&g, x, weight, bias)
        } else {
            forward(&g, x, weight, bias)
        };
        let [filters, height, width] = g.output;
        Ok((storage(y), Shape::from((g.images, filters, height, width))))
    }
}

impl CustomOp2 for Conv2dKernel {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, _, height, width) = x.dims4()?;
        Ok((Some(self.input_gradient(weight, grad, [height, width])?), Some(self.weight_gradient(x, grad)?)))
    }
}

impl CustomOp3 for Conv2dKernel {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (weight, weight_layout), Some(values("conv2d", bias, bias_layout)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = CustomOp2::bwd(self, x, weight, res, grad)?;
        Ok((dx, dw, Some(self.bias_gradient(grad)?)))
    }
}

struct InputGradient {
    conv: Conv2dKernel,
    size: [usize; 2],
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d-input-gradient"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        grad_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (grad_dims, weight_dims) = (dims4(self.name(), grad_layout)?, dims4(self.name(), weight_layout)?);
        let [height, width] = self.size;
        let channels = weight_dims[1] * self.conv.groups;
        let g = self.conv.geometry([grad_dims[0], channels, height, width], weight_dims)?;
        check_gradient(&g, grad_dims)?;
        let (grad, weight) = (values("conv2d", grad, grad_layout)?, values("conv2d", weight, weight_layout)?);
        let dx = if g.is_depthwise() {
            depthwise::input_gradient(&g, weight, grad)
        } else {
            input_gradient(&g, weight, grad)
        };
        Ok((storage(dx), Shape::from((g.images, channels, height, width))))
    }
}

struct WeightGradient(Conv2dKernel);

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d-weight-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x_dims, grad_dims) = (dims4(self.name(), x_layout)?, dims4(self.name(), grad_layout)?);
        let Conv2dKernel { window, groups } = self.0;
        let weight = [grad_dims[1], x_dims[1] / groups.max(1), window.kernel[0], window.kernel[1]];
        let g = self.0.geometry(x_dims, weight)?;
        check_gradient(&g, grad_dims)?;
        let (x, grad) = (values("conv2d", x, x_layout)?, values("conv2d", grad, grad_layout)?);
        let dw = if g.is_depthwise() {
            depthwise::weight_gradient(&g, x, grad)
        } else {
            weight_gradient(&g, x, grad)
        };
        Ok((storage(dw), Shape::from(weight.to_vec())))
    }
}

fn check_gradient(g: &Geometry, grad: [usize; 4]) -> Result<()> {
    if grad[0] != g.images || grad[1..] != g.output {
        bail!("conv2d: a gradient of shape {grad:?} does not fit {} outputs of {:?}", g.images, g.output);
    }
    Ok(())
}

/// Buffers that a worker keeps from tile to tile.
#[derive(Default)]
struct Scratch {
    columns: Vec<f32>,
    packed: Vec<f32>,
}

/// The first `length` floats of a buffer, grown where needed; the content is whatever was there.
fn room(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// How a batch is dealt out: images a task takes, and threads that each product may use in addition.
fn deal(g: &Geometry) -> (usize, usize) {
    let threads = rayon::current_num_threads();
    let images = g.images_per_tile().min(g.images.div_ceil(threads)).max(1);
    let tasks = g.images.div_ceil(images);
    (images, if tasks < threads { threads } else { 1 })
}

/// A group's weights: filters × depth.
fn filters<'a>(g: &Geometry, weight: &'a [f32], group: usize) -> Matrix<'a> {
    let (rows, depth) = (g.group_outputs(), g.depth());
    Matrix::rows(&weight[group * rows * depth..], rows, depth, depth)
}

/// Where a tile that lies within one image starts in an output-shaped batch.
fn output_start(g: &Geometry, group: usize, rows: &std::ops::Range<usize>) -> usize {
    let [channels, height, width] = g.output;
    let (image, y) = (rows.start / height, rows.start % height);
    (image * channels + group * g.group_outputs()) * g.pixels() + y * width
}

/// Whether a tile lies within one image, so that its pixels form a strided matrix where they are.
fn within_one_image(g: &Geometry, rows: &std::ops::Range<usize>) -> bool {
    rows.len() <= g.output[1]
}

/// The column matrix of a tile; for a pointwise convolution of one image that is the image itself.
fn columns<'a>(
    g: &Geometry,
    images: &'a [f32],
    group: usize,
    rows: &std::ops::Range<usize>,
    buffer: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let width = g.output[2];
    let (depth, count) = (g.depth(), rows.len() * width);
    if g.is_pointwise() && within_one_image(g, rows) {
        let (image, y) = (rows.start / g.output[1], rows.start % g.output[1]);
        let start = image * g.input_size() + group * g.group_inputs() * g.pixels() + y * width;
        return Matrix::rows(&images[start..], depth, count, g.pixels());
    }
    let columns = room(buffer, depth * count);
    g.gather(images, group, rows, columns);
    Matrix::rows(columns, depth, count, count)
}

/// A tile of an output-shaped gradient as a matrix: in place within one image, packed otherwise.
fn gradient<'a>(
    g: &Geometry,
    grad: &'a [f32],
    group: usize,
    rows: &std::ops::Range<usize>,
    buffer: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let (filters, count) = (g.group_outputs(), rows.len() * g.output[2]);
    if within_one_image(g, rows) {
        return Matrix::rows(&grad[output_start(g, group, rows)..], filters, count, g.pixels());
    }
    let packed = room(buffer, filters * count);
    g.pack_output(grad, group, rows, packed);
    Matrix::rows(packed, filters, count, count)
}

fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = vec![0f32; g.images * g.output_size()];
    if y.is_empty() {
        return y;
    }
    let (together, threads) = deal(g);
    let into = if bias.is_some() { Into::Accumulate } else { Into::Replace };
    let block = |scratch: &mut Scratch, y: &mut [f32], x: &[f32]| {
        if let Some(bias) = bias {
            for (map, &b) in y.chunks_mut(g.pixels()).zip(bias.iter().cycle()) {
                map.fill(b);
            }
        }
        for rows in g.tiles(y.len() / g.output_size()) {
            let count = rows.len() * g.output[2];
            for group in 0..g.groups {
                let columns = columns(g, x, group, &rows, &mut scratch.columns);
                let filters = filters(g, weight, group);
                if within_one_image(g, &rows) {
                    let start = output_start(g, group, &rows);
                    multiply(&mut y[start..], g.pixels(), into, filters, columns, threads);
                } else {
                    let packed = room(&mut scratch.packed, filters.rows * count);
                    if bias.is_some() {
                        g.pack_output(y, group, &rows, packed);
                    }
                    multiply(packed, count, into, filters, columns, threads);
                    g.unpack_output(packed, group, &rows, y);
                }
            }
        }
    };
    y.par_chunks_mut(together * g.output_size())
        .zip(x.par_chunks(together * g.input_size()))
        .for_each_init(Scratch::default, |scratch, (y, x)| block(scratch, y, x));
    y
}

fn input_gradient(g: &Geometry, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut dx = vec![0f32; g.images * g.input_size()];
    if dx.is_empty() {
        return dx;
    }
    let (together, threads) = deal(g);
    let block = |scratch: &mut Scratch, dx: &mut [f32], grad: &[f32]| {
        for rows in g.tiles(dx.len() / g.input_size()) {
            let count = rows.len() * g.output[2];
            for group in 0..g.groups {
                let gradient = gradient(g, grad, group, &rows, &mut scratch.packed);
                let filters = filters(g, weight, group).transposed();
                if g.is_pointwise() && within_one_image(g, &rows) {
                    let (image, y) = (rows.start / g.output[1], rows.start % g.output[1]);
                    let start =
                        image * g.input_size() + group * g.group_inputs() * g.pixels() + y * g.output[2];
                    multiply(&mut dx[start..], g.pixels(), Into::Replace, filters, gradient, threads);
                } else {
                    let columns = room(&mut scratch.columns, g.depth() * count);
                    multiply(columns, count, Into::Replace, filters, gradient, threads);
                    g.scatter(columns, group, &rows, dx);
                }
            }
        }
    };
    dx.par_chunks_mut(together * g.input_size())
        .zip(grad.par_chunks(together * g.output_size()))
        .for_each_init(Scratch::default, |scratch, (dx, grad)| block(scratch, dx, grad));
    dx
}

/// Each thread sums over its share of the images; the shares are added in order, so that the sum does not depend on
/// which thread was faster.
fn weight_gradient(g: &Geometry, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let threads = rayon::current_num_threads();
    let share = g.images.div_ceil(threads).max(1);
    let inner = if g.images < threads { threads } else { 1 };
    let size = g.output[0] * g.depth();
    let partial = |x: &[f32], grad: &[f32]| {
        let mut scratch = Scratch::default();
        let mut dw = vec![0f32; size];
        for rows in g.tiles(grad.len() / g.output_size()) {
            for group in 0..g.groups {
                let columns = columns(g, x, group, &rows, &mut scratch.columns);
                let gradient = gradient(g, grad, group, &rows, &mut scratch.packed);
                let filters = &mut dw[group * g.group_outputs() * g.depth()..];
                multiply(filters, g.depth(), Into::Accumulate, gradient, columns.transposed(), inner);
            }
        }
        dw
    };
    if grad.is_empty() {
        return vec![0f32; size];
    }
    let partials: Vec<Vec<f32>> = x
        .par_chunks(share * g.input_size())
        .zip(grad.par_chunks(share * g.output_size()))
        .map(|(x, grad)| partial(x, grad))
        .collect();
    let mut sums = partials.into_iter();
    let mut dw = sums.next().unwrap_or_else(|| vec![0f32; size]);
    for other in sums {
        for (total, value) in dw.iter_mut().zip(other) {
            *total += value;
        }
    }
    dw
}
