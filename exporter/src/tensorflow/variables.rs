//! What a network's tensors are called in TensorFlow, and how their axes lie there.
//!
//! The layer `layer1.0.conv1` is the scope `layer1/0/conv1`; its tensors have Keras's names. TensorFlow computes
//! NHWC: filters are [height, width, in, out].

use std::collections::HashSet;

use candle_core::Tensor;
use tallow_builder::graph::{Conv2d, Op, Parameter, Role};
use tallow_builder::{Graph, NodeId, Weights};

use crate::error::Result;

/// A tensor of the network as a variable of TensorFlow.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variable {
    /// Scope and name, such as `layer1/0/conv1/kernel`.
    pub name: String,
    /// The layer graph's tensor.
    pub parameter: Parameter,
    /// Dimensions in TensorFlow.
    pub shape: Vec<usize>,
    order: Order,
}

/// How a tensor's axes are reordered for TensorFlow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// They stay.
    Same,
    /// [out, in, h, w] to [h, w, in, out].
    Filters,
    /// [channels·multiplier, 1, h, w] to [h, w, channels, multiplier].
    Depthwise {
        /// Input channels.
        channels: usize,
    },
    /// [out, in] to [in, out].
    Matrix,
}

/// Whether TensorFlow's depthwise convolution computes this: each channel has filters of its own.
pub(super) fn is_depthwise(conv: &Conv2d, in_channels: usize) -> bool {
    conv.groups > 1 && conv.groups == in_channels
}

/// The scope of every node of a graph: its name with `/` for `.`, and only characters that TensorFlow takes.
pub(super) fn scopes(graph: &Graph) -> Vec<String> {
    // The names that the graph around the layers uses.
    let reserved =
        ["images", "logits", "probabilities", "classes", "cam", "save", "asset_path", "global_step"];
    let mut taken: HashSet<String> = reserved.map(String::from).into();
    let scope = |name: &str| -> String {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-/".contains(c);
        let name: String = name.chars().map(|c| if c == '.' { '/' } else { c }).collect();
        let parts = name.split('/').filter(|part| !part.is_empty());
        let name = parts.collect::<Vec<_>>().join("/");
        let name: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
        // A name has to begin with a letter or a digit.
        if name.starts_with(|c: char| c.is_ascii_alphanumeric()) { name } else { format!("layer{name}") }
    };
    let unique = |name: &str| {
        let mut name = scope(name);
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        name
    };
    graph.nodes().iter().map(|node| node.name.as_str()).map(unique).collect()
}

/// The variables of one layer, in the order of [`Graph::layer_parameters`].
pub(super) fn layer_variables(graph: &Graph, id: NodeId, scope: &str) -> Vec<Variable> {
    let node = graph.node(id);
    let parameters = graph.layer_parameters(id).into_iter();
    // The counter of a batch norm's batches is PyTorch's own.
    let parameters = parameters.filter(|parameter| parameter.role != Role::BatchesTracked);
    let depthwise = |conv: &Conv2d| {
        let channels = graph.node(node.inputs[0]).shape.channels();
        is_depthwise(conv, channels).then_some(channels)
    };
    parameters
        .map(|parameter| {
            let (name, order) = match (parameter.role, &node.op) {
                (Role::Weight, Op::Conv2d(conv)) => match depthwise(conv) {
                    Some(channels) => ("depthwise_kernel", Order::Depthwise { channels }),
                    None => ("kernel", Order::Filters),
                },
                (Role::Weight, _) => ("kernel", Order::Matrix),
                (Role::Bias, _) => ("bias", Order::Same),
                (Role::Scale, _) => ("gamma", Order::Same),
                (Role::Shift, _) => ("beta", Order::Same),
                (Role::RunningMean, _) => ("moving_mean", Order::Same),
                (Role::RunningVar, _) => ("moving_variance", Order::Same),
                (Role::BatchesTracked, _) => unreachable!("filtered above"),
            };
            let shape = order.shape(&parameter.shape);
            Variable { name: format!("{scope}/{name}"), parameter, shape, order }
        })
        .collect()
}

/// All variables of a network, sorted by name, as they lie in a checkpoint.
pub(super) fn variables(graph: &Graph) -> Vec<Variable> {
    let scopes = scopes(graph);
    let layers = graph.iter().zip(&scopes);
    let mut variables: Vec<_> =
        layers.flat_map(|((id, _), scope)| layer_variables(graph, id, scope)).collect();
    variables.sort_by(|a, b| a.name.cmp(&b.name));
    variables
}

impl Variable {
    /// Whether an optimiser changes it.
    pub(super) fn trainable(&self) -> bool {
        self.parameter.role.is_trainable()
    }

    /// Whether a batch norm has it.
    pub(super) fn is_of_batch_norm(&self) -> bool {
        use Role::{RunningMean, RunningVar, Scale, Shift};
        matches!(self.parameter.role, Scale | Shift | RunningMean | RunningVar)
    }

    /// Its value in TensorFlow's order.
    pub(super) fn value(&self, weights: &Weights) -> Result<Vec<f32>> {
        let values = weights.get(&self.parameter.name).flatten_all()?.to_vec1::<f32>()?;
        Ok(match self.order.axes(&self.parameter.shape) {
            Some((dims, order)) => transposed(&values, &dims, &order),
            None => values,
        })
    }

