//! Mean and variance of a batch's channels, and what becomes of them in running averages.

use candle_core::{Result, Tensor};

use super::gpu;

/// Mean and biased variance of each channel over a batch and both spatial axes, where the batch is.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Mean of each channel, f32 `[C]`.
    pub mean: Tensor,
    /// Biased variance of each channel, f32 `[C]`: divided by the count.
    pub var: Tensor,
    /// Values of a channel: images × pixels.
    pub count: usize,
}

impl Moments {
    /// What the biased variance is multiplied by to be divided by count − 1, as it goes into the running average. A
    /// single value has no variance and counts as 0, so that the average stays finite.
    pub fn correction(&self) -> f64 {
        let count = self.count as f64;
        if self.count > 1 { count / (count - 1.0) } else { 0.0 }
    }

    /// The variance divided by count − 1.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn unbiased_var(&self) -> Result<Tensor> {
        let unbiased = |v: &f32| (f64::from(*v) * self.correction()) as f32;
        let values: Vec<f32> = self.var.to_vec1::<f32>()?.iter().map(unbiased).collect();
        Tensor::from_vec(values, self.var.dims(), self.var.device())
    }

    pub(super) fn host(&self) -> Result<HostMoments> {
        Ok(HostMoments { mean: self.mean.to_vec1()?, var: self.var.to_vec1()?, count: self.count })
    }
}

/// The running averages of a batch normalisation.
#[derive(Clone, Debug)]
pub struct RunningMoments {
    /// f32 `[C]`.
    pub mean: Tensor,
    /// f32 `[C]`, of variances divided by count − 1.
    pub var: Tensor,
    /// Batches that have gone into them: i64 `[]`.
    pub batches: Tensor,
}

impl RunningMoments {
    /// Those of some layers after a batch, PyTorch's way: each with the batch's moments and their share, the layer's
    /// momentum.
    ///
    /// # Errors
    /// Where the shapes differ.
    pub fn moved(layers: &[(Self, &Moments, f64)]) -> Result<Vec<Self>> {
        if layers.first().is_some_and(|(running, ..)| gpu::is_on_gpu(&running.mean)) {
            return gpu::track(layers);
        }
        let moved = |(running, batch, momentum): &(Self, &Moments, f64)| {
            let moved = |old: &Tensor, new: &Tensor| (old * (1.0 - momentum))? + (new * *momentum)?;
            Ok(Self {
                mean: moved(&running.mean, &batch.mean)?,
                var: moved(&running.var, &batch.unbiased_var()?)?,
                batches: (&running.batches + 1.0)?,
            })
        };
        layers.iter().map(moved).collect()
    }
}

/// Moments as the CPU computes with them.
pub(super) struct HostMoments {
    pub mean: Vec<f32>,
    pub var: Vec<f32>,
    pub count: usize,
}

impl HostMoments {
    pub fn inverse_std(&self, eps: f64) -> Vec<f64> {
        self.var.iter().map(|&v| 1.0 / (f64::from(v) + eps).sqrt()).collect()
    }
}
