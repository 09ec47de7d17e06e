//! A layer graph computed in f64, in the plainest way that is fast enough for a ResNet-50.
//! Nothing in here is shared with the f32 kernels: what it says about their rounding is said by somebody else.

mod window;

use std::collections::BTreeMap;

use candle_core::{DType, Result};
use ndarray::{Array4, ArrayD, ArrayView2, Axis, IxDyn};
use tallow_builder::graph::{Activation, Node, Op};
use tallow_builder::{Network, NodeId};

use window::{convolution, pool};

/// Runs a batch and shows `watch` every layer's value, in order. The weights are the network's own f32 numbers.
pub(crate) fn forward(
    network: &Network,
    images: &Array4<f32>,
    mut watch: impl FnMut(NodeId, &ArrayD<f64>),
) -> Result<()> {
    let graph = network.graph();
    let mut pending = graph.consumers();
    let mut values: BTreeMap<usize, ArrayD<f64>> = BTreeMap::new();
    for (id, node) in graph.iter() {
        let parameter = |suffix: &str| {
            let tensor = network.weights().get(&format!("{}.{suffix}", node.name));
            tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()
        };
        let value = match node.op {
            Op::Input => images.mapv(f64::from).into_dyn(),
            _ => {
                let inputs: Vec<&ArrayD<f64>> = node.inputs.iter().map(|id| &values[&id.index()]).collect();
                layer(node, &inputs, &parameter)?
            }
        };
        watch(id, &value);
        values.insert(id.index(), value);
        for input in &node.inputs {
            pending[input.index()] -= 1;
            if pending[input.index()] == 0 {
                values.remove(&input.index());
            }
        }
    }
    Ok(())
}

