//! Softmax over logits, and the loss on top of it.

use candle_core::{D, Result, Tensor, bail};

use super::gpu;
pub use gpu::Loss;

/// Softmax over the last axis of `[N, K]`.
///
/// # Errors
/// Where the tensor has no last axis.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?;
    let exp = shifted.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Gradient of the logits, given y = softmax(logits): y·(g − Σ g·y).
///
/// # Errors
/// Where the shapes differ.
pub fn softmax_backward(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let inner = (y * grad)?.sum_keepdim(D::Minus1)?;
    y * grad.broadcast_sub(&inner)?
}

/// Cross-entropy with label smoothing (Szegedy et al. 2016, section 7): the target is
/// (1 − smoothing)·one-hot + smoothing/K, averaged over the batch.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// Probability taken from the label and spread over all classes, in [0, 1).
    pub smoothing: f64,
}

/// Labels of images that show two classes each, as mixup and CutMix make them: the target is
/// share·one-hot(first) + (1 − share)·one-hot(second).
#[derive(Clone, Copy, Debug)]
pub struct MixedLabels<'a> {
    /// One class of each image.
    pub first: &'a [u32],
    /// The other one.
    pub second: &'a [u32],
    /// Share of the first, 0 to 1.
    pub share: f64,
}

impl MixedLabels<'_> {
    pub(super) fn check(&self, rows: usize, classes: usize) -> Result<()> {
        for labels in [self.first, self.second] {
            if labels.len() != rows {
                bail!("cross-entropy: {} labels for {rows} images", labels.len());
            }
            if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
                bail!("cross-entropy: label {label} with {classes} classes");
            }
        }
        Ok(())
    }
}

impl CrossEntropy {
    /// The mean loss over the batch, computed in f64, and its gradient with respect to `logits` `[N, K]`.
    ///
    /// # Errors
    /// Where the labels do not fit the logits.
    pub fn loss_and_gradient(&self, logits: &Tensor, labels: &[u32]) -> Result<(f64, Tensor)> {
        self.mixed_loss_and_gradient(logits, MixedLabels { first: labels, second: labels, share: 1.0 })
    }

    /// As [`Self::loss_and_gradient`], for images of two classes each (Zhang et al. 2018, section 2). Smoothing mixes
    /// the target with the uniform distribution, whichever comes first.
    ///
    /// # Errors
    /// As [`Self::loss_and_gradient`].
    pub fn mixed_loss_and_gradient(&self, logits: &Tensor, labels: MixedLabels<'_>) -> Result<(f64, Tensor)> {
        let (n, k) = logits.dims2()?;
        labels.check(n, k)?;
        let spread = self.smoothing / k as f64;
        let mut loss = 0.0;
        let mut gradient = Vec::with_capacity(n * k);
        let pairs = labels.first.iter().zip(labels.second);
        for (row, (&first, &second)) in logits.to_vec2::<f32>()?.iter().zip(pairs) {
            let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let exps: Vec<f64> = row.iter().map(|&z| (f64::from(z) - max).exp()).collect();
            let log_total = exps.iter().sum::<f64>().ln();
            for (class, (&z, &exp)) in row.iter().zip(&exps).enumerate() {
                let shown = |label: u32, share: f64| if class == label as usize { share } else { 0.0 };
                let mixed = shown(first, labels.share) + shown(second, 1.0 - labels.share);
                let target = spread + (1.0 - self.smoothing) * mixed;
                let probability = exp / log_total.exp();
                loss -= target * (f64::from(z) - max - log_total);
                gradient.push(((probability - target) / n as f64) as f32);
            }
        }
        Ok((loss / n as f64, Tensor::from_vec(gradient, (n, k), logits.device())?))
    }

    /// The loss on a GPU, without waiting for it; `scale` is a factor of the gradient, f32 `[1]` there.
    ///
    /// # Errors
    /// As [`Self::loss_and_gradient`].
    pub fn on_device(
        &self,
        logits: &Tensor,
        labels: MixedLabels<'_>,
        scale: Option<&Tensor>,
    ) -> Result<Loss> {
        gpu::cross_entropy(logits, labels, self.smoothing, scale)
    }
}

impl Loss {
    /// Adds a batch to `totals`, f64 `[4]` on the same GPU, in place: the sum of the losses, the images whose label comes
    /// first, those whose label is among the first five, and all images.
    ///
    /// # Errors
    /// Where the totals are of another form.
    pub fn tally(&self, totals: &Tensor) -> Result<()> {
        gpu::tally(self, totals)
    }
}
