//! The backward pass over a recorded training pass.
//!
//! candle's own autograd would do (every kernel has its `bwd`), but it walks the graph recursively, adds every
//! gradient to a tensor of zeros first, and keeps all activations to the end. The layer graph is already a tape: this
//! goes through it backwards once, moves gradients instead of adding them where a layer has one consumer, drops each
//! activation as soon as it is done with, and computes nothing for parameters nobody asked about.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::apply::{BatchStatistics, Recorded, Saved, Wanted, again, gradients};
use super::plan::{Plan, Step};
use super::{Network, at};
use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::kernels::add;

/// Gradients by parameter name.
pub type Gradients = BTreeMap<String, Tensor>;

/// One training pass: the layers' outputs that were kept, and what the gradients need besides.
pub struct Tape {
    plan: Plan,
    values: Vec<Option<Tensor>>,
    /// Of each step.
    saved: Vec<Saved>,
}

impl Tape {
    pub(super) fn new(graph: &Graph, plan: Plan) -> Self {
        let saved = Vec::with_capacity(plan.steps.len());
        Self { plan, values: vec![None; graph.nodes().len()], saved }
    }

    pub(super) fn push(&mut self, output: NodeId, value: Tensor, saved: Saved) {
        self.values[output.index()] = Some(value);
        self.saved.push(saved);
    }

    /// What the step kept whose batch normalisation a step uses, where that is another's.
    pub(super) fn squeeze(&self, step: &Step) -> Option<&Saved> {
        self.plan.squeeze(step).map(|number| &self.saved[number])
    }

