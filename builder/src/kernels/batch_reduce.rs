//! Batch normalisation over the batches of several processes (SyncBN): each process's sums are added up, forward and
//! backward, and all of them normalise alike.
//!
//! Forward: count, Σx and Σx² of each channel. Each process makes Σx² of its mean and its squared deviations, which
//! are taken about that mean (Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
//! sample variances"): what can cancel is the f64 sum over processes alone, by 2⁻⁵³·μ²/σ². Backward: Σg and Σg·x̂.

use std::fmt::Debug;

use candle_core::{Result, Tensor, bail};

use super::moments::HostMoments;

/// Sums over processes. All of them call it for the same layers in the same order; it returns with the same bits to
/// each.
pub trait BatchReduce: Send + Sync + Debug {
    /// Replaces `values` by their sums over all processes. Where this process has no image of the batch and goes
    /// through the network with a stand-in, its own values count as zeros.
    ///
    /// # Errors
    /// Where another process cannot be reached.
    fn all_reduce(&self, values: &mut [f64]) -> Result<()>;

    /// How many values of a channel all processes have, where this one has `own`; `None` where only the sums tell.
    fn total_count(&self, _own: usize) -> Option<usize> {
        None
    }

    /// The sums over all processes of a vector of f64 on a GPU. Unless the processes can sum there, the host does it,
    /// which waits for the GPU.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn all_reduce_on_device(&self, values: &Tensor) -> Result<Tensor> {
        let mut host: Vec<f64> = values.to_vec1()?;
        self.all_reduce(&mut host)?;
        Tensor::from_vec(host, values.shape(), values.device())
    }
}

/// The moments of all processes' batches together, from those of this one's.
pub(super) fn reduced_moments(reduce: &dyn BatchReduce, own: &HostMoments) -> Result<HostMoments> {
    let channels = own.mean.len();
    let count = own.count as f64;
    let mean = own.mean.iter().map(|&mean| f64::from(mean));
    let square = |(&mean, &var): (&f32, &f32)| f64::from(var) + f64::from(mean).powi(2);
    let squares = own.mean.iter().zip(&own.var).map(square);
    let mut sums: Vec<f64> = mean.chain(squares).map(|moment| moment * count).chain([count]).collect();
    reduce.all_reduce(&mut sums)?;
    let total = sums[2 * channels];
    if total < 1.0 {
        bail!("batch-norm: no process has an image in this batch")
    }
    let (mean, square) = sums[..2 * channels].split_at(channels);
    // Rounding may leave a variance of nothing a little below 0.
    let var = mean.iter().zip(square).map(|(m, s)| (s / total - (m / total).powi(2)).max(0.0) as f32);
    let var = var.collect();
    Ok(HostMoments {
        mean: mean.iter().map(|sum| (sum / total) as f32).collect(),
        var,
        count: total as usize,
    })
}

/// Σg and Σg·x̂ over all processes' batches.
pub(super) fn reduced_sums(
    reduce: &dyn BatchReduce,
    plain: Vec<f64>,
    normalised: Vec<f64>,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut sums = [plain, normalised].concat();
    reduce.all_reduce(&mut sums)?;
    let normalised = sums.split_off(sums.len() / 2);
    Ok((sums, normalised))
}
