//! Launches of `loss.cu`.

use candle_core::{DType, Result, Tensor, bail};
use tallow_cuda::{Launch, Source, Variant, pointer, run};

use crate::kernels::MixedLabels;

pub(super) static SOURCE: Source = Source { name: "loss.cu", text: include_str!("loss.cu") };

/// The loss of a batch, on the device.
pub struct Loss {
    /// Of each image, f32 `[N]`.
    pub losses: Tensor,
    /// How many classes come before the first label, u32 `[N]`.
    pub ranks: Tensor,
    /// The gradient of the mean with respect to the logits, `[N, K]` in their type, times the scale.
    pub gradient: Tensor,
}

/// Cross-entropy of logits `[N, K]`; `scale` is a factor of the gradient, f32 `[1]` on the device.
pub fn cross_entropy(
    logits: &Tensor,
    labels: MixedLabels<'_>,
    smoothing: f64,
    scale: Option<&Tensor>,
) -> Result<Loss> {
    let (rows, classes) = logits.dims2()?;
    labels.check(rows, classes)?;
    let (logits, device) = (logits.contiguous()?, logits.device());
    let first = Tensor::from_slice(labels.first, rows, device)?;
    // The same tensor where there is one label only, so that nothing is copied twice.
    let same = std::ptr::eq(labels.first, labels.second);
    let second = if same { first.clone() } else { Tensor::from_slice(labels.second, rows, device)? };
    let loss = Loss {
        losses: tallow_cuda::empty(rows, DType::F32, device)?,
        ranks: tallow_cuda::empty(rows, DType::U32, device)?,
        gradient: tallow_cuda::empty((rows, classes), logits.dtype(), device)?,
    };
    let launch =
        Launch::blocks(&SOURCE, Variant::new(logits.dtype(), 1), "cross_entropy", [rows as u32, 1, 1])
            .arg(classes as i32)
            .arg(pointer(&logits)?)
            .arg(pointer(&first)?)
            .arg(pointer(&second)?)
            .arg(labels.share as f32)
            .arg(smoothing as f32)
            .arg(1.0 / rows as f32)
            .arg(super::optional(scale)?)
            .arg(pointer(&loss.gradient)?)
            .arg(pointer(&loss.losses)?)
            .arg(pointer(&loss.ranks)?);
    run(device, &launch)?;
    Ok(loss)
}

/// Adds a batch to `totals`, f64 `[4]`, in place: the sum of the losses, the images whose label comes first, those
/// whose label is among the first five, and all images.
pub fn tally(loss: &Loss, totals: &Tensor) -> Result<()> {
    if totals.dims() != [4] || totals.dtype() != DType::F64 {
        bail!("tally: totals of {:?} {:?}", totals.dtype(), totals.dims());
    }
    let rows = loss.losses.elem_count();
    let launch = Launch::blocks(&SOURCE, Variant::new(DType::F32, 1), "tally", [1, 1, 1]).arg(rows as i32);
    let launch = launch.arg(pointer(&loss.losses)?).arg(pointer(&loss.ranks)?).arg(pointer(totals)?);
    run(totals.device(), &launch)
}