    /// Drops a value that will be computed again.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.values[id.index()] = None;
    }

    /// A layer's output.
    ///
    /// # Panics
    /// Where it was not kept: the network's output always is, others with [`Keep::Everything`](super::Keep).
    pub fn value(&self, id: NodeId) -> &Tensor {
        self.values[id.index()].as_ref().expect("the pass kept this value")
    }

    /// The outputs of a step's inputs.
    pub(super) fn inputs(&self, step: &Step, graph: &Graph) -> Vec<&Tensor> {
        step.inputs(graph).into_iter().map(|id| self.value(id)).collect()
    }

    /// The batch's moments at every batch normalisation, for [`Network::track`].
    pub fn statistics(&self, network: &Network) -> Vec<BatchStatistics> {
        let steps = self.plan.steps.iter().zip(&self.saved);
        let layer = |step: &Step| network.graph().node(step.parameters_of());
        steps.filter_map(|(step, saved)| BatchStatistics::of(layer(step), saved)).collect()
    }

    /// The first layer whose output, as far as it was kept, holds NaN or an infinity.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn first_non_finite(&self) -> Result<Option<NodeId>> {
        for (i, value) in self.values.iter().enumerate() {
            let Some(value) = value else { continue };
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
        self.backward_watched(network, grad, wanted, |name, gradient| -> Result<()> {
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
    pub fn backward_watched<E: From<Error>>(
        self,
        network: &Network,
        grad: &Tensor,
        wanted: impl Fn(&str) -> bool,
        mut ready: impl FnMut(&str, Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(network, grad, &wanted, None, &mut ready).map(drop)
    }

    /// The gradient of a layer's output, given that of the network's output: how the network's answer depends on what
    /// the layer gives. The pass must have kept everything.
    ///
    /// # Errors
    /// Where the gradient does not fit the output.
    pub fn gradient_of(self, network: &Network, grad: &Tensor, layer: NodeId) -> Result<Tensor> {
        let zeros = self.value(layer).zeros_like()?;
        let found =
            self.walk(network, grad, &|_| false, Some(layer), &mut |_, _| -> Result<()> { Ok(()) })?;
        Ok(found.unwrap_or(zeros))
    }

    /// Hands on the gradients of parameters, down to the first layer that has a wanted one or is `last`, and gives
    /// `last`'s own.
    fn walk<E: From<Error>>(
        mut self,
        network: &Network,
        grad: &Tensor,
        wanted: &dyn Fn(&str) -> bool,
        last: Option<NodeId>,
        ready: &mut dyn FnMut(&str, Tensor) -> Result<(), E>,
    ) -> Result<Option<Tensor>, E> {
        let graph = network.graph();
        let plan = self.plan.clone();
        let (needed, parameters) = needed(graph, &plan, wanted, last);
        let mut grads: Vec<Option<Tensor>> = vec![None; self.values.len()];
        grads[graph.output().index()] = Some(grad.clone());
        let mut end = plan.steps.len();
        for part in (0..plan.parts.len()).rev() {
            let start = part.checked_sub(1).map_or(0, |before| plan.parts[before]);
            self.recompute(network, start..end)?;
            for number in (start..end).rev() {
                let step = &plan.steps[number];
                let id = step.output();
                if last == Some(id) {
                    // Every layer that takes its output has been gone through.
                    return Ok(grads[id.index()].take());
                }
                let is_input = graph.node(id).op == Op::Input;
                if let Some(grad) = grads[id.index()].take().filter(|_| needed[id.index()] && !is_input) {
                    let inputs = step.inputs(graph);
                    let squeeze = plan.squeeze(step);
                    let recorded = Recorded {
                        graph,
                        step,
                        inputs: &self.inputs(step, graph),
                        output: self.value(id),
                        saved: &self.saved[squeeze.unwrap_or(number)],
                        weights: network.weights(),
                    };
                    let asked = Wanted {
                        inputs: inputs.iter().any(|input| needed[input.index()]),
                        parameters: parameters[number],
                    };
                    let layer = &graph.node(step.parameters_of()).name;
                    let found = gradients(&recorded, &grad, asked).map_err(at(layer))?;
                    if let Some(squeeze) = squeeze {
                        // Its map's gradient goes through the squeeze, when that one's own is there as well.
                        self.saved[squeeze].excite(&grad, self.values[inputs[1].index()].as_ref());
                    }
                    for (input, grad) in inputs.iter().zip(found.inputs) {
                        let slot = &mut grads[input.index()];
                        *slot = match (slot.take(), grad) {
                            (Some(a), Some(b)) => Some(add(&a, &b).map_err(Error::from)?),
                            (a, b) => a.or(b),
                        };
                    }
                    for (suffix, grad) in found.parameters {
                        let name = format!("{layer}.{suffix}");
                        if wanted(&name) {
                            ready(&name, grad)?;
                        }
                    }
                }
                self.forget(id);
                self.saved.pop();
            }
            end = start;
        }
        Ok(None)
    }

    /// Computes the values of some steps that were not kept, from those that were.
    fn recompute(&mut self, network: &Network, steps: std::ops::Range<usize>) -> Result<()> {
        for number in steps {
            let step = self.plan.steps[number].clone();
            let id = step.output();
            if self.values[id.index()].is_some() {
                continue;
            }
            let inputs = self.inputs(&step, network.graph());
            let name = &network.graph().node(id).name;
            let saved = self.squeeze(&step).unwrap_or(&self.saved[number]);
            let value = again(network, &step, &inputs, saved).map_err(at(name))?;
            self.values[id.index()] = Some(value);
        }
        Ok(())
    }
}

/// Which layers' outputs need a gradient, and which steps have a wanted parameter: an output needs one where its step,
/// or one before it, has a wanted parameter or is `last`.
fn needed(
    graph: &Graph,
    plan: &Plan,
    wanted: &dyn Fn(&str) -> bool,
    last: Option<NodeId>,
) -> (Vec<bool>, Vec<bool>) {
    let trained = |step: &Step| {
        let parameters = graph.layer_parameters(step.parameters_of());
        parameters.iter().any(|p| p.role.is_trainable() && wanted(&p.name))
    };
    let parameters: Vec<bool> = plan.steps.iter().map(trained).collect();
    let mut needed = vec![false; graph.nodes().len()];
    for (step, trained) in plan.steps.iter().zip(&parameters) {
        let id = step.output();
        let before = step.inputs(graph).iter().any(|input| needed[input.index()]);
        needed[id.index()] = *trained || last == Some(id) || before;
    }
    (needed, parameters)
}
