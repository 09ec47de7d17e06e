//! Random weights for a network of any depth: every tensor does something, and values stay of order one.
//! Initialisers will not do: they leave batch norms at the identity, which a wrong export would leave there too.

use candle_core::{Device, Tensor};
use tallow_builder::graph::{Op, Role};
use tallow_builder::{Graph, NodeId, Rng, Weights};

use crate::error::Error;

/// Draws weights and batch-norm statistics for `graph`; the same seed gives the same bits.
///
/// Filters have variance 2/fan-in, running variances and scales lie in [0.5, 1.5], means and shifts in ±0.5. The
/// last batch norm of a residual branch is scaled down, so that a hundred branches do not add up to large numbers.
///
/// # Errors
/// Where memory runs out.
pub fn randomised(graph: &Graph, seed: u64) -> Result<Weights, Error> {
    let mut weights = Weights::init(graph, seed, &Device::Cpu).map_err(tallow_exporter::Error::from)?;
    for (i, parameter) in graph.parameters().into_iter().enumerate() {
        let mut rng = Rng::stream(seed, &[i as u64]);
        let fan_in: usize = parameter.shape.iter().skip(1).product();
        let mut draw: Box<dyn FnMut() -> f64> = match parameter.role {
            Role::BatchesTracked => continue,
            Role::Weight => Box::new(move || rng.normal() * (2.0 / fan_in as f64).sqrt()),
            Role::RunningVar => Box::new(move || rng.uniform_in(0.5, 1.5)),
            Role::Scale if ends_branch(graph, parameter.node) => Box::new(move || rng.uniform_in(0.1, 0.4)),
            Role::Scale => Box::new(move || rng.uniform_in(0.5, 1.5)),
            Role::Bias | Role::Shift | Role::RunningMean => Box::new(move || rng.uniform_in(-0.5, 0.5)),
        };
        let values: Vec<f32> = (0..parameter.elements()).map(|_| draw() as f32).collect();
        let tensor = Tensor::from_vec(values, parameter.shape, &Device::Cpu);
        weights.set(&parameter.name, tensor.map_err(tallow_exporter::Error::from)?);
    }
    Ok(weights)
}

/// Whether a sum takes this layer's output, directly or through stochastic depth.
fn ends_branch(graph: &Graph, id: NodeId) -> bool {
    graph.iter().filter(|(_, node)| node.inputs.contains(&id)).any(|(consumer, node)| match node.op {
        Op::Add => true,
        Op::StochasticDepth { .. } => ends_branch(graph, consumer),
        _ => false,
    })
}
