//! Execution of a layer graph on candle.
//!
//! [`Network::forward`] is inference; [`Network::record`] is a training pass whose [`Tape`] gives the gradients.

mod apply;
mod tape;

use std::sync::Arc;

use candle_core::Tensor;

pub use apply::BatchStatistics;
pub use tape::{Gradients, Tape};

use crate::error::{Error, Result};
use crate::graph::{Graph, NodeId};
use crate::kernels::BatchReduce;
use crate::rng::Rng;
use crate::weights::Weights;
use apply::{Mode, apply};

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
        self.forward_watched(images, |_, _| {})
    }

    /// As [`Self::forward`], and shows `watch` the output of every layer, in order. A tensor is dropped once the last
    /// layer that takes it has run.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_watched(&self, images: &Tensor, mut watch: impl FnMut(NodeId, &Tensor)) -> Result<Tensor> {
        self.check(images)?;
        let mut inference = Mode { rng: None, frozen: &|_| true, reduce: None };
        let mut pending = self.graph.consumers();
        let mut values: Vec<Option<Tensor>> = vec![None; self.graph.nodes().len()];
        for (id, node) in self.graph.iter() {
            let inputs: Vec<&Tensor> = match node.inputs.as_slice() {
                [] => vec![images],
                ids => ids.iter().map(|i| values[i.index()].as_ref().expect("a pending value")).collect(),
            };
            let (value, _) = apply(node, &inputs, &self.weights, &mut inference).map_err(at(&node.name))?;
            watch(id, &value);
            values[id.index()] = Some(value);
            for input in &node.inputs {
                pending[input.index()] -= 1;
                if pending[input.index()] == 0 {
                    values[input.index()] = None;
                }
            }
        }
        Ok(values[self.graph.output().index()].take().expect("the output is computed last and kept"))
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
        self.record_in(images, &mut Mode { rng: Some(rng), frozen, reduce: None })
    }

    /// As [`Self::record_frozen`], but batch normalisation uses the moments of the batches of all processes, which
    /// `reduce` sums.
    ///
    /// # Errors
    /// As [`Self::record`], and where the processes cannot reach each other.
    pub fn record_synchronised(
        &self,
        images: &Tensor,
        rng: &mut Rng,
        frozen: &dyn Fn(&str) -> bool,
        reduce: Arc<dyn BatchReduce>,
    ) -> Result<Tape> {
        self.record_in(images, &mut Mode { rng: Some(rng), frozen, reduce: Some(reduce) })
    }

    /// A pass of inference that can be gone through backwards: for what explains a network's answer.
    ///
    /// # Errors
    /// As [`Self::record`].
    pub fn record_inference(&self, images: &Tensor) -> Result<Tape> {
        self.record_in(images, &mut Mode { rng: None, frozen: &|_| true, reduce: None })
    }

    fn record_in(&self, images: &Tensor, mode: &mut Mode<'_>) -> Result<Tape> {
        self.check(images)?;
        let mut tape = Tape::new(self.graph.nodes().len());
        for node in self.graph.nodes() {
            let inputs: Vec<&Tensor> = match node.inputs.as_slice() {
                [] => vec![images],
                ids => ids.iter().map(|&id| tape.value(id)).collect(),
            };
            let (value, saved) = apply(node, &inputs, &self.weights, mode).map_err(at(&node.name))?;
            tape.push(value, saved);
        }
        Ok(tape)
    }

    /// Moves the running moments of every batch normalisation towards those of a training pass, PyTorch's way: the
    /// new share is the layer's momentum, and the variance is the unbiased one.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn track(&mut self, statistics: &[BatchStatistics]) -> Result<()> {
        for BatchStatistics { layer, momentum, moments } in statistics {
            let unbiased = moments.unbiased_var();
            for (suffix, batch) in [("running_mean", &moments.mean), ("running_var", &unbiased)] {
                let name = format!("{layer}.{suffix}");
                let running = self.weights.get(&name);
                let batch = Tensor::from_slice(batch, running.dims(), running.device())?;
                let moved = ((running * (1.0 - momentum))? + (batch * *momentum)?)?;
                self.weights.set(&name, moved);
            }
            let name = format!("{layer}.num_batches_tracked");
            let seen = (self.weights.get(&name) + 1.0)?;
            self.weights.set(&name, seen);
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
