//! What the families' blocks are made of.

use tallow_builder::Graph;
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, GraphBuilder, Linear, NodeId, Padding, Shape};

use crate::error::Built;
use crate::options::{PaddingStyle, Settings};

/// A graph under construction, with what all layers of one network share.
pub(crate) struct Layers {
    pub graph: GraphBuilder,
    padding: PaddingStyle,
    batch_norm: BatchNorm,
}

impl Layers {
    /// Starts a network for RGB images.
    pub fn new(name: &str, settings: &Settings) -> Self {
        Self {
            graph: GraphBuilder::new(
                settings.graph_name(name),
                Shape::map(3, settings.height, settings.width),
            ),
            padding: settings.padding,
            batch_norm: settings.batch_norm.clone(),
        }
    }

    /// Channels of a node's output.
    pub fn channels(&self, x: NodeId) -> usize {
        self.graph.shape(x).channels()
    }

    /// The padding with which a window of stride 1 keeps the size.
    pub fn padding(&self, kernel: usize) -> Padding {
        match self.padding {
            PaddingStyle::Symmetric => Padding::from(kernel / 2),
            PaddingStyle::Same => Padding::Same,
        }
    }

    /// A convolution in the network's padding, without a bias.
    pub fn conv(&self, filters: usize, kernel: usize, stride: usize) -> ConvSpec {
        ConvSpec::new(filters, kernel).stride(stride).padding(self.padding(kernel))
    }

    /// A convolution and its batch normalisation.
    pub fn conv_bn(&mut self, conv: &str, bn: &str, x: NodeId, spec: ConvSpec) -> Built<NodeId> {
        let x = self.graph.conv2d(conv, x, spec)?;
        Ok(self.graph.batch_norm(bn, x, self.batch_norm.clone())?)
    }

    /// torchvision's `Conv2dNormActivation`: layers `at.0`, `at.1` and, with an activation, `at.2`.
    pub fn conv_bn_act(
        &mut self,
        at: &str,
        x: NodeId,
        spec: ConvSpec,
        activation: Option<Activation>,
    ) -> Built<NodeId> {
        let x = self.conv_bn(&format!("{at}.0"), &format!("{at}.1"), x, spec)?;
        match activation {
            Some(activation) => Ok(self.graph.activation(&format!("{at}.2"), x, activation)?),
            None => Ok(x),
        }
    }

    /// Adds a residual branch to its shortcut, behind stochastic depth where `drop` is above 0.
    pub fn join(&mut self, at: &str, branch: NodeId, shortcut: NodeId, drop: f64) -> Built<NodeId> {
        let branch = if drop > 0.0 {
            self.graph.stochastic_depth(&format!("{at}.stochastic_depth"), branch, drop)?
        } else {
            branch
        };
        Ok(self.graph.sum(&format!("{at}.add"), branch, shortcut)?)
    }

    /// Ends the network: global average pool, dropout where its probability is above 0, and the layer that gives logits.
    pub fn classify(
        mut self,
        x: NodeId,
        (dropout, p): (&str, f64),
        name: &str,
        linear: Linear,
    ) -> Built<Graph> {
        let x = self.graph.global_avg_pool("avgpool", x)?;
        let x = self.graph.flatten("flatten", x)?;
        let x = if p > 0.0 { self.graph.dropout(dropout, x, p)? } else { x };
        let x = self.graph.linear(name, x, linear)?;
        Ok(self.graph.finish(x)?)
    }
}
