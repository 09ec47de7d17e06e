//! Batch normalisation (Ioffe & Szegedy 2015), training and inference form, with gradients, alone or together with the
//! residual and the activation that come behind it.

use std::sync::{Arc, OnceLock};

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::batch_reduce::{BatchReduce, reduced_moments, reduced_sums};
use super::channel_sums::{Combination, Sums};
use super::cpu::{GRAIN, contiguous, dims4, lane_sum, storage, values, vectorised};
use super::moments::{HostMoments, Moments};
use super::{ActivationKernel, gpu};
pub use gpu::{NormGradients, Then};

/// Batch normalisation: y = γ·(x − μ)/√(σ² + eps) + β, with the batch's own moments ([`Self::training`]) or with running
/// ones ([`Self::inference`]).
#[derive(Clone, Debug)]
pub struct BatchNormKernel {
    eps: f64,
    moments: Arc<OnceLock<Moments>>,
    /// Whether the moments are constants, so that no gradient goes through them.
    constant: bool,
    reduce: Option<Arc<dyn BatchReduce>>,
}

impl BatchNormKernel {
    /// With the moments of the batch, and `eps` added to the variance. It serves one forward pass, whose moments it
    /// keeps.
    pub fn training(eps: f64) -> Self {
        Self { eps, moments: Arc::default(), constant: false, reduce: None }
    }

    /// With moments over the batches of all processes, where `reduce` sums over them.
    pub fn over(self, reduce: Option<Arc<dyn BatchReduce>>) -> Self {
        Self { reduce, ..self }
    }

    /// With a running mean and variance, each f32 `[C]`.
    pub fn inference(eps: f64, mean: &Tensor, var: &Tensor) -> Self {
        let moments = Moments { mean: mean.clone(), var: var.clone(), count: 1 };
        Self { eps, moments: Arc::new(OnceLock::from(moments)), constant: true, reduce: None }
    }

