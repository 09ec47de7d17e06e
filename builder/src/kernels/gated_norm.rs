//! Squeeze and excitation around a normalised and activated map that is computed anew wherever it is needed.

use candle_core::{Result, Tensor};

use super::batch_norm::{BatchNormKernel, NormGradients, Normed, Then};
use super::gpu;
use crate::graph::Activation;

/// activation(batch_norm(x)), of which the mean over pixels and the product with a gate are taken (Hu et al. 2018,
/// "Squeeze-and-excitation networks", section 3). The map itself is never written: on a GPU, reading x once more and
/// computing costs less than writing it and reading it back, and its memory is saved. For GPUs alone.
#[derive(Clone, Copy, Debug)]
pub struct GatedNorm<'a> {
    /// The normalisation.
    pub kernel: &'a BatchNormKernel,
    /// What comes behind it.
    pub activation: Activation,
    /// The input `[N, C, H, W]`.
    pub x: &'a Tensor,
    /// γ `[C]`.
    pub scale: &'a Tensor,
    /// β `[C]`.
    pub shift: &'a Tensor,
}

impl GatedNorm<'_> {
    fn affine(&self) -> Result<gpu::Affine> {
        self.kernel.affine_on_gpu(self.x, self.scale, self.shift)
    }

    /// The mean over pixels, `[N, C, 1, 1]`.
    ///
    /// # Errors
    /// Where the shapes do not fit together.
    pub fn squeeze(&self) -> Result<Tensor> {
        let (_, _, height, width) = self.x.dims4()?;
        gpu::squeeze(self.x, &self.affine()?, self.activation, None, 1.0 / (height * width) as f32)
    }

    /// The product with a gate `[N, C, 1, 1]`.
    ///
    /// # Errors
    /// As [`Self::squeeze`].
    pub fn excite(&self, gate: &Tensor) -> Result<Tensor> {
        gpu::excite(self.x, &self.affine()?, self.activation, gate)
    }

    /// The gradient of the gate, given that of the product.
    ///
    /// # Errors
    /// As [`Self::squeeze`].
    pub fn gate_gradient(&self, grad: &Tensor) -> Result<Tensor> {
        gpu::squeeze(self.x, &self.affine()?, self.activation, Some(grad), 1.0)
    }

    /// The gradients of the normalisation, given those of the product with `gate` and of the mean over pixels.
    ///
    /// # Errors
    /// As [`Self::squeeze`].
    pub fn gradients(&self, gate: &Tensor, grad: &Tensor, squeezed: &Tensor) -> Result<NormGradients> {
        let then = Then { residual: None, activation: Some(self.activation) };
        let pass = Normed { x: self.x, y: self.x, scale: self.scale, shift: self.shift, then };
        self.kernel.gradients_on_gpu(&pass, Some(gpu::Gate { factor: gate, squeezed }), grad)
    }
}
