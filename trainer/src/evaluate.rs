//! A network's loss and accuracies on a data set, whatever runs it.

use std::borrow::Borrow;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use tallow_builder::Network;
use tallow_cuda::Uploader;
use tallow_input::{OutputKind, Views, mean_probabilities};

use crate::compute::{Compute, Input, Inputs, Precision};
use crate::data::{Batch, Loader};
use crate::error::{Error, Result};
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
    /// What loss and accuracies are made of.
    pub(crate) running: Running,
    /// How often each class was taken for each other.
    pub confusion: ConfusionMatrix,
    /// How right each class's probability is at every threshold.
    pub precision_recall: PrecisionRecall,
}

/// Runs `network`, whose weights are on `compute`'s device, over all images of `loader`, in inference form. `None` if `stop` was set before the end.
///
/// # Errors
/// Those of the loader; where the images do not fit the network; [`Error::NotFiniteOutput`].
pub fn evaluate(
    network: &Network,
    compute: &Compute,
    loader: &Loader,
    progress: &mut Progress,
    pass: Pass,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>> {
    let mut uploader = Uploader::new(compute.device())?;
    let inputs = Inputs::new(compute, &mut uploader, loader.epoch(0, 0)?);
    evaluate_inputs(network, compute, inputs, progress, pass, stop)
}

/// As [`evaluate`], on images that go to the device as the caller says.
pub(crate) fn evaluate_inputs(
    network: &Network,
    compute: &Compute,
    inputs: impl Iterator<Item = Result<Input>>,
    progress: &mut Progress,
    pass: Pass,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>> {
    let classes = network.graph().output_shape().elements();
    let forward = |Input { batch, images }: &Input| {
        let logits = compute.to_host(&network.forward(images)?)?;
        if logits.iter().all(|logit| logit.is_finite()) {
            return Ok(logits);
        }
        let mut place = first_non_finite(network, images)?;
        if compute.precision() == Precision::F16 {
            place += "; f16 ends at 65504, --precision bf16 does not";
        }
        Err(Error::NotFiniteOutput { batch: batch.index + 1, place })
    };
    evaluate_on(classes, forward, inputs, progress, pass, stop)
}

/// As [`evaluate`], with anything that turns a batch into logits (N · views, classes). Where images are looked at in
/// several ways, the logarithms of the mean probabilities stand in for an image's logits.
///
/// # Errors
/// Those of the loader and of `forward`; [`Error::NotFiniteOutput`].
pub fn evaluate_with<E: From<crate::Error>>(
    classes: usize,
    forward: impl FnMut(&Batch) -> Result<Vec<f32>, E>,
    loader: &Loader,
    progress: &mut Progress,
    pass: Pass,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>, E> {
    evaluate_on(classes, forward, loader.epoch(0, 0)?, progress, pass, stop)
}

/// As [`evaluate_with`], on batches in whatever form.
fn evaluate_on<B: Borrow<Batch>, E: From<crate::Error>>(
    classes: usize,
    mut forward: impl FnMut(&B) -> Result<Vec<f32>, E>,
    batches: impl Iterator<Item = Result<B>>,
    progress: &mut Progress,
    pass: Pass,
    stop: &AtomicBool,
) -> Result<Option<Evaluation>, E> {
    let mut running = Running::new(classes);
    let mut confusion = ConfusionMatrix::new(classes);
    let mut precision_recall = PrecisionRecall::new(classes);
    progress.start(pass);
    for batch in batches {
        if stop.load(Ordering::Relaxed) {
            progress.finish();
            return Ok(None);
        }
        let batch = batch?;
        let mut logits = forward(&batch)?;
        let batch: &Batch = batch.borrow();
        if batch.views != Views::One {
            let mean = mean_probabilities(&logits, OutputKind::Logits, classes, batch.views);
            // A probability that has vanished to 0 has no logarithm.
            logits = mean.into_iter().map(|p| p.max(f32::MIN_POSITIVE).ln()).collect();
        }
        let loss = cross_entropy(&logits, &batch.labels);
        if !loss.is_finite() {
            let place = "in the loss itself".into();
            return Err(Error::NotFiniteOutput { batch: batch.index + 1, place }.into());
        }
        running.update(loss, &logits, &batch.labels);
        confusion.update(&logits, &batch.labels);
        precision_recall.update(&logits, &batch.labels);
        progress.step(batch.len(), running.loss(), running.top1());
    }
    progress.finish();
    Ok(Some(Evaluation::of(running, confusion, precision_recall)))
}

impl Evaluation {
    /// Of what was counted.
    pub(crate) fn of(
        running: Running,
        confusion: ConfusionMatrix,
        precision_recall: PrecisionRecall,
    ) -> Self {
        let validation = Validation { loss: running.loss(), top1: running.top1(), top5: running.top5() };
        Self { validation, images: running.samples(), running, confusion, precision_recall }
    }
}

/// The layer where NaN or an infinity first shows, in words.
fn first_non_finite(network: &Network, images: &Tensor) -> Result<String> {
    let mut first = None;
    network.forward_watched(images, |id, value| {
        if first.is_none() && !is_finite(value).unwrap_or(true) {
            first = Some(id);
        }
    })?;
    Ok(match first.map(|id| network.graph().node(id)) {
        Some(node) => format!("first in the output of layer `{}` ({})", node.name, node.op.kind()),
        None => "in the output itself".into(),
    })
}

/// Whether all of a tensor's numbers are.
pub(crate) fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()))
}
