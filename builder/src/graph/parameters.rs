//! The tensors a graph needs: names and shapes are torchvision's, so that its weights load as they are.

use super::op::Op;
use super::{Graph, NodeId};
use crate::init::Init;

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Of a convolution or a fully connected layer.
    Weight,
    /// Of a convolution or a fully connected layer.
    Bias,
    /// γ of a batch normalisation.
    Scale,
    /// β of a batch normalisation.
    Shift,
    /// A running mean: a buffer, not trained.
    RunningMean,
    /// A running variance (unbiased): a buffer, not trained.
    RunningVar,
    /// How many batches the running averages have seen: a buffer, one 64-bit integer, kept for PyTorch.
    BatchesTracked,
}

impl Role {
    /// Whether the optimiser changes it; the rest are buffers.
    pub fn is_trainable(self) -> bool {
        matches!(self, Self::Weight | Self::Bias | Self::Scale | Self::Shift)
    }

    /// Whether weight decay applies: to weights alone, not to biases or normalisation (He et al. 2019, section 3.1).
    pub fn decays(self) -> bool {
        self == Self::Weight
    }
}

/// One tensor of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Layer name and torchvision's suffix, such as `layer1.0.bn1.running_mean`.
    pub name: String,
    /// Dimensions; none for a scalar.
    pub shape: Vec<usize>,
    /// What it is to its layer.
    pub role: Role,
    /// How it starts.
    pub init: Init,
    /// The layer.
    pub node: NodeId,
}

impl Parameter {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl Graph {
    /// Every tensor the network needs, layer by layer, in PyTorch's order within a layer.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.iter().flat_map(|(id, _)| self.layer_parameters(id)).collect()
    }

    /// The tensors of one layer.
    pub fn layer_parameters(&self, id: NodeId) -> Vec<Parameter> {
        let node = self.node(id);
        let tensor = |suffix: &str, role, shape: &[usize], init| Parameter {
            name: format!("{}.{suffix}", node.name),
            shape: shape.to_vec(),
            role,
            init,
            node: id,
        };
        let input_channels = || self.node(node.inputs[0]).shape.channels();
        match &node.op {
            Op::Conv2d(conv) => {
                let [kh, kw] = conv.kernel;
                let shape = [conv.out_channels, input_channels() / conv.groups, kh, kw];
                let mut tensors = vec![tensor("weight", Role::Weight, &shape, conv.weight_init)];
                if conv.bias {
                    tensors.push(tensor("bias", Role::Bias, &shape[..1], conv.bias_init));
                }
                tensors
            }
            Op::Linear(linear) => {
                let shape = [linear.out_features, input_channels()];
                let mut tensors = vec![tensor("weight", Role::Weight, &shape, linear.weight_init)];
                if linear.bias {
                    tensors.push(tensor("bias", Role::Bias, &shape[..1], linear.bias_init));
                }
                tensors
            }
            Op::BatchNorm(bn) => {
                let shape = [input_channels()];
                vec![
                    tensor("weight", Role::Scale, &shape, bn.weight_init),
                    tensor("bias", Role::Shift, &shape, Init::Zeros),
                    tensor("running_mean", Role::RunningMean, &shape, Init::Zeros),
                    tensor("running_var", Role::RunningVar, &shape, Init::Ones),
                    tensor("num_batches_tracked", Role::BatchesTracked, &[], Init::Zeros),
                ]
            }
            _ => vec![],
        }
    }
}
