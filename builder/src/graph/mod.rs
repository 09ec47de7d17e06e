//! The layer graph: a network as data, the single source of truth.
//!
//! A [`Graph`] is a list of nodes in topological order, made by a [`GraphBuilder`] which infers every shape as the
//! node is added. Parameters ([`Graph::parameters`]) and costs ([`Graph::costs`]) are read off it.

mod builder;
mod cost;
mod infer;
mod op;
mod parameters;
mod shape;

use serde::{Deserialize, Serialize};

pub use builder::GraphBuilder;
pub use cost::{LayerCost, Totals};
pub use op::{Activation, BatchNorm, Conv2d, ConvSpec, Linear, Op, Pool};
pub use parameters::{Parameter, Role};
pub use shape::{Padding, Pads, Shape, Window};

use crate::error::{Error, Result};

/// A node's place in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(usize);

impl NodeId {
    pub(crate) fn at(index: usize) -> Self {
        Self(index)
    }

    /// The node's index in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Unique in its graph. A layer with parameters carries torchvision's module path, such as `layer1.0.conv1`.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// The nodes whose outputs it takes, all before it.
    pub inputs: Vec<NodeId>,
    /// The shape of its output for one sample.
    pub shape: Shape,
}

/// A network: nodes in topological order, the first of which is the input.
///
/// It serialises with serde as what its author said (names, ops, inputs); shapes are inferred again on reading, so
/// that a hand-edited or damaged file cannot describe a network that does not fit together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Description", into = "Description")]
pub struct Graph {
    name: String,
    nodes: Vec<Node>,
    output: NodeId,
}

impl Graph {
    /// The network's name, such as `resnet50`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All layers in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The layer with this id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Every node with its id, in topological order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, node)| (NodeId(i), node))
    }

    /// The layer with this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.name == name).map(NodeId)
    }

    /// The node whose value the network gives: the logits.
    pub fn output(&self) -> NodeId {
        self.output
    }

    /// The shape of one image.
    pub fn input_shape(&self) -> Shape {
        self.nodes[0].shape
    }

    /// The shape of the output for one image.
    pub fn output_shape(&self) -> Shape {
        self.node(self.output).shape
    }

    /// The fully connected layer that gives the logits: the last one, where the network ends in one.
    pub fn classifier(&self) -> Option<NodeId> {
        let last = self.nodes.iter().rposition(|node| matches!(node.op, Op::Linear(_)));
        last.map(NodeId)
    }

    /// How many nodes take each node's output; the network's output counts once more.
    pub fn consumers(&self) -> Vec<usize> {
        let mut counts = vec![0; self.nodes.len()];
        for input in self.nodes.iter().flat_map(|node| &node.inputs) {
            counts[input.0] += 1;
        }
        counts[self.output.0] += 1;
        counts
    }
}

/// What a graph serialises as.
#[derive(Serialize, Deserialize)]
struct Description {
    name: String,
    input: Shape,
    layers: Vec<Layer>,
    output: NodeId,
}

#[derive(Serialize, Deserialize)]
struct Layer {
    name: String,
    #[serde(flatten)]
    op: Op,
    inputs: Vec<NodeId>,
}

impl From<Graph> for Description {
    fn from(graph: Graph) -> Self {
        let input = graph.input_shape();
        let layers = graph.nodes.into_iter().skip(1);
        let layers = layers.map(|Node { name, op, inputs, .. }| Layer { name, op, inputs }).collect();
        Self { name: graph.name, input, layers, output: graph.output }
    }
}

impl TryFrom<Description> for Graph {
    type Error = Error;

    fn try_from(description: Description) -> Result<Self> {
        let mut builder = GraphBuilder::new(description.name, description.input);
        for layer in description.layers {
            builder.add(&layer.name, layer.op, &layer.inputs)?;
        }
        builder.finish(description.output)
    }
}