    /// Normalises x `[N, C, H, W]`; γ and β are `[C]`. Tracked by candle's autograd where an argument is.
    ///
    /// # Errors
    /// Where the shapes do not fit together, or the tensors are not f32.
    pub fn forward(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x, scale, shift]) {
            return self.forward_then(x, scale, shift, Then::default());
        }
        contiguous(x)?.apply_op3(scale, shift, self.clone())
    }

    /// As [`Self::forward`], and what comes behind, in one pass over the memory on a GPU:
    /// activation(norm(x) + residual). Autograd does not follow it there.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_then(&self, x: &Tensor, scale: &Tensor, shift: &Tensor, then: Then<'_>) -> Result<Tensor> {
        if gpu::is_on_gpu(x) {
            return gpu::norm(x, &self.affine_on_gpu(x, scale, shift)?, then);
        }
        let mut y = self.forward(x, scale, shift)?;
        if let Some(residual) = then.residual {
            y = (y + residual)?;
        }
        then.activation.map_or(Ok(y.clone()), |activation| ActivationKernel(activation).forward(&y))
    }

    /// The normalisation of x as a product and a sum for each channel, after its moments have been measured if need be.
    pub(super) fn affine_on_gpu(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<gpu::Affine> {
        let moments = match self.moments.get() {
            Some(moments) => moments,
            None => {
                let ([mean, var], (n, _, h, w)) = (gpu::moments(x)?, x.dims4()?);
                let own = Moments { mean, var, count: n * h * w };
                let measured = match &self.reduce {
                    Some(reduce) => gpu::reduced_moments(&**reduce, &own)?,
                    None => own,
                };
                self.moments.get_or_init(|| measured)
            }
        };
        gpu::affine([&moments.mean, &moments.var], self.eps, scale, shift)
    }

    /// The moments in use; of a batch, once [`Self::forward`] has run.
    pub fn moments(&self) -> Option<&Moments> {
        self.moments.get()
    }

    /// Whether the moments are the batch's.
    pub fn is_training(&self) -> bool {
        !self.constant
    }

    fn known(&self) -> Result<&Moments> {
        let Some(moments) = self.moments.get() else { bail!("batch-norm: no forward pass came before") };
        Ok(moments)
    }

    /// Gradients of x, γ and β.
    ///
    /// # Errors
    /// Before [`Self::forward`], or where shapes do not fit.
    pub fn gradients(&self, x: &Tensor, scale: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        if gpu::is_on_gpu(x) {
            // Without an activation behind it, neither output nor shift say anything about the gradient.
            let found =
                self.gradients_then(&Normed { x, y: x, scale, shift: scale, then: Then::default() }, grad)?;
            return Ok([found.x, found.scale, found.shift]);
        }
        let moments = self.known()?.host()?;
        let own = Sums::of(x, grad, &moments, self.eps)?;
        // γ and β are the whole network's: their gradients are summed with all others. x is this process's alone, but
        // every process's gradients come to it through the moments.
        let [scale_gradient, shift_gradient] = own.tensors(x)?;
        let sums = match &self.reduce {
            Some(reduce) => {
                let (plain, normalised) = reduced_sums(&**reduce, own.plain, own.normalised)?;
                Sums { plain, normalised, ..own }
            }
            None => own,
        };
        let count = moments.count as f64;
        // dx = γ/σ · (g − mean(g) − x̂·mean(g·x̂)), written as a·g + b·x + c for each channel; of constant moments, γ/σ·g.
        let scale = scale.to_vec1::<f32>()?;
        let coefficients = (0..scale.len()).map(|c| {
            let a = f64::from(scale[c]) * sums.inverse_std[c];
            if self.constant {
                return [a as f32, 0.0, 0.0];
            }
            let b = -a * sums.inverse_std[c] * sums.normalised[c] / count;
            [a, b, -a * sums.plain[c] / count - b * f64::from(moments.mean[c])].map(|v| v as f32)
        });
        let coefficients = coefficients.collect();
        let dx = contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &Combination { coefficients })?;
        Ok([dx, scale_gradient, shift_gradient])
    }

    /// Gradients of [`Self::forward_then`].
    ///
    /// # Errors
    /// As [`Self::gradients`].
    pub fn gradients_then(&self, pass: &Normed<'_>, grad: &Tensor) -> Result<NormGradients> {
        if gpu::is_on_gpu(pass.x) {
            return self.gradients_on_gpu(pass, None, grad);
        }
        let Normed { x, y, scale, shift, then } = *pass;
        let grad = match then.activation {
            Some(activation) => {
                // What went into the activation was not kept: it is computed once more.
                let input = self.forward_then(x, scale, shift, Then { activation: None, ..then })?;
                ActivationKernel(activation).input_gradient(&input, y, grad)?
            }
            None => grad.clone(),
        };
        let [x, scale, shift] = self.gradients(x, scale, &grad)?;
        Ok(NormGradients { x, scale, shift, residual: then.residual.map(|_| grad) })
    }

    pub(super) fn gradients_on_gpu(
        &self,
        pass: &Normed<'_>,
        gate: Option<gpu::Gate<'_>>,
        grad: &Tensor,
    ) -> Result<NormGradients> {
        let Normed { x, y, scale, shift, then } = *pass;
        let pass = gpu::Normed {
            x,
            y,
            then,
            gate,
            moments: self.known()?,
            constant: self.constant,
            eps: self.eps,
            scale,
            shift,
            reduce: self.reduce.as_deref(),
        };
        gpu::norm_gradients(&pass, grad)
    }
}

/// What [`BatchNormKernel::gradients_then`] needs of the forward pass.
#[derive(Clone, Copy)]
pub struct Normed<'a> {
    /// The input `[N, C, H, W]`.
    pub x: &'a Tensor,
    /// The output.
    pub y: &'a Tensor,
    /// γ `[C]`.
    pub scale: &'a Tensor,
    /// β `[C]`.
    pub shift: &'a Tensor,
    /// What came behind.
    pub then: Then<'a>,
}

