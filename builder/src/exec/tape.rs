//! The backward pass over a recorded training pass.
//!
//! candle's own autograd would do (every kernel has its `bwd`), but it walks the graph recursively, adds every
//! gradient to a tensor of zeros first, and keeps all activations to the end. The layer graph is already a tape: this
//! goes through it backwards once, moves gradients instead of adding them where a layer has one consumer, drops each
//! activation as soon as it is done with, and computes nothing for parameters nobody asked about.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::apply::{BatchStatistics, Recorded, Saved, Wanted, gradients};
use super::{Network, at};
use crate::error::Result;
use crate::graph::{NodeId, Op};

/// Gradients by parameter name.
pub type Gradients = BTreeMap<String, Tensor>;

/// One training pass: every layer's output, and what its gradient needs.
pub struct Tape {
    values: Vec<Tensor>,
    saved: Vec<Saved>,
}

impl Tape {
    pub(super) fn new(nodes: usize) -> Self {
        Self { values: Vec::with_capacity(nodes), saved: Vec::with_capacity(nodes) }
    }

    pub(super) fn push(&mut self, value: Tensor, saved: Saved) {
        self.values.push(value);
        self.saved.push(saved);
    }

    /// A layer's output.
    pub fn value(&self, id: NodeId) -> &Tensor {
        &self.values[id.index()]
    }

    /// The batch's moments at every batch normalisation, for [`Network::track`].
    pub fn statistics(&self, network: &Network) -> Vec<BatchStatistics> {
        let nodes = network.graph().nodes().iter();
        nodes.zip(&self.saved).filter_map(|(node, saved)| BatchStatistics::of(node, saved)).collect()
    }

    /// The first layer whose output holds NaN or an infinity.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn first_non_finite(&self) -> Result<Option<NodeId>> {
        for (i, value) in self.values.iter().enumerate() {
            // NaN and infinities survive a sum of absolute values; nothing else makes one in f64.
            let total = value.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
            if !total.is_finite() {
                return Ok(Some(NodeId::at(i)));
            }
        }
        Ok(None)
    }

    /// The gradients of all trainable parameters whose name `wanted` accepts, given the gradient of the output.
    ///
    /// # Errors
    /// Where the gradient does not fit the output.
    pub fn backward(
        self,
        network: &Network,
        grad: &Tensor,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Gradients> {
        let mut gradients = Gradients::new();
        self.backward_watched(network, grad, wanted, |name, gradient| {
            gradients.insert(name.to_owned(), gradient);
            Ok(())
        })?;
        Ok(gradients)
    }

    /// As [`Self::backward`], but hands each gradient to `ready` as soon as it is complete, from the last layer to the
    /// first, so that it can be worked on while the rest is computed.
    ///
    /// # Errors
    /// As [`Self::backward`], and those of `ready`.
    pub fn backward_watched(
        self,
        network: &Network,
        grad: &Tensor,
        wanted: impl Fn(&str) -> bool,
        mut ready: impl FnMut(&str, Tensor) -> Result<()>,
    ) -> Result<()> {
        self.walk(network, grad, &wanted, None, &mut ready).map(drop)
    }

    /// The gradient of a layer's output, given that of the network's output: how the network's answer depends on what
    /// the layer gives.
    ///
    /// # Errors
    /// Where the gradient does not fit the output.
    pub fn gradient_of(self, network: &Network, grad: &Tensor, layer: NodeId) -> Result<Tensor> {
        let zeros = self.value(layer).zeros_like()?;
        let found = self.walk(network, grad, &|_| false, Some(layer), &mut |_, _| Ok(()))?;
        Ok(found.unwrap_or(zeros))
    }

    /// Hands on the gradients of parameters, down to the first layer that has a wanted one or is `last`, and gives
    /// `last`'s own.
    fn walk(
        mut self,
        network: &Network,
        grad: &Tensor,
        wanted: &dyn Fn(&str) -> bool,
        last: Option<NodeId>,
        ready: &mut dyn FnMut(&str, Tensor) -> Result<()>,
    ) -> Result<Option<Tensor>> {
        let graph = network.graph();
        let parameters: Vec<bool> = graph
            .iter()
            .map(|(id, _)| {
                graph.layer_parameters(id).iter().any(|p| p.role.is_trainable() && wanted(&p.name))
            })
            .collect();
        // A layer's output needs a gradient where it, or a layer before it, has a wanted parameter or is `last`.
        let mut needed = parameters.clone();
        if let Some(last) = last {
            needed[last.index()] = true;
        }
        for (id, node) in graph.iter() {
            needed[id.index()] |= node.inputs.iter().any(|input| needed[input.index()]);
        }
        let mut grads: Vec<Option<Tensor>> = vec![None; self.values.len()];
        grads[graph.output().index()] = Some(grad.clone());
        for (id, node) in graph.iter().rev() {
            let index = id.index();
            if last == Some(id) {
                // Every layer that takes its output has been gone through.
                return Ok(grads[index].take());
            }
            if let Some(grad) = grads[index].take().filter(|_| needed[index] && node.op != Op::Input) {
                let inputs: Vec<&Tensor> = node.inputs.iter().map(|&input| self.value(input)).collect();
                let recorded = Recorded {
                    node,
                    inputs: &inputs,
                    output: &self.values[index],
                    saved: &self.saved[index],
                    weights: network.weights(),
                };
                let inputs = node.inputs.iter().any(|input| needed[input.index()]);
                let layer = gradients(&recorded, &grad, Wanted { inputs, parameters: parameters[index] })
                    .map_err(at(&node.name))?;
                for (input, grad) in node.inputs.iter().zip(layer.inputs) {
                    let slot = &mut grads[input.index()];
                    *slot = match (slot.take(), grad) {
                        (Some(a), Some(b)) => Some((a + b)?),
                        (a, b) => a.or(b),
                    };
                }
                for (suffix, grad) in layer.parameters {
                    let name = format!("{}.{suffix}", node.name);
                    if wanted(&name) {
                        ready(&name, grad)?;
                    }
                }
            }
            self.values.pop();
            self.saved.pop();
        }
        Ok(None)
    }
}