fn layer(
    node: &Node,
    inputs: &[&ArrayD<f64>],
    parameter: &dyn Fn(&str) -> Result<Vec<f64>>,
) -> Result<ArrayD<f64>> {
    let x = inputs[0];
    let per_channel = |values: Vec<f64>| column(&values, x.ndim());
    Ok(match &node.op {
        Op::Input | Op::Dropout { .. } | Op::StochasticDepth { .. } => x.clone(),
        Op::Conv2d(conv) => {
            let bias = if conv.bias { Some(parameter("bias")?) } else { None };
            convolution(x, conv, &parameter("weight")?, bias.as_deref())
        }
        Op::BatchNorm(bn) => {
            let deviation = |var: Vec<f64>| var.iter().map(|var| (var + bn.eps).sqrt()).collect();
            let normalised = (x - &per_channel(parameter("running_mean")?))
                / &per_channel(deviation(parameter("running_var")?));
            normalised * &per_channel(parameter("weight")?) + &per_channel(parameter("bias")?)
        }
        Op::Activation(kind) => x.mapv(|v| activation(*kind, v)),
        Op::MaxPool(attributes) => {
            pool(x, &attributes.window(), |seen, _| seen.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        }
        Op::AvgPool(attributes) => {
            pool(x, &attributes.window(), |seen, area| seen.iter().sum::<f64>() / area as f64)
        }
        Op::GlobalAvgPool => {
            let mean = x.mean_axis(Axis(3)).and_then(|rows| rows.mean_axis(Axis(2)));
            mean.expect("a map has pixels").insert_axis(Axis(2)).insert_axis(Axis(3))
        }
        Op::Linear(linear) => {
            let x = matrix(x);
            let weight = parameter("weight")?;
            let weight = ArrayView2::from_shape((linear.out_features, x.ncols()), &weight);
            let y = x.dot(&weight.map_err(candle_core::Error::wrap)?.t()).into_dyn();
            if linear.bias { y + &column(&parameter("bias")?, 2) } else { y }
        }
        Op::Add => x + inputs[1],
        Op::Mul => x * inputs[1],
        Op::Flatten => matrix(x).to_owned().into_dyn(),
        Op::Softmax => {
            let mut y = x.clone();
            for mut row in y.rows_mut() {
                let largest = row.fold(f64::NEG_INFINITY, |m, &v| m.max(v));
                row.mapv_inplace(|v| (v - largest).exp());
                let sum = row.sum();
                row /= sum;
            }
            y
        }
    })
}

fn activation(kind: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu { slope } if x < 0.0 => slope * x,
        Activation::LeakyRelu { .. } => x,
        Activation::Sigmoid { slope } => sigmoid(slope * x),
        Activation::Tanh => x.tanh(),
        Activation::Silu => x * sigmoid(x),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}

/// A value for each channel, to broadcast over the other axes.
fn column(values: &[f64], rank: usize) -> ArrayD<f64> {
    let mut shape = vec![1; rank];
    shape[1] = values.len();
    ArrayD::from_shape_vec(IxDyn(&shape), values.to_vec()).expect("as many values as the axis is long")
}

/// One row an image.
fn matrix(x: &ArrayD<f64>) -> ArrayView2<'_, f64> {
    let images = x.shape()[0];
    let columns = x.len() / images.max(1);
    let values = x.as_slice().expect("layers give values in standard order");
    ArrayView2::from_shape((images, columns), values).expect("every image has as many values")
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_models::Options;

    use super::*;
    use crate::outputs::random_images;
    use crate::randomised;
    use crate::tensors::{to_array, to_tensor};

    #[test]
    fn every_layer_is_what_candle_computes_but_for_rounding() {
        for name in ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_lite0", "plain_cnn"] {
            let graph = tallow_models::build(name, &Options::new(7, 33)).unwrap();
            let network = Network::new(graph.clone(), randomised(&graph, 2).unwrap());
            let images = random_images(3, &[2], [3, 33, 33]).remove(0);
            let mut expected = vec![];
            network
                .forward_watched(&to_tensor(&images).unwrap(), |_, value| {
                    expected.push(to_array(value).unwrap());
                })
                .unwrap();
            let mut seen = 0;
            forward(&network, &images, |id, value| {
                let f32s = &expected[id.index()];
                assert_eq!(value.shape(), f32s.shape(), "{name} {id:?}");
                let largest = value.fold(0f64, |m, v| m.max(v.abs()));
                let apart = value.iter().zip(f32s).fold(0f64, |m, (a, b)| m.max((a - f64::from(*b)).abs()));
                assert!(apart <= 1e-5 * largest, "{name}, {}: {apart}", graph.node(id).name);
                seen += 1;
            })
            .unwrap();
            assert_eq!(seen, graph.nodes().len());
        }
    }

    #[test]
    fn operations_that_the_zoo_lacks_are_computed_too() {
        use tallow_builder::graph::{ConvSpec, Linear, Shape};
        let mut g = tallow_builder::GraphBuilder::new("net", Shape::map(4, 9, 8));
        let x =
            g.conv2d("conv", g.input(), ConvSpec::new(8, 3).groups(2).dilation(2).padding(2).bias()).unwrap();
        let x = g.avg_pool("avg", x, 3, 2, 1).unwrap();
        let x = g.activation("leaky", x, Activation::LeakyRelu { slope: 0.1 }).unwrap();
        let x = g.activation("hard", x, Activation::HardSwish).unwrap();
        let x = g.activation("tanh", x, Activation::Tanh).unwrap();
        let x = g.activation("steep", x, Activation::Sigmoid { slope: 2.0 }).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        let x = g.linear("fc", x, Linear::uniform(5, 0.5)).unwrap();
        let x = g.add("softmax", Op::Softmax, &[x]).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = tallow_builder::Weights::init(&graph, 3, &Device::Cpu).unwrap();
        let network = Network::new(graph, weights);
        let images = random_images(3, &[2], [4, 9, 8]).remove(0);
        let f32s = to_array(&network.forward(&to_tensor(&images).unwrap()).unwrap()).unwrap();
        let mut last = ArrayD::zeros(IxDyn(&[]));
        forward(&network, &images, |_, value| last = value.clone()).unwrap();
        assert!(last.iter().zip(&f32s).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-6), "{last} {f32s}");
    }
}
