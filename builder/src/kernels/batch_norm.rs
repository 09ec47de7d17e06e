//! Batch normalisation (Ioffe & Szegedy 2015), training and inference form, with gradients.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::batch_reduce::{BatchReduce, reduced_moments, reduced_sums};
use super::cpu::{GRAIN, contiguous, dims4, lane_sum, storage, values, vectorised};

/// Mean and biased variance of each channel over a batch and both spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Mean of each channel.
    pub mean: Vec<f32>,
    /// Biased variance of each channel: divided by the count.
    pub var: Vec<f32>,
    /// Values of a channel: images × pixels.
    pub count: usize,
}

impl Moments {
    /// The variance divided by count − 1, which goes into the running average. A single value has none and counts
    /// as 0, so that the average stays finite.
    pub fn unbiased_var(&self) -> Vec<f32> {
        let count = self.count as f64;
        let correction = if self.count > 1 { count / (count - 1.0) } else { 0.0 };
        self.var.iter().map(|&v| (f64::from(v) * correction) as f32).collect()
    }

    fn inverse_std(&self, eps: f64) -> Vec<f64> {
        self.var.iter().map(|&v| 1.0 / (f64::from(v) + eps).sqrt()).collect()
    }
}

/// Batch normalisation while training: y = γ·(x − μ)/√(σ² + eps) + β with the batch's own moments.
#[derive(Clone, Debug)]
pub struct BatchNormTrain {
    eps: f64,
    moments: Arc<OnceLock<Moments>>,
    reduce: Option<Arc<dyn BatchReduce>>,
}

impl BatchNormTrain {
    /// With `eps` added to the variance. An operation serves one forward pass, whose moments it keeps.
    pub fn new(eps: f64) -> Self {
        Self { eps, moments: Arc::default(), reduce: None }
    }

    /// With moments over the batches of all processes, where `reduce` sums over them.
    pub fn over(self, reduce: Option<Arc<dyn BatchReduce>>) -> Self {
        Self { reduce, ..self }
    }

    /// Normalises x `[N, C, H, W]`; γ and β are `[C]`. Tracked by candle's autograd where an argument is.
    ///
    /// # Errors
    /// Where the shapes do not fit together, or the tensors are not f32.
    pub fn forward(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        contiguous(x)?.apply_op3(scale, shift, self.clone())
    }

    /// The batch's moments, once [`Self::forward`] has run.
    pub fn moments(&self) -> Option<&Moments> {
        self.moments.get()
    }

    /// Gradients of x, γ and β.
    ///
    /// # Errors
    /// Before [`Self::forward`], or where shapes do not fit.
    pub fn gradients(&self, x: &Tensor, scale: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let Some(moments) = self.moments.get() else { bail!("batch-norm: no forward pass came before") };
        let own = Sums::of(x, grad, moments, self.eps)?;
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
        // dx = γ/σ · (g − mean(g) − x̂·mean(g·x̂)), written as a·g + b·x + c for each channel.
        let scale = scale.to_vec1::<f32>()?;
        let coefficients = (0..scale.len()).map(|c| {
            let a = f64::from(scale[c]) * sums.inverse_std[c];
            let b = -a * sums.inverse_std[c] * sums.normalised[c] / count;
            [a, b, -a * sums.plain[c] / count - b * f64::from(moments.mean[c])].map(|v| v as f32)
        });
        let coefficients = coefficients.collect();
        let dx = contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &Combination { coefficients })?;
        Ok([dx, scale_gradient, shift_gradient])
    }

    /// Of this process's batch, or of all processes' where they are summed.
    fn measured(&self, own: Moments) -> Result<Moments> {
        match &self.reduce {
            Some(reduce) => reduced_moments(&**reduce, &own),
            None => Ok(own),
        }
    }
}

impl CustomOp3 for BatchNormTrain {
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
            Some(moments) => moments,
            None => {
                let measured = self.measured(vectorised_moments(x, dims))?;
                self.moments.get_or_init(|| measured)
            }
        };
        let parameters = parameters(
            moments,
            self.eps,
            values(self.name(), scale, scale_layout)?,
            values(self.name(), shift, shift_layout)?,
        )?;
        Ok((storage(affine(x, dims, &parameters)), layout.shape().clone()))
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

/// Batch normalisation at inference, or frozen: y = γ·(x − μ)/√(σ² + eps) + β with running moments.
#[derive(Clone, Debug)]
pub struct BatchNormEval {
    eps: f64,
    moments: Moments,
}

impl BatchNormEval {
    /// With running mean and variance, each `[C]`.
    ///
    /// # Errors
    /// Where a tensor is not a vector of f32.
    pub fn new(eps: f64, mean: &Tensor, var: &Tensor) -> Result<Self> {
        Ok(Self { eps, moments: Moments { mean: mean.to_vec1()?, var: var.to_vec1()?, count: 1 } })
    }

    /// Normalises x `[N, C, H, W]`; γ and β are `[C]`. Tracked by candle's autograd where an argument is.
    ///
    /// # Errors
    /// Where the shapes do not fit together, or the tensors are not f32.
    pub fn forward(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        contiguous(x)?.apply_op3(scale, shift, self.clone())
    }

