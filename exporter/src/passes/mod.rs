//! Graph passes: functions from a network and its weights to an equivalent network and its weights.
//! Every export format runs the same passes, so that all of them lower the same inference graph.
//! A pass keeps the names of the layers and tensors that it does not remove.

mod append_softmax;
mod fold_batch_norm;
mod remove_training;

use std::collections::BTreeMap;

use candle_core::Tensor;
use tallow_builder::graph::Node;
use tallow_builder::{Graph, GraphBuilder, NodeId, Weights};

pub use append_softmax::append_softmax;
pub use fold_batch_norm::fold_batch_norm;
pub use remove_training::remove_training;

use crate::error::Result;

/// The inference graph that every export starts from: nothing that acts only while training, batch norms folded into
/// their convolutions if `fold`, and a softmax at the end if `softmax`.
///
/// # Errors
/// As the passes it is made of.
pub fn inference(graph: &Graph, weights: &Weights, fold: bool, softmax: bool) -> Result<(Graph, Weights)> {
    let (mut graph, mut weights) = remove_training(graph, weights)?;
    if fold {
        (graph, weights) = fold_batch_norm(&graph, &weights)?;
    }
    if softmax {
        (graph, weights) = append_softmax(&graph, &weights)?;
    }
    Ok((graph, weights))
}

/// Builds a graph anew, node by node. `each` gets the builder, a node of the old graph and that node's inputs in the
/// new one; it adds what takes the node's place and returns the id of its value, or just an input to drop the node.
fn rewrite(
    graph: &Graph,
    each: impl FnMut(&mut GraphBuilder, NodeId, &Node, &[NodeId]) -> Result<NodeId>,
) -> Result<Graph> {
    let (builder, output) = rewrite_open(graph, each)?;
    Ok(builder.finish(output)?)
}

/// As [`rewrite`], but the builder comes back with the output's id, so that layers can be added after it.
fn rewrite_open(
    graph: &Graph,
    mut each: impl FnMut(&mut GraphBuilder, NodeId, &Node, &[NodeId]) -> Result<NodeId>,
) -> Result<(GraphBuilder, NodeId)> {
    let mut builder = GraphBuilder::new(graph.name(), graph.input_shape());
    let mut renewed = vec![builder.input()];
    for (id, node) in graph.iter().skip(1) {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| renewed[input.index()]).collect();
        renewed.push(each(&mut builder, id, node, &inputs)?);
    }
    Ok((builder, renewed[graph.output().index()]))
}

/// The weights that `graph` needs, taken from `weights` except where `changed` has a tensor of that name.
fn select(graph: &Graph, weights: &Weights, mut changed: BTreeMap<String, Tensor>) -> Result<Weights> {
    let known: BTreeMap<&str, &Tensor> = weights.iter().collect();
    let mut tensors = BTreeMap::new();
    for parameter in graph.parameters() {
        let tensor = changed.remove(&parameter.name);
        if let Some(tensor) = tensor.or_else(|| known.get(parameter.name.as_str()).map(|&t| t.clone())) {
            tensors.insert(parameter.name, tensor);
        }
    }
    Ok(Weights::from_tensors(graph, tensors, "the result of a graph pass")?)
}
