//! What each layer costs: parameters, multiply-accumulates, activation memory.

use serde::Serialize;

use super::op::Op;
use super::shape::Shape;
use super::{Graph, NodeId};

/// The cost of one layer for one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerCost {
    /// The layer's name.
    pub name: String,
    /// The operation.
    pub op: &'static str,
    /// Kernel height and width, of convolutions and pools.
    pub kernel: Option<[usize; 2]>,
    /// Stride along both axes, of convolutions and pools.
    pub stride: Option<[usize; 2]>,
    /// Dimensions of the output without the batch axis.
    pub output: Vec<usize>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates of convolutions and matrix products; a FLOP count would be about twice as large.
    pub macs: u64,
    /// Bytes of the output as f32.
    pub activation_bytes: usize,
}

/// The cost of a network for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Trainable numbers.
    pub parameters: usize,
    /// Numbers that are kept but not trained: running statistics and their counters.
    pub buffers: usize,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes of all layers' outputs as f32: about what training one image holds on to.
    pub activation_bytes: usize,
}

impl Graph {
    /// The cost of every layer, in order.
    pub fn costs(&self) -> Vec<LayerCost> {
        self.iter().map(|(id, _)| self.layer_cost(id)).collect()
    }

    /// The cost of the whole network.
    pub fn totals(&self) -> Totals {
        let buffers = self.parameters().iter().filter(|p| !p.role.is_trainable()).map(|p| p.elements()).sum();
        let add = |mut totals: Totals, layer: LayerCost| {
            totals.parameters += layer.parameters;
            totals.macs += layer.macs;
            totals.activation_bytes += layer.activation_bytes;
            totals
        };
        self.costs().into_iter().fold(Totals { buffers, ..Totals::default() }, add)
    }

    fn layer_cost(&self, id: NodeId) -> LayerCost {
        let node = self.node(id);
        let window = match &node.op {
            Op::Conv2d(conv) => Some(conv.window()),
            Op::MaxPool(pool) | Op::AvgPool(pool) => Some(pool.window()),
            _ => None,
        };
        let parameters = self.layer_parameters(id);
        // Each weight of a convolution is used once for every place of the output.
        let weights: usize = match parameters.first() {
            Some(weight) if !matches!(node.op, Op::BatchNorm(_)) => weight.elements(),
            _ => 0,
        };
        let places = match node.shape {
            Shape::Map { height, width, .. } => height * width,
            Shape::Vector { .. } => 1,
        };
        LayerCost {
            name: node.name.clone(),
            op: node.op.kind(),
            kernel: window.map(|w| w.kernel),
            stride: window.map(|w| w.stride),
            output: node.shape.dims(),
            parameters: parameters.iter().filter(|p| p.role.is_trainable()).map(|p| p.elements()).sum(),
            macs: weights as u64 * places as u64,
            activation_bytes: 4 * node.shape.elements(),
        }
    }
}
