//! Model soups (Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy
//! without increasing inference time"): the mean of the weights of several trainings of one network that began with the
//! same weights. [`average`] takes all of them, [`greedy`] those that help; [`recalibrate`] gives the mean the batch
//! normalisation that fits it.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use tallow_builder::graph::{Graph, Op, Role};
use tallow_builder::{Network, Rng, Weights};
use tallow_cuda::Uploader;

use crate::compute::{Compute, Input, Inputs};
use crate::data::Loader;
use crate::error::Result;
use crate::metrics::{Running, cross_entropy};
use crate::progress::{Pass, Progress};

/// First part of the key of the random numbers that dropout and stochastic depth draw while moments are measured.
const STREAM: u64 = u64::from_be_bytes(*b"soup    ");

/// The mean of all ingredients, the paper's uniform soup, summed in f64. Running moments of batch normalisation are
/// averaged as weights are; counters of batches are the first one's.
///
/// # Errors
/// Where the device fails.
///
/// # Panics
/// If there are no ingredients, or they are of another network.
pub fn average(graph: &Graph, ingredients: &[&Weights]) -> Result<Weights> {
    let mut mean = ingredients[0].clone();
    for parameter in graph.parameters().iter().filter(|parameter| parameter.role != Role::BatchesTracked) {
        let mut sum = ingredients[0].get(&parameter.name).to_dtype(DType::F64)?;
        for other in &ingredients[1..] {
            sum = (sum + other.get(&parameter.name).to_dtype(DType::F64)?)?;
        }
        mean.set(&parameter.name, (sum / ingredients.len() as f64)?.to_dtype(DType::F32)?);
    }
    Ok(mean)
}

/// A greedy soup.
#[derive(Clone, Debug)]
pub struct Greedy {
    /// The ingredients it is made of, the best one first.
    pub taken: Vec<usize>,
    /// Their mean.
    pub weights: Weights,
    /// Its score.
    pub score: f64,
}

/// The paper's greedy soup (algorithm 1): from the ingredient with the best of `scores` on, each is added that does not
/// lower the score of the mean. `judge` makes of a mean what is to be judged, and scores it on held-out images.
///
/// # Errors
/// Those of `judge`.
///
/// # Panics
/// If there is not one score for each ingredient, or no ingredient.
pub fn greedy<E: From<crate::Error>>(
    graph: &Graph,
    ingredients: &[Weights],
    scores: &[f64],
    mut judge: impl FnMut(Weights) -> Result<(Weights, f64), E>,
) -> Result<Greedy, E> {
    assert_eq!(ingredients.len(), scores.len(), "every ingredient has a score");
    let mut order: Vec<usize> = (0..ingredients.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let best = order[0];
    let mut soup = Greedy { taken: vec![best], weights: ingredients[best].clone(), score: scores[best] };
    for &next in &order[1..] {
        let tried: Vec<usize> = soup.taken.iter().copied().chain([next]).collect();
        let mixed: Vec<&Weights> = tried.iter().map(|&i| &ingredients[i]).collect();
        let (weights, score) = judge(average(graph, &mixed)?)?;
        if score >= soup.score {
            soup = Greedy { taken: tried, weights, score };
        }
    }
    Ok(soup)
}

/// Whether a network has running moments that its mean can get wrong.
pub fn has_moments(graph: &Graph) -> bool {
    graph.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm(_)))
}

/// Replaces the running moments of batch normalisation of `network`, whose weights are on `compute`'s device, by the mean
/// of those of `loader`'s batches, as PyTorch's `update_bn` does. False if `stop` was set before the end; the moments are
/// of the batches seen then.
///
/// # Errors
/// Those of the loader; where the images do not fit the network.
pub fn recalibrate(
    network: &mut Network,
    compute: &Compute,
    loader: &Loader,
    progress: &mut Progress,
    stop: &AtomicBool,
) -> Result<bool> {
    if !has_moments(network.graph()) {
        return Ok(true);
    }
    for parameter in network.graph().parameters() {
        if parameter.role == Role::BatchesTracked {
            network.weights_mut().set(&parameter.name, Tensor::zeros((), DType::I64, compute.device())?);
        }
    }
    progress.start(Pass {
        what: "recalibrate",
        epoch: 1,
        epochs: 1,
        batches: loader.batches(),
        first_batch: 0,
    });
    let mut running = Running::new(network.graph().output_shape().elements());
    let mut uploader = Uploader::new(compute.device())?;
    let inputs = Inputs::new(compute, &mut uploader, loader.epoch(0, 0)?);
    for (seen, input) in inputs.enumerate() {
        if stop.load(Ordering::Relaxed) {
            progress.finish();
            return Ok(false);
        }
        let Input { batch, images } = input?;
        let mut rng = Rng::stream(0, &[STREAM, batch.index as u64]);
        let tape = network.record(&images, &mut rng)?;
        let mut statistics = tape.statistics(network);
        // A share of 1/n makes the moving average a mean.
        statistics.iter_mut().for_each(|layer| layer.momentum = 1.0 / (seen + 1) as f64);
        network.track(&statistics)?;
        let logits = compute.to_host(tape.value(network.graph().output()))?;
        running.update(cross_entropy(&logits, &batch.labels), &logits, &batch.labels);
        progress.step(batch.len(), running.loss(), running.top1());
    }
    progress.finish();
    Ok(true)
}

#[cfg(test)]
mod tests;
