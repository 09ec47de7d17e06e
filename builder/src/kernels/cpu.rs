//! Access to candle's CPU storage, and the instruction set of the machine.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result, Tensor, bail};

/// The values behind a storage, which must be contiguous f32; `op` names the kernel in errors.
pub(super) fn values<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else {
        bail!("{op} computes in f32 on the CPU, got {:?}", storage.dtype());
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&data[start..end]),
        None => bail!("{op} needs contiguous tensors"),
    }
}

/// The four dimensions of a batch of feature maps.
pub(super) fn dims4(op: &str, layout: &Layout) -> Result<[usize; 4]> {
    match *layout.dims() {
        [n, c, h, w] => Ok([n, c, h, w]),
        ref other => bail!("{op} takes tensors of shape [N, C, H, W], got {other:?}"),
    }
}

/// An f32 result as candle's storage.
pub(super) fn storage(values: Vec<f32>) -> CpuStorage {
    CpuStorage::F32(values)
}

/// The same tensor laid out contiguously, without a copy where it is already.
pub(super) fn contiguous(tensor: &Tensor) -> Result<Tensor> {
    tensor.contiguous()
}

/// Runs a loop compiled for the best instruction set this machine has; what it calls must be inlined.
#[inline(always)]
pub(super) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(Inlined(body))
}

struct Inlined<F>(F);

impl<R, F: FnOnce() -> R> pulp::WithSimd for Inlined<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> R {
        (self.0)()
    }
}

/// Fewest elements worth a task of their own: below, handing work to a thread costs more than doing it.
pub(super) const GRAIN: usize = 16 * 1024;

/// Independent partial sums in a reduction: fast, and more accurate than one running sum.
pub(super) const LANES: usize = 16;

/// Σ f(a, b) over two slices of one length, in [`LANES`] partial sums.
#[inline(always)]
pub(super) fn lane_sum(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let mut lanes = [0f32; LANES];
    let (chunks_a, chunks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f64 =
        chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(&x, &y)| f64::from(f(x, y))).sum();
    for (x, y) in chunks_a.zip(chunks_b) {
        for i in 0..LANES {
            lanes[i] += f(x[i], y[i]);
        }
    }
    tail + lanes.iter().map(|&v| f64::from(v)).sum::<f64>()
}