impl CustomOp3 for BatchNormKernel {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = dims4(self.name(), layout)?;
        let x = values(self.name(), x, layout)?;
        let moments = match self.moments.get() {
            Some(moments) => moments.host()?,
            None => {
                let mut found = vectorised_moments(x, dims);
                if let Some(reduce) = &self.reduce {
                    found = reduced_moments(&**reduce, &found)?;
                }
                let tensor = |values: &[f32]| Tensor::from_slice(values, dims[1], &candle_core::Device::Cpu);
                let (mean, var) = (tensor(&found.mean)?, tensor(&found.var)?);
                self.moments.get_or_init(|| Moments { mean, var, count: found.count });
                found
            }
        };
        check_channels(moments.mean.len(), dims[1])?;
        let parameters = parameters(
            &moments,
            self.eps,
            values(self.name(), scale, scale_layout)?,
            values(self.name(), shift, shift_layout)?,
        )?;
        Ok((storage(affine(x, dims, &parameters)), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
        c: &CudaStorage,
        c_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(a, a_layout), (b, b_layout), (c, c_layout)], |[a, b, c]| self.forward(a, b, c))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _shift: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, scale, shift] = self.gradients(x, scale, grad)?;
        Ok((Some(dx), Some(scale), Some(shift)))
    }
}

pub(super) fn check_channels(expected: usize, actual: usize) -> Result<()> {
    if expected != actual {
        bail!("batch-norm: parameters for {expected} channels do not fit {actual} channels");
    }
    Ok(())
}

/// Values of one channel, image by image.
pub(super) fn channel(
    x: &[f32],
    [_, channels, height, width]: [usize; 4],
    c: usize,
) -> impl Iterator<Item = &[f32]> {
    let pixels = height * width;
    x.chunks(channels * pixels).map(move |image| &image[c * pixels..(c + 1) * pixels])
}

/// Two passes, so that a large mean does not cancel a small variance.
fn vectorised_moments(x: &[f32], dims: [usize; 4]) -> HostMoments {
    let [images, channels, height, width] = dims;
    let count = images * height * width;
    let (mean, var) = (0..channels)
        .into_par_iter()
        .map(|c| {
            vectorised(|| {
                let mean = channel(x, dims, c).map(|v| lane_sum(v, v, |a, _| a)).sum::<f64>() / count as f64;
                let centre = mean as f32;
                let square = |a: f32, _| (a - centre) * (a - centre);
                let var = channel(x, dims, c).map(|v| lane_sum(v, v, square)).sum::<f64>() / count as f64;
                (centre, var as f32)
            })
        })
        .unzip();
    HostMoments { mean, var, count }
}

/// The factor and the offset of each channel.
fn parameters(moments: &HostMoments, eps: f64, scale: &[f32], shift: &[f32]) -> Result<Vec<[f32; 2]>> {
    check_channels(scale.len(), moments.mean.len())?;
    check_channels(shift.len(), moments.mean.len())?;
    let inverse_std = moments.inverse_std(eps);
    let parameter = |c: usize| {
        let factor = f64::from(scale[c]) * inverse_std[c];
        [factor as f32, (f64::from(shift[c]) - f64::from(moments.mean[c]) * factor) as f32]
    };
    Ok((0..scale.len()).map(parameter).collect())
}

fn affine(x: &[f32], [_, channels, height, width]: [usize; 4], parameters: &[[f32; 2]]) -> Vec<f32> {
    let pixels = height * width;
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(pixels)
        .with_min_len(GRAIN.div_ceil(pixels))
        .zip(x.par_chunks(pixels))
        .enumerate()
        .for_each(|(i, (y, x))| {
            let [factor, offset] = parameters[i % channels];
            vectorised(|| {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = factor * x + offset;
                }
            });
        });
    y
}
