//! How gradients flow through a network: measured at one training step, layer by layer, and judged in plain words.
//!
//! [`Activations`] looks at the outputs before the backward pass frees them, [`GradientFlow`] adds gradients and
//! updates, [`Verdict`] says what they mean. A layer here is one with a weight, a convolution or a fully connected one.

mod activations;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod verdict;

use serde::Serialize;
use tallow_builder::Weights;
use tallow_builder::exec::Gradients;
use tallow_builder::graph::{Graph, Role};

use crate::error::Result;

pub use activations::{ActivationStatistics, Activations};
pub(crate) use values::with_values;
pub use verdict::{Finding, Verdict};

/// One training step, seen from every layer, from the input to the output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GradientFlow {
    /// The layers.
    pub layers: Vec<LayerFlow>,
    /// The step's learning rate over the highest of the run, so that small steps of a warm-up are known for such; 1
    /// where the rate does not change.
    pub rate_share: f64,
}

/// What a training step did to one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerFlow {
    /// The layer's name.
    pub layer: String,
    /// L2 norm of the gradient of its weight, before clipping.
    pub gradient_norm: f64,
    /// L2 norm of its weight before the step.
    pub weight_norm: f64,
    /// L2 norm of the step over that of the weight; around 0.001 where a network learns well, 0 for a weight of zeros.
    pub update_ratio: f64,
    /// What it gives to the next layer.
    pub activation: ActivationStatistics,
}

impl LayerFlow {
    /// The gradient's norm over the weight's: a gradient that does not depend on how many weights there are.
    pub fn relative_gradient(&self) -> f64 {
        if self.weight_norm > 0.0 { self.gradient_norm / self.weight_norm } else { self.gradient_norm }
    }
}

impl GradientFlow {
    /// Puts together what was seen of a step: the activations, the gradients, and the weights before and after.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn measure(
        graph: &Graph,
        activations: &Activations,
        gradients: &Gradients,
        before: &Weights,
        after: &Weights,
    ) -> Result<Self> {
        let mut layers = vec![];
        for parameter in graph.parameters().iter().filter(|parameter| parameter.role == Role::Weight) {
            let layer = &graph.node(parameter.node).name;
            // Frozen layers have no gradient that could vanish.
            let (Some(activation), Some(gradient)) = (activations.of(layer), gradients.get(&parameter.name))
            else {
                continue;
            };
            let weight = before.get(&parameter.name);
            let weight_norm = with_values(weight, norm)?;
            let gradient_norm = with_values(gradient, norm)?;
            let moved = with_values(weight, |old| {
                with_values(after.get(&parameter.name), |new| distance(old, new))
            })??;
            let update_ratio = if weight_norm > 0.0 { moved / weight_norm } else { 0.0 };
            let layer = layer.clone();
            layers.push(LayerFlow { layer, gradient_norm, weight_norm, update_ratio, activation });
        }
        Ok(Self { layers, rate_share: 1.0 })
    }

    /// What it means.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self)
    }
}

/// L2 norm, summed in f64.
fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// L2 norm of the difference.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
}
