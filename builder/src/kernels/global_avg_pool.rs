//! Mean over both spatial axes.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cpu::{GRAIN, contiguous, dims4, lane_sum, storage, values, vectorised};
use super::gpu;

/// x `[N, C, H, W]` to `[N, C, 1, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct GlobalAvgPool;

impl GlobalAvgPool {
    /// The mean, tracked by candle's autograd where x is.
    ///
    /// # Errors
    /// Where x is not a batch of f32 feature maps.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x]) {
            let (_, _, height, width) = x.dims4()?;
            return gpu::sum_pixels(x, None, 1.0 / (height * width) as f32);
        }
        contiguous(x)?.apply_op1(*self)
    }

    /// Gradient of the input, given its height and width: the gradient's share for each pixel.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn input_gradient(&self, grad: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        if gpu::is_on_gpu(grad) {
            return gpu::spread(grad, size, 1.0 / (size[0] * size[1]) as f32);
        }
        contiguous(grad)?.apply_op1_no_bwd(&Spread { size })
    }
}

impl CustomOp1 for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global-avg-pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [images, channels, height, width] = dims4(self.name(), layout)?;
        let pixels = height * width;
        let mean = |map: &[f32]| vectorised(|| (lane_sum(map, map, |a, _| a) / pixels as f64) as f32);
        let x = values(self.name(), x, layout)?.par_chunks(pixels).with_min_len(GRAIN.div_ceil(pixels));
        Ok((storage(x.map(mean).collect()), Shape::from((images, channels, 1, 1))))
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

struct Spread {
    size: [usize; 2],
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "global-avg-pool-gradient"
    }

    fn cpu_fwd(&self, grad: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [images, channels, ..] = dims4(self.name(), layout)?;
        let [height, width] = self.size;
        let pixels = height * width;
        let grad = values(self.name(), grad, layout)?;
        let mut dx = vec![0f32; grad.len() * pixels];
        dx.par_chunks_mut(pixels)
            .with_min_len(GRAIN.div_ceil(pixels))
            .zip(grad)
            .for_each(|(map, &g)| map.fill(g / pixels as f32));
        Ok((storage(dx), Shape::from((images, channels, height, width))))
    }
}
