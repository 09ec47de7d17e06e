//! The sums over channels, and the sum of maps by channel, that batch normalisation's gradients are made of.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::batch_norm::{channel, check_channels};
use super::cpu::{GRAIN, contiguous, dims4, lane_sum, storage, values, vectorised};
use super::moments::HostMoments;

/// Sums over each channel that the gradients are made of.
pub(super) struct Sums {
    /// Σ g.
    pub plain: Vec<f64>,
    /// Σ g·x̂, with x̂ = (x − μ)/σ.
    pub normalised: Vec<f64>,
    /// 1/σ.
    pub inverse_std: Vec<f64>,
}

impl Sums {
    pub fn of(x: &Tensor, grad: &Tensor, moments: &HostMoments, eps: f64) -> Result<Self> {
        let mean = moments.mean.clone();
        let sums = contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &GradientSums { mean })?;
        let [plain, mut normalised]: [Vec<f64>; 2] =
            sums.to_vec2::<f64>()?.try_into().expect("the kernel gives two rows");
        let inverse_std = moments.inverse_std(eps);
        normalised.iter_mut().zip(&inverse_std).for_each(|(sum, inv)| *sum *= inv);
        Ok(Self { plain, normalised, inverse_std })
    }

    /// Gradients of γ and β, on the device of `x`.
    pub fn tensors(&self, x: &Tensor) -> Result<[Tensor; 2]> {
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
pub(super) struct Combination {
    pub coefficients: Vec<[f32; 3]>,
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