    /// Gradients of x, γ and β; the moments are constants.
    ///
    /// # Errors
    /// Where shapes do not fit.
    pub fn gradients(&self, x: &Tensor, scale: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let sums = Sums::of(x, grad, &self.moments, self.eps)?;
        let scale = scale.to_vec1::<f32>()?;
        let coefficients = scale.iter().zip(&sums.inverse_std);
        let coefficients = coefficients.map(|(&s, inv)| [(f64::from(s) * inv) as f32, 0.0, 0.0]).collect();
        let dx = contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &Combination { coefficients })?;
        let [scale_gradient, shift_gradient] = sums.tensors(x)?;
        Ok([dx, scale_gradient, shift_gradient])
    }
}

impl CustomOp3 for BatchNormEval {
    fn name(&self) -> &'static str {
        "batch-norm-eval"
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
        let parameters = parameters(
            &self.moments,
            self.eps,
            values(self.name(), scale, scale_layout)?,
            values(self.name(), shift, shift_layout)?,
        )?;
        let dims = dims4(self.name(), layout)?;
        check_channels(parameters.len(), dims[1])?;
        Ok((storage(affine(values(self.name(), x, layout)?, dims, &parameters)), layout.shape().clone()))
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

fn check_channels(expected: usize, actual: usize) -> Result<()> {
    if expected != actual {
        bail!("batch-norm: parameters for {expected} channels do not fit {actual} channels");
    }
    Ok(())
}

/// Values of one channel, image by image.
fn channel(x: &[f32], [_, channels, height, width]: [usize; 4], c: usize) -> impl Iterator<Item = &[f32]> {
    let pixels = height * width;
    x.chunks(channels * pixels).map(move |image| &image[c * pixels..(c + 1) * pixels])
}

/// Two passes, so that a large mean does not cancel a small variance.
fn vectorised_moments(x: &[f32], dims: [usize; 4]) -> Moments {
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
    Moments { mean, var, count }
}

/// The factor and the offset of each channel.
fn parameters(moments: &Moments, eps: f64, scale: &[f32], shift: &[f32]) -> Result<Vec<[f32; 2]>> {
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

/// Sums over each channel that the gradients are made of.
struct Sums {
    /// Σ g.
    plain: Vec<f64>,
    /// Σ g·x̂, with x̂ = (x − μ)/σ.
    normalised: Vec<f64>,
    /// 1/σ.
    inverse_std: Vec<f64>,
}

impl Sums {
    fn of(x: &Tensor, grad: &Tensor, moments: &Moments, eps: f64) -> Result<Self> {
        let mean = moments.mean.clone();
        let sums = contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &GradientSums { mean })?;
        let [plain, mut normalised]: [Vec<f64>; 2] =
            sums.to_vec2::<f64>()?.try_into().expect("the kernel gives two rows");
        let inverse_std = moments.inverse_std(eps);
        normalised.iter_mut().zip(&inverse_std).for_each(|(sum, inv)| *sum *= inv);
        Ok(Self { plain, normalised, inverse_std })
    }

    /// Gradients of γ and β, on the device of `x`.
    fn tensors(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let tensor = |sums: &[f64]| {
            let values: Vec<f32> = sums.iter().map(|&v| v as f32).collect();
            Tensor::from_vec(values, sums.len(), x.device())
        };
        Ok([tensor(&self.normalised)?, tensor(&self.plain)?])
    }
}

/// `[2, C]` in f64: Σ g and Σ g·(x − μ).
struct GradientSums {
    mean: Vec<f32>,
}

impl CustomOp2 for GradientSums {
    fn name(&self) -> &'static str {
        "batch-norm-gradient-sums"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims = dims4(self.name(), layout)?;
        check_channels(self.mean.len(), dims[1])?;
        let (x, grad) = (values(self.name(), x, layout)?, values(self.name(), grad, grad_layout)?);
        let sums: Vec<[f64; 2]> = (0..dims[1])
            .into_par_iter()
            .map(|c| {
                let mean = self.mean[c];
                vectorised(|| {
                    let mut sums = [0f64; 2];
                    for (x, g) in channel(x, dims, c).zip(channel(grad, dims, c)) {
                        sums[0] += lane_sum(g, g, |g, _| g);
                        sums[1] += lane_sum(x, g, |x, g| (x - mean) * g);
                    }
                    sums
                })
            })
            .collect();
        let flat = sums.iter().map(|s| s[0]).chain(sums.iter().map(|s| s[1])).collect();
        Ok((CpuStorage::F64(flat), Shape::from((2, dims[1]))))
    }
}

/// a·g + b·x + c, with coefficients for each channel.
struct Combination {
    coefficients: Vec<[f32; 3]>,
}

impl CustomOp2 for Combination {
    fn name(&self) -> &'static str {
        "batch-norm-input-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [_, channels, height, width] = dims4(self.name(), layout)?;
        check_channels(self.coefficients.len(), channels)?;
        let (x, grad) = (values(self.name(), x, layout)?, values(self.name(), grad, grad_layout)?);
        let pixels = height * width;
        let mut dx = vec![0f32; x.len()];
        dx.par_chunks_mut(pixels)
            .with_min_len(GRAIN.div_ceil(pixels))
            .zip(x.par_chunks(pixels).zip(grad.par_chunks(pixels)))
            .enumerate()
            .for_each(|(i, (dx, (x, g)))| {
                let [a, b, c] = self.coefficients[i % channels];
                vectorised(|| {
                    for (dx, (x, g)) in dx.iter_mut().zip(x.iter().zip(g)) {
                        *dx = a * g + b * x + c;
                    }
                });
            });
        Ok((storage(dx), layout.shape().clone()))
    }
}
