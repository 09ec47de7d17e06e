//! What every layer gives to the next one, in numbers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;
use tallow_builder::exec::Tape;
use tallow_builder::graph::{Activation, Graph, Node, NodeId, Op, Role};
use tallow_tensorflow::event::Histogram;

use super::values::with_values;
use crate::error::Result;

/// A value within this share of a nonlinearity's range from its limit is saturated: there the derivative of sigmoid and
/// tanh is less than a tenth of its largest.
const NEAR: f32 = 0.025;

/// The output of a layer in one batch, behind its batch normalisation and nonlinearity if these follow directly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ActivationStatistics {
    /// Mean over everything.
    pub mean: f64,
    /// Variance (biased) over everything.
    pub variance: f64,
    /// Share of the units that are dead: a channel (or a feature) of a ReLU or ReLU6 that is 0 at every place of every
    /// image of the batch, so that no gradient passes. None behind other nonlinearities.
    pub dead: Option<f64>,
    /// Share of the values that are saturated: within 2.5 % of the range from a limit of sigmoid or tanh, or at the 6 of
    /// ReLU6. None behind other nonlinearities.
    pub saturated: Option<f64>,
}

/// The outputs of all layers that have a weight.
pub struct Activations {
    layers: BTreeMap<String, (ActivationStatistics, Histogram)>,
}

impl Activations {
    /// Looks at a training pass, before its backward pass.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn of_pass(graph: &Graph, tape: &Tape) -> Result<Self> {
        let consumers = consumers(graph);
        let weighted =
            graph.iter().filter(|(id, _)| graph.layer_parameters(*id).iter().any(|p| p.role == Role::Weight));
        let shown: Vec<(&Node, &Node, &Tensor)> = weighted
            .map(|(id, node)| {
                let end = end_of(graph, &consumers, id);
                (node, graph.node(end), tape.value(end))
            })
            .collect();
        // Each layer by itself, so that no result depends on the threads.
        let look = |(layer, end, value): &(&Node, &Node, &Tensor)| -> Result<_> {
            let units = value.dim(1)?;
            let found = with_values(value, |values| (statistics(end, values, units), Histogram::of(values)))?;
            Ok((layer.name.clone(), found))
        };
        Ok(Self { layers: shown.par_iter().map(look).collect::<Result<_>>()? })
    }

    /// The numbers of one layer.
    pub fn of(&self, layer: &str) -> Option<ActivationStatistics> {
        self.layers.get(layer).map(|(statistics, _)| *statistics)
    }

    /// The histogram of every layer, by name.
    pub fn histograms(&self) -> impl Iterator<Item = (&str, &Histogram)> {
        self.layers.iter().map(|(layer, (_, histogram))| (layer.as_str(), histogram))
    }
}

/// For each node those that take its output.
fn consumers(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut consumers = vec![vec![]; graph.nodes().len()];
    for (id, node) in graph.iter() {
        node.inputs.iter().for_each(|input| consumers[input.index()].push(id));
    }
    consumers
}

/// The last of a layer, its batch normalisation and its nonlinearity.
fn end_of(graph: &Graph, consumers: &[Vec<NodeId>], layer: NodeId) -> NodeId {
    let mut end = layer;
    while let [next] = consumers[end.index()][..] {
        match graph.node(next).op {
            Op::BatchNorm(_) => end = next,
            Op::Activation(_) => return next,
            _ => break,
        }
    }
    end
}

/// Values are `[N, units, …]`.
fn statistics(end: &Node, values: &[f32], units: usize) -> ActivationStatistics {
    let n = values.len().max(1) as f64;
    let (sum, squares) = sums(values);
    let mean = sum / n;
    let activation = match end.op {
        Op::Activation(activation) => Some(activation),
        _ => None,
    };
    let share = |count: usize, of: f64| count as f64 / of;
    let dead = matches!(activation, Some(Activation::Relu | Activation::Relu6))
        .then(|| share(dead(values, units, end.shape.elements() / units), units as f64));
    let saturated = match activation {
        Some(Activation::Sigmoid { .. }) => Some(count(values, |y| !(NEAR..=1.0 - NEAR).contains(&y))),
        Some(Activation::Tanh) => Some(count(values, |y| y.abs() > 1.0 - 2.0 * NEAR)),
        Some(Activation::Relu6) => Some(count(values, |y| y >= 6.0)),
        _ => None,
    };
    let saturated = saturated.map(|count| share(count, n));
    ActivationStatistics { mean, variance: (squares / n - mean * mean).max(0.0), dead, saturated }
}

/// Σ x and Σ x², eight at a time.
fn sums(values: &[f32]) -> (f64, f64) {
    let (mut sum, mut squares) = ([0f64; 8], [0f64; 8]);
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder().iter().map(|&x| f64::from(x));
    let (rest_sum, rest_squares) = rest.fold((0.0, 0.0), |(s, q), x| (s + x, q + x * x));
    for chunk in chunks {
        for lane in 0..8 {
            let x = f64::from(chunk[lane]);
            sum[lane] += x;
            squares[lane] += x * x;
        }
    }
    (sum.iter().sum::<f64>() + rest_sum, squares.iter().sum::<f64>() + rest_squares)
}

fn count(values: &[f32], is: impl Fn(f32) -> bool) -> usize {
    values.iter().filter(|&&value| is(value)).count()
}

/// Units without a positive value; a unit has `places` values in each image.
fn dead(values: &[f32], units: usize, places: usize) -> usize {
    let mut alive = vec![false; units];
    for image in values.chunks_exact(units * places) {
        for (alive, unit) in alive.iter_mut().zip(image.chunks_exact(places)) {
            *alive = *alive || unit.iter().any(|&value| value > 0.0);
        }
    }
    alive.iter().filter(|alive| !**alive).count()
}
