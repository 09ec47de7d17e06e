//! Execution of a layer graph on candle.
//!
//! [`Network::forward`] is inference; [`Network::record`] is a training pass whose [`Tape`] gives the gradients.

mod apply;
mod fuse;
mod memory;
mod plan;
mod tape;

use std::sync::Arc;

use candle_core::Tensor;
use tallow_cuda::is_on_gpu;

pub use apply::BatchStatistics;
pub use plan::Keep;
pub use tape::{Gradients, Tape};

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId, Op};
use crate::kernels::{BatchReduce, RunningMoments};
use crate::rng::Rng;
use crate::weights::Weights;
use apply::{Mode, Saved, run};
use plan::{Plan, Step};

/// A graph together with its weights.
#[derive(Clone, Debug)]
pub struct Network {
    graph: Graph,
    weights: Weights,
}

impl Network {
    /// Puts a graph and its weights together.
    pub fn new(graph: Graph, weights: Weights) -> Self {
        Self { graph, weights }
    }

    /// The layers.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Parameters and buffers.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Parameters and buffers, to change.
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Inference: images `[N, C, H, W]` to the output, such as logits `[N, classes]`. Dropout and stochastic depth do
    /// nothing, batch normalisation uses its running moments.
    ///
    /// # Errors
    /// Where the images do not fit the network.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        if !is_on_gpu(images) {
            return self.forward_watched(images, |_, _| {});
        }
        // There, each pass over the memory that is saved is time.
        self.forward_steps(images, Plan::new(&self.graph, Keep::Needed, true), |_, _| {})
    }

    /// As [`Self::forward`], and shows `watch` the output of every layer, in order. A tensor is dropped once the last
    /// layer that takes it has run.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_watched(&self, images: &Tensor, watch: impl FnMut(NodeId, &Tensor)) -> Result<Tensor> {
        self.forward_steps(images, Plan::new(&self.graph, Keep::Everything, false), watch)
    }

    fn forward_steps(
        &self,
        images: &Tensor,
        plan: Plan,
        mut watch: impl FnMut(NodeId, &Tensor),
    ) -> Result<Tensor> {
        self.check(images)?;
        let mut inference = Mode { rng: None, frozen: &|_| true, reduce: None };
        let last = plan.last_uses(&self.graph);
        let mut tape = Tape::new(&self.graph, plan.clone());
        for (number, step) in plan.steps.iter().enumerate() {
            let id = step.output();
            let (value, saved) = self.compute(step, &tape, images, &mut inference)?;
            watch(id, &value);
            tape.push(id, value, saved);
            // A value that nobody takes, and one that this step was the last to take.
            let done = step.inputs(&self.graph).into_iter().chain([id]);
            done.filter(|input| last[input.index()] <= number).for_each(|input| tape.forget(input));
        }
        Ok(tape.value(self.graph.output()).clone())
    }

    /// A step's output, from those before it; the first layer takes the images.
    fn compute(
        &self,
        step: &Step,
        tape: &Tape,
        images: &Tensor,
        mode: &mut Mode<'_>,
    ) -> Result<(Tensor, Saved)> {
        let mut inputs = tape.inputs(step, &self.graph);
        if inputs.is_empty() {
            inputs.push(images);
        }
        let layer = &self.graph.node(step.parameters_of()).name;
        run(&self.graph, step, &inputs, &self.weights, mode, tape.squeeze(step)).map_err(at(layer))
    }

    /// A training pass: batch normalisation uses the batch's moments, dropout and stochastic depth draw from `rng`.
    /// The running moments change only with [`Self::track`].
    ///
    /// # Errors
    /// Where the images do not fit the network.
    pub fn record(&self, images: &Tensor, rng: &mut Rng) -> Result<Tape> {
        self.record_frozen(images, rng, &|_| false)
    }

    /// As [`Self::record`], but the batch normalisations whose name `frozen` accepts use their running moments, which
    /// [`Self::track`] then leaves alone: for fine-tuning, and for batches too small to have moments worth using.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_frozen(
        &self,
        images: &Tensor,
        rng: &mut Rng,
        frozen: &dyn Fn(&str) -> bool,
    ) -> Result<Tape> {
        self.record_keeping(images, rng, frozen, Keep::Everything, None)
    }

    /// As [`Self::record_frozen`], keeping what `keep` says of the layers' outputs. Where there is a `reduce`, which sums
    /// over processes, batch normalisation uses the moments of the batches of all of them.
    ///
    /// # Errors
    /// As [`Self::record`], and where the processes cannot reach each other.
    pub fn record_keeping(
        &self,
        images: &Tensor,
        rng: &mut Rng,
        frozen: &dyn Fn(&str) -> bool,
        keep: Keep,
        reduce: Option<Arc<dyn BatchReduce>>,
    ) -> Result<Tape> {
        self.record_in(images, &mut Mode { rng: Some(rng), frozen, reduce }, keep)
    }

    /// A pass of inference that can be gone through backwards: for what explains a network's answer.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_inference(&self, images: &Tensor) -> Result<Tape> {
        self.record_in(images, &mut Mode { rng: None, frozen: &|_| true, reduce: None }, Keep::Everything)
    }

    fn record_in(&self, images: &Tensor, mode: &mut Mode<'_>, keep: Keep) -> Result<Tape> {
        self.check(images)?;
        let plan = Plan::new(&self.graph, keep, is_on_gpu(images));
        let last = plan.last_uses(&self.graph);
        let mut tape = Tape::new(&self.graph, plan.clone());
        let mut start = 0;
        for &end in &plan.parts {
            for step in &plan.steps[start..end] {
                let (value, saved) = self.compute(step, &tape, images, mode)?;
                tape.push(step.output(), value, saved);
            }
            if end < plan.steps.len() {
                // What no later part takes is computed once more on the way back, all but the images.
                let computed = |id: &NodeId| self.graph.node(*id).op != Op::Input;
                let inner = plan.steps[start..end].iter().map(Step::output).filter(computed);
                inner.filter(|id| last[id.index()] < end).for_each(|id| tape.forget(id));
            }
            start = end;
        }
        Ok(tape)
    }

    /// Bytes that a training pass on a GPU takes at its peak for each image, where elements have so many bytes: layers'
    /// outputs, and their gradients as they come and go.
    pub fn training_bytes(graph: &Graph, keep: Keep, element: usize) -> usize {
        memory::peak_bytes(&Plan::new(graph, keep, true), graph, element)
    }

    /// Moves the running moments of every batch normalisation towards those of a training pass, PyTorch's way: the
    /// new share is the layer's momentum, and the variance is the unbiased one.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn track(&mut self, statistics: &[BatchStatistics]) -> Result<()> {
        let names = |layer: &str| {
            ["running_mean", "running_var", "num_batches_tracked"].map(|name| format!("{layer}.{name}"))
        };
        let layers = statistics.iter().map(|BatchStatistics { layer, momentum, moments }| {
            let [mean, var, batches] = names(layer).map(|name| self.weights.get(&name).clone());
            (RunningMoments { mean, var, batches }, moments, *momentum)
        });
        let moved = RunningMoments::moved(&layers.collect::<Vec<_>>())?;
        for (statistics, RunningMoments { mean, var, batches }) in statistics.iter().zip(moved) {
            let moved = names(&statistics.layer).into_iter().zip([mean, var, batches]);
            moved.for_each(|(name, tensor)| self.weights.set(&name, tensor));
        }
        Ok(())
    }

    fn check(&self, images: &Tensor) -> Result<()> {
        let expected = self.graph.input_shape();
        if images.rank() == 4 && images.dims()[1..] == expected.dims() {
            return Ok(());
        }
        let network = self.graph.name().to_owned();
        Err(Error::Input { network, expected, actual: images.dims().to_vec() })
    }
}

/// Adds the layer's name to an error of candle.
fn at(layer: &str) -> impl Fn(candle_core::Error) -> Error {
    move |source| Error::Layer { layer: layer.to_owned(), source }
}
