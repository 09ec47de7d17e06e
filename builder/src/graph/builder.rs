//! Puts a graph together, node by node.

use std::collections::HashSet;

use super::infer::infer;
use super::op::{Activation, BatchNorm, ConvSpec, Linear, Op, Pool};
use super::shape::{Padding, Pads, Shape, Window};
use super::{Graph, Node, NodeId};
use crate::error::{Error, Result};

/// Builds a [`Graph`]. Each method adds one layer, infers its shape and returns its id.
///
/// ```
/// use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, GraphBuilder, Linear, Shape};
///
/// let mut g = GraphBuilder::new("tiny", Shape::map(3, 32, 32));
/// let x = g.input();
/// let x = g.conv2d("conv", x, ConvSpec::new(16, 3).padding(1))?;
/// let x = g.batch_norm("bn", x, BatchNorm::default())?;
/// let x = g.activation("relu", x, Activation::Relu)?;
/// let x = g.global_avg_pool("pool", x)?;
/// let x = g.flatten("flatten", x)?;
/// let x = g.linear("fc", x, Linear::uniform(10, 0.25))?;
/// let graph = g.finish(x)?;
/// assert_eq!(graph.totals().parameters, 3 * 16 * 9 + 2 * 16 + 16 * 10 + 10);
/// # Ok::<(), tallow_builder::Error>(())
/// ```
pub struct GraphBuilder {
    name: String,
    nodes: Vec<Node>,
    names: HashSet<String>,
}

impl GraphBuilder {
    /// Starts a network that takes images of `input` (channels × height × width).
    pub fn new(name: impl Into<String>, input: Shape) -> Self {
        let node = Node { name: "input".into(), op: Op::Input, inputs: vec![], shape: input };
        Self { name: name.into(), names: HashSet::from([node.name.clone()]), nodes: vec![node] }
    }

    /// The images.
    pub fn input(&self) -> NodeId {
        NodeId(0)
    }

    /// The shape of a node's output.
    ///
    /// # Panics
    /// If the id is another graph's and larger than this one.
    pub fn shape(&self, id: NodeId) -> Shape {
        self.nodes[id.0].shape
    }

    /// Adds a layer.
    ///
    /// # Errors
    /// Where the name is taken, an input does not exist yet, an attribute is out of range, or the op does not accept
    /// its inputs' shapes; the message names the layer and the shapes.
    pub fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId> {
        if self.names.contains(name) {
            return Err(self.error(format!("two layers are named `{name}`")));
        }
        if let Some(id) = inputs.iter().find(|id| id.0 >= self.nodes.len()) {
            return Err(self.error(format!("layer `{name}` takes node {}, which does not exist yet", id.0)));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&id| self.shape(id)).collect();
        let shape = infer(name, &op, &shapes)?;
        self.names.insert(name.to_owned());
        self.nodes.push(Node { name: name.to_owned(), op, inputs: inputs.to_vec(), shape });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Adds a convolution.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn conv2d(&mut self, name: &str, x: NodeId, spec: ConvSpec) -> Result<NodeId> {
        let mut conv = spec.conv;
        conv.padding = self.resolve(x, spec.padding, &conv.window());
        self.add(name, Op::Conv2d(conv), &[x])
    }

    /// Adds a batch normalisation.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn batch_norm(&mut self, name: &str, x: NodeId, batch_norm: BatchNorm) -> Result<NodeId> {
        self.add(name, Op::BatchNorm(batch_norm), &[x])
    }

    /// Adds a nonlinearity.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn activation(&mut self, name: &str, x: NodeId, activation: Activation) -> Result<NodeId> {
        self.add(name, Op::Activation(activation), &[x])
    }

    /// Adds a max pool with a square window.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn max_pool(
        &mut self,
        name: &str,
        x: NodeId,
        kernel: usize,
        stride: usize,
        padding: impl Into<Padding>,
    ) -> Result<NodeId> {
        let pool = self.pool(x, kernel, stride, padding.into());
        self.add(name, Op::MaxPool(pool), &[x])
    }

    /// Adds an average pool with a square window.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn avg_pool(
        &mut self,
        name: &str,
        x: NodeId,
        kernel: usize,
        stride: usize,
        padding: impl Into<Padding>,
    ) -> Result<NodeId> {
        let pool = self.pool(x, kernel, stride, padding.into());
        self.add(name, Op::AvgPool(pool), &[x])
    }

    /// Adds a mean over both spatial axes.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn global_avg_pool(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.add(name, Op::GlobalAvgPool, &[x])
    }

    /// Adds a flattening of channels, rows and columns into a vector.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn flatten(&mut self, name: &str, x: NodeId) -> Result<NodeId> {
        self.add(name, Op::Flatten, &[x])
    }

    /// Adds a fully connected layer.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn linear(&mut self, name: &str, x: NodeId, linear: Linear) -> Result<NodeId> {
        self.add(name, Op::Linear(linear), &[x])
    }

    /// Adds an elementwise sum.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sum(&mut self, name: &str, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.add(name, Op::Add, &[a, b])
    }

    /// Adds a channel-wise product of the feature map `x` with `scale` (C×1×1).
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn scale(&mut self, name: &str, x: NodeId, scale: NodeId) -> Result<NodeId> {
        self.add(name, Op::Mul, &[x, scale])
    }

    /// Adds dropout with probability `p`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn dropout(&mut self, name: &str, x: NodeId, p: f64) -> Result<NodeId> {
        self.add(name, Op::Dropout { p }, &[x])
    }

    /// Adds stochastic depth with probability `p`.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn stochastic_depth(&mut self, name: &str, x: NodeId, p: f64) -> Result<NodeId> {
        self.add(name, Op::StochasticDepth { p }, &[x])
    }

    /// Ends the network at `output`.
    ///
    /// # Errors
    /// Where `output` does not exist, or a layer leads nowhere.
    pub fn finish(self, output: NodeId) -> Result<Graph> {
        if output.0 >= self.nodes.len() {
            return Err(self.error(format!("its output is node {}, which does not exist", output.0)));
        }
        let graph = Graph { name: self.name, nodes: self.nodes, output };
        if let Some(unused) = graph.consumers().iter().position(|&count| count == 0) {
            let problem = format!("nothing takes the output of layer `{}`", graph.nodes[unused].name);
            return Err(Error::Graph { network: graph.name, problem });
        }
        Ok(graph)
    }

    fn pool(&self, x: NodeId, kernel: usize, stride: usize, padding: Padding) -> Pool {
        let mut pool = Pool { kernel: [kernel; 2], stride: [stride; 2], padding: Pads::default() };
        pool.padding = self.resolve(x, padding, &pool.window());
        pool
    }

    /// Zero strides and non-maps pass through: `infer` refuses them with the layer's name.
    fn resolve(&self, x: NodeId, padding: Padding, window: &Window) -> Pads {
        match self.nodes.get(x.0).map(|node| node.shape) {
            Some(Shape::Map { height, width, .. }) if !window.stride.contains(&0) => {
                padding.resolve([height, width], window)
            }
            _ => Pads::default(),
        }
    }

    fn error(&self, problem: String) -> Error {
        Error::Graph { network: self.name.clone(), problem }
    }
}
