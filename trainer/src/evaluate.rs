//! A network's loss and accuracies on a data set, whatever runs it.

use candle_core::{Device, Tensor};
use tallow_builder::Network;

use crate::data::{Batch, Loader};
use crate::error::Result;
use crate::metrics::csv::Validation;
use crate::metrics::{ConfusionMatrix, PrecisionRecall, Running, cross_entropy};
use crate::progress::{Pass, Progress};

/// What a pass over a data set found.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Loss (without label smoothing), top-1 and top-5.
    pub validation: Validation,
    /// Images seen.
    pub images: usize,
    /// How often each class was taken for each other.
    pub confusion: ConfusionMatrix,
    /// How right each class's probability is at every threshold.
    pub precision_recall: PrecisionRecall,
}

/// Runs `network` over all images of `loader`, in inference form.
///
/// # Errors
/// Those of the loader, and where the images do not fit the network.
pub fn evaluate(
    network: &Network,
    loader: &Loader,
    progress: &mut Progress,
    pass: Pass,
) -> Result<Evaluation> {
    let classes = network.graph().output_shape().elements();
    let forward = |batch: &Batch| {
        let logits = network.forward(&images(batch, &Device::Cpu)?)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    };
    evaluate_with(classes, forward, loader, progress, pass)
}

/// As [`evaluate`], with anything that turns a batch into logits (N, classes).
///
/// # Errors
/// Those of the loader and of `forward`.
pub fn evaluate_with<E: From<crate::Error>>(
    classes: usize,
    mut forward: impl FnMut(&Batch) -> Result<Vec<f32>, E>,
    loader: &Loader,
    progress: &mut Progress,
    pass: Pass,
) -> Result<Evaluation, E> {
    let mut running = Running::new(classes);
    let mut confusion = ConfusionMatrix::new(classes);
    let mut precision_recall = PrecisionRecall::new(classes);
    progress.start(pass);
    for batch in loader.epoch(0, 0)? {
        let batch = batch?;
        let logits = forward(&batch)?;
        running.update(cross_entropy(&logits, &batch.labels), &logits, &batch.labels);
        confusion.update(&logits, &batch.labels);
        precision_recall.update(&logits, &batch.labels);
        progress.step(batch.len(), running.loss(), running.top1());
    }
    progress.finish();
    let validation = Validation { loss: running.loss(), top1: running.top1(), top5: running.top5() };
    Ok(Evaluation { validation, images: running.samples(), confusion, precision_recall })
}

/// A batch's images as a tensor `[N, 3, H, W]`.
pub(crate) fn images(batch: &Batch, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(&batch.images, (batch.len(), 3, batch.height, batch.width), device)?)
}
