//! Product of a feature map with one factor an image and channel (squeeze-and-excitation).

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::cpu::{GRAIN, contiguous, dims4, lane_sum, storage, values, vectorised};
use super::gpu;

/// x `[N, C, H, W]` times scale `[N, C, 1, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct ChannelScale;

impl ChannelScale {
    /// The product, tracked by candle's autograd where an argument is.
    ///
    /// # Errors
    /// Where the shapes do not fit together, or the tensors are not f32.
    pub fn forward(&self, x: &Tensor, scale: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x, scale]) {
            return gpu::channel_scale(x, scale);
        }
        contiguous(x)?.apply_op2(&contiguous(scale)?, *self)
    }

    /// Gradient of the scale: Σ g·x over the pixels of each channel.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn scale_gradient(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        if gpu::is_on_gpu(x) {
            return gpu::sum_pixels(x, Some(grad), 1.0);
        }
        contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &ScaleGradient)
    }
}

impl CustomOp2 for ChannelScale {
    fn name(&self) -> &'static str {
        "channel-scale"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [images, channels, height, width] = dims4(self.name(), layout)?;
        let scale_dims = dims4(self.name(), scale_layout)?;
        if scale_dims != [images, channels, 1, 1] {
            bail!("channel-scale: a scale of {scale_dims:?} does not fit {:?}", layout.dims());
        }
        let (x, scale) = (values(self.name(), x, layout)?, values(self.name(), scale, scale_layout)?);
        let pixels = height * width;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(pixels)
            .with_min_len(GRAIN.div_ceil(pixels))
            .zip(x.par_chunks(pixels).zip(scale))
            .for_each(|(y, (x, &factor))| {
                vectorised(|| {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y = factor * x;
                    }
                });
            });
        Ok((storage(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(a, a_layout), (b, b_layout)], |[a, b]| self.forward(a, b))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(self.forward(grad, scale)?), Some(self.scale_gradient(x, grad)?)))
    }
}

struct ScaleGradient;

impl CustomOp2 for ScaleGradient {
    fn name(&self) -> &'static str {
        "channel-scale-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [images, channels, height, width] = dims4(self.name(), layout)?;
        let (x, grad) = (values(self.name(), x, layout)?, values(self.name(), grad, grad_layout)?);
        let pixels = height * width;
        let sums = x
            .par_chunks(pixels)
            .with_min_len(GRAIN.div_ceil(pixels))
            .zip(grad.par_chunks(pixels))
            .map(|(x, g)| vectorised(|| lane_sum(x, g, |x, g| x * g) as f32))
            .collect();
        Ok((storage(sums), Shape::from((images, channels, 1, 1))))
    }
}
