//! Random weights for a network of any depth, under which the output depends on the image throughout.
//! Initialisers will not do: they leave batch norms at the identity, which a wrong export would leave there too.
//! Random batch-norm statistics will not do either: deep networks blow up or forget their input.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use tallow_builder::exec::BatchStatistics;
use tallow_builder::graph::{Op, Parameter, Role, Shape};
use tallow_builder::{Graph, Network, NodeId, Rng, Weights};
use tallow_exporter::passes::remove_training;

use crate::error::Error;
use crate::outputs::random_images;
use crate::tensors::to_tensor;

/// Images that the running averages are taken from.
const BATCH: usize = 16;

/// Draws weights for `graph`, and batch-norm statistics near those of random images; the same seed gives the same
/// bits.
///
/// Filters have variance 2/fan-in, scales lie in [0.5, 1.5], biases in ±0.5. Two things keep the rounding error of a
/// hundred layers near that of one, as in trained networks; without them it grows layer by layer (Yang et al. 2019, "A
/// mean field theory of batch normalization"), and f32 is 1e-5 away from f64 in any engine: shifts above 0, so that
/// most values pass their ReLU, and small scales and shifts where a residual branch ends.
///
/// # Errors
/// Where memory runs out.
pub fn randomised(graph: &Graph, seed: u64) -> Result<Weights, Error> {
    let weights = parameters(graph, seed)?;
    let (inference, weights) = remove_training(graph, &weights)?;
    let mut network = Network::new(inference, weights);
    if let Shape::Map { channels, height, width } = graph.input_shape() {
        statistics(&mut network, seed, [channels, height, width])?;
    }
    Ok(network.weights().clone())
}

fn parameters(graph: &Graph, seed: u64) -> Result<Weights, tallow_exporter::Error> {
    let draw = |(i, parameter): (usize, &Parameter)| -> candle_core::Result<(String, Tensor)> {
        let fan_in: usize = parameter.shape.iter().skip(1).product();
        let (low, high) = match parameter.role {
            Role::BatchesTracked => {
                return Ok((parameter.name.clone(), Tensor::zeros((), DType::I64, &Device::Cpu)?));
            }
            Role::RunningMean => (0.0, 0.0),
            Role::RunningVar => (1.0, 1.0),
            // A uniform distribution's variance is a third of its bound's square.
            Role::Weight => (-(6.0 / fan_in as f64).sqrt(), (6.0 / fan_in as f64).sqrt()),
            Role::Scale if ends_branch(graph, parameter.node) => (0.1, 0.3),
            Role::Scale => (0.5, 1.5),
            Role::Bias => (-0.5, 0.5),
            Role::Shift if ends_branch(graph, parameter.node) => (-0.1, 0.4),
            Role::Shift => (0.5, 1.5),
        };
        let mut rng = Rng::stream(seed, &[i as u64]);
        let values = (0..parameter.elements()).map(|_| rng.uniform_in(low, high) as f32).collect();
        Ok((parameter.name.clone(), Tensor::from_vec(values, parameter.shape.clone(), &Device::Cpu)?))
    };
    let drawn = graph.parameters().par_iter().enumerate().map(draw).collect::<candle_core::Result<_>>()?;
    Ok(Weights::from_tensors(graph, drawn, "random weights")?)
}

/// Sets running averages to the moments of a batch, each moved a little.
fn statistics(network: &mut Network, seed: u64, sample: [usize; 3]) -> Result<(), tallow_exporter::Error> {
    let mut rng = Rng::stream(seed, &[u64::MAX]);
    let images = random_images(!seed, &[BATCH], sample).remove(0);
    let tape = network.record(&to_tensor(&images)?, &mut rng)?;
    for BatchStatistics { layer, moments, .. } in tape.statistics(network) {
        let (mut mean, mut var) = (moments.mean.to_vec1::<f32>()?, moments.unbiased_var()?.to_vec1::<f32>()?);
        for (mean, var) in mean.iter_mut().zip(&mut var) {
            *mean += rng.uniform_in(-0.1, 0.1) as f32 * var.sqrt();
            // A channel that was silent in this batch may speak in another.
            *var = *var * rng.uniform_in(0.8, 1.25) as f32 + 0.01;
        }
        for (suffix, values) in [("running_mean", mean), ("running_var", var)] {
            let tensor = Tensor::new(values, &Device::Cpu)?;
            network.weights_mut().set(&format!("{layer}.{suffix}"), tensor);
        }
    }
    Ok(())
}

/// Whether a sum takes this layer's output, directly or through stochastic depth.
fn ends_branch(graph: &Graph, id: NodeId) -> bool {
    graph.iter().filter(|(_, node)| node.inputs.contains(&id)).any(|(consumer, node)| match node.op {
        Op::Add => true,
        Op::StochasticDepth { .. } => ends_branch(graph, consumer),
        _ => false,
    })
}