    /// The layer graph's tensor out of a value in TensorFlow's order.
    pub(super) fn tensor(&self, values: Vec<f32>) -> Result<Tensor> {
        let values = match self.order.axes(&self.parameter.shape) {
            Some((dims, order)) => {
                let mut inverse = vec![0; order.len()];
                order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
                let dims: Vec<usize> = order.iter().map(|&axis| dims[axis]).collect();
                transposed(&values, &dims, &inverse)
            }
            None => values,
        };
        Ok(Tensor::from_vec(values, self.parameter.shape.as_slice(), &candle_core::Device::Cpu)?)
    }
}

impl Order {
    /// The dimensions as which the layer graph's tensor is seen, and the axis of these that each of TensorFlow's is.
    fn axes(self, shape: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
        match self {
            Self::Same => None,
            Self::Filters => Some((shape.to_vec(), vec![2, 3, 1, 0])),
            Self::Matrix => Some((shape.to_vec(), vec![1, 0])),
            Self::Depthwise { channels } => {
                let dims = vec![channels, shape[0] / channels, shape[2], shape[3]];
                Some((dims, vec![2, 3, 0, 1]))
            }
        }
    }

    fn shape(self, shape: &[usize]) -> Vec<usize> {
        match self.axes(shape) {
            Some((dims, order)) => order.into_iter().map(|axis| dims[axis]).collect(),
            None => shape.to_vec(),
        }
    }
}

/// The elements of a tensor of `dims` with its axes in another order.
fn transposed(values: &[f32], dims: &[usize], order: &[usize]) -> Vec<f32> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    let (inner, outer) = order.split_last().expect("a scalar has no axes to reorder");
    let mut starts = vec![0];
    for &axis in outer {
        let steps = |start: usize| (0..dims[axis]).map(move |i| (start, i));
        starts = starts.into_iter().flat_map(steps).map(|(start, i)| start + i * strides[axis]).collect();
    }
    let mut result = Vec::with_capacity(values.len());
    for start in starts {
        result.extend((0..dims[*inner]).map(|i| values[start + i * strides[*inner]]));
    }
    result
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_builder::GraphBuilder;
    use tallow_builder::graph::{BatchNorm, ConvSpec, Linear, Shape};

    use super::*;

    fn graph() -> Graph {
        let mut g = GraphBuilder::new("net", Shape::map(4, 6, 8));
        let x = g.conv2d("a.0", g.input(), ConvSpec::new(8, 3).groups(4).bias()).unwrap();
        let x = g.batch_norm("a.bn", x, BatchNorm::default()).unwrap();
        let x = g.conv2d("a.1", x, ConvSpec::new(6, 1).kernel(2, 3).groups(2)).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        let x = g.linear("save", x, Linear::uniform(2, 0.1)).unwrap();
        g.finish(x).unwrap()
    }

    #[test]
    fn names_and_shapes_are_those_of_keras() {
        let found = variables(&graph());
        let found: Vec<(&str, &[usize])> = found.iter().map(|v| (v.name.as_str(), &v.shape[..])).collect();
        let expected: [(&str, &[usize]); 9] = [
            ("a/0/bias", &[8]),
            ("a/0/depthwise_kernel", &[3, 3, 4, 2]),
            ("a/1/kernel", &[2, 3, 4, 6]),
            ("a/bn/beta", &[8]),
            ("a/bn/gamma", &[8]),
            ("a/bn/moving_mean", &[8]),
            ("a/bn/moving_variance", &[8]),
            ("save_/bias", &[2]),
            ("save_/kernel", &[72, 2]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn values_go_to_tensorflow_and_back_unchanged() {
        let graph = graph();
        let weights = Weights::init(&graph, 5, &Device::Cpu).unwrap();
        for variable in variables(&graph) {
            let before = weights.get(&variable.parameter.name);
            let after = variable.tensor(variable.value(&weights).unwrap()).unwrap();
            assert_eq!(after.dims(), before.dims());
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(flat(&after), flat(before), "{}", variable.name);
        }
    }

    #[test]
    fn a_filter_lies_rows_columns_inputs_outputs() {
        // [out 2, in 3, h 1, w 2], numbered in order.
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let order = Order::Filters.axes(&[2, 3, 1, 2]).unwrap();
        let expected = [0.0, 6.0, 2.0, 8.0, 4.0, 10.0, 1.0, 7.0, 3.0, 9.0, 5.0, 11.0];
        assert_eq!(transposed(&values, &order.0, &order.1), expected);
    }

    #[test]
    fn scopes_are_names_that_tensorflow_takes_and_differ() {
        let mut g = GraphBuilder::new("net", Shape::map(1, 4, 4));
        let x = g.conv2d("a b", g.input(), ConvSpec::new(1, 1)).unwrap();
        let x = g.conv2d("a_b", x, ConvSpec::new(1, 1)).unwrap();
        let x = g.conv2d("ä..x", x, ConvSpec::new(1, 1)).unwrap();
        let graph = g.finish(x).unwrap();
        assert_eq!(scopes(&graph), ["input", "a_b", "a_b_", "layer_/x"]);
    }
}
