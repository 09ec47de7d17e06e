//! Every operation, activation and kind of padding, in small networks whose sizes are odd and not square.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod suite;

use candle_core::{Device, Tensor};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Op, Padding, Pads, Pool, Shape};
use tallow_builder::{Graph, GraphBuilder, NodeId, Result, Weights};
use tallow_conformance::{VerifyOptions, randomised};
use tallow_exporter::OnnxOptions;

/// A network of 4×11×14 images around one construction.
fn network(name: &str, layers: impl FnOnce(&mut GraphBuilder, NodeId) -> Result<NodeId>) -> Graph {
    let mut g = GraphBuilder::new(name, Shape::map(4, 11, 14));
    let x = g.input();
    let x = layers(&mut g, x).unwrap();
    g.finish(x).unwrap()
}

fn agree(graph: &Graph, missing: Option<&str>) {
    suite::check(graph, &OnnxOptions::default(), missing);
}

#[test]
fn convolutions_agree() {
    let asymmetric = Pads { top: 2, bottom: 0, left: 1, right: 3 };
    let cases = [
        ("conv_1x1", ConvSpec::new(6, 1).bias(), None),
        ("conv_valid", ConvSpec::new(6, 3), None),
        ("conv_symmetric", ConvSpec::new(6, 3).padding(1).bias(), None),
        ("conv_asymmetric", ConvSpec::new(6, 3).padding(asymmetric), None),
        ("conv_same_stride", ConvSpec::new(6, 3).stride(2).padding(Padding::Same), None),
        ("conv_same_even", ConvSpec::new(6, 4).padding(Padding::Same), None),
        ("conv_stride_above_kernel", ConvSpec::new(6, 1).stride(3), None),
        ("conv_dilation", ConvSpec::new(6, 3).dilation(2).padding(2), None),
        ("conv_groups", ConvSpec::new(6, 3).groups(2).padding(1).bias(), None),
        ("conv_depthwise", ConvSpec::new(4, 5).groups(4).padding(2).stride(2), None),
        ("conv_depthwise_multiplier", ConvSpec::new(12, 3).groups(4).padding(Padding::Same), None),
        ("conv_kernel_above_image", ConvSpec::new(3, 15).padding(7), None),
        ("conv_wide_kernel", ConvSpec::new(6, 1).kernel(3, 5).padding(Padding::Same), None),
        ("conv_strides", ConvSpec::new(6, 3).strides(2, 3).padding(1), Some("Conv strides, unequal")),
    ];
    for (name, spec, missing) in cases {
        let graph = network(name, |g, x| {
            let x = g.conv2d("conv", x, spec)?;
            g.flatten("flatten", x)
        });
        agree(&graph, missing);
    }
}

#[test]
fn pools_agree() {
    let asymmetric = Pads { top: 1, bottom: 0, left: 0, right: 2 };
    let pool = |kernel, stride, padding: Pads| Pool { kernel: [kernel; 2], stride: [stride; 2], padding };
    let wide = Pool { kernel: [2, 3], stride: [1, 2], padding: Pads { right: 1, ..Pads::default() } };
    let much = Some("MaxPool pads, of more than half the window");
    let cases = [
        ("valid", pool(2, 2, Pads::default()), None, false),
        ("overlapping", pool(3, 2, Pads::all(1)), None, true),
        ("asymmetric", pool(3, 2, asymmetric), much, true),
        ("stride_above_kernel", pool(2, 3, Pads::all(1)), much, true),
        ("wide", wide, None, true),
    ];
    for (name, pool, max_missing, padded) in cases {
        let average_missing = padded.then_some("AveragePool pads");
        for (op, missing) in [(Op::MaxPool(pool.clone()), max_missing), (Op::AvgPool(pool), average_missing)]
        {
            let graph = network(&format!("{}_{name}", op.kind()), |g, x| {
                // Negative values everywhere tell padding that never wins from padding with zeros.
                let x = g.conv2d("conv", x, ConvSpec::new(4, 1).bias())?;
                let x = g.add("pool", op, &[x])?;
                g.flatten("flatten", x)
            });
            agree(&graph, missing);
        }
    }
}

#[test]
fn activations_agree() {
    for (name, activation) in [
        ("relu", Activation::Relu),
        ("relu6", Activation::Relu6),
        ("leaky_relu", Activation::LeakyRelu { slope: 0.1 }),
        ("sigmoid", Activation::SIGMOID),
        ("sigmoid_steep", Activation::Sigmoid { slope: 2.5 }),
        ("tanh", Activation::Tanh),
        ("silu", Activation::Silu),
        ("hard_swish", Activation::HardSwish),
    ] {
        let graph = network(name, |g, x| {
            // Large enough a scale to reach both ends of every piece.
            let x = g.batch_norm("bn", x, BatchNorm { eps: 1e-3, ..Default::default() })?;
            let x = g.conv2d("conv", x, ConvSpec::new(6, 3).padding(1).bias())?;
            let x = g.activation("first", x, activation)?;
            let x = g.activation("second", x, activation)?;
            let x = g.flatten("flatten", x)?;
            g.linear("fc", x, Linear::uniform(5, 0.1))
        });
        agree(&graph, None);
    }
}

/// A network that was trained for a moment can have most of its activations far out on a tail, where each is next to
/// nothing, and a sum over all of them in its logits. An approximation that is off by 7e-6 there is off by 4e-4 here.
#[test]
fn sums_over_the_tails_of_activations_agree() {
    const CHANNELS: usize = 64;
    for (name, activation) in [("silu_tail", Activation::Silu), ("sigmoid_tail", Activation::SIGMOID)] {
        let graph = network(name, |g, x| {
            let x = g.conv2d("conv", x, ConvSpec::new(CHANNELS, 1).bias())?;
            let x = g.activation("activation", x, activation)?;
            let x = g.global_avg_pool("pool", x)?;
            let x = g.flatten("flatten", x)?;
            g.linear("fc", x, Linear::uniform(5, 0.1))
        });
        let mut weights = randomised(&graph, 1).unwrap();
        let far = |i: usize| i % CHANNELS < CHANNELS - 8;
        let fill = |name: &str, weights: &mut Weights, value: f32| {
            let tensor = weights.get(name);
            let mut values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
            values.iter_mut().enumerate().filter(|(i, _)| far(*i)).for_each(|(_, v)| *v = value);
            let tensor = Tensor::from_vec(values, tensor.dims(), &Device::Cpu).unwrap();
            weights.set(name, tensor);
        };
        fill("conv.bias", &mut weights, -40.0);
        fill("fc.weight", &mut weights, 1.0);
        let folder = tempfile::tempdir().unwrap();
        let options = (OnnxOptions::default(), VerifyOptions::default());
        suite::check_weights(folder.path(), &graph, weights, &options.0, &options.1, None);
    }
}

#[test]
fn batch_norms_that_cannot_be_folded_agree() {
    let graph = network("unfolded", |g, x| {
        let x = g.batch_norm("bn0", x, BatchNorm { eps: 1e-3, ..Default::default() })?;
        let conv = g.conv2d("conv1", x, ConvSpec::new(4, 3).padding(1))?;
        let bn = g.batch_norm("bn1", conv, BatchNorm::default())?;
        let x = g.sum("add", conv, bn)?;
        let x = g.max_pool("pool", x, 2, 2, 0)?;
        let x = g.batch_norm("bn2", x, BatchNorm::default())?;
        g.flatten("flatten", x)
    });
    agree(&graph, None);
}

#[test]
fn branches_scaling_softmax_and_bare_linear_agree() {
    let graph = network("branches", |g, x| {
        let x = g.conv2d("conv", x, ConvSpec::new(8, 3).padding(1).bias())?;
        let squeezed = g.global_avg_pool("squeeze", x)?;
        let squeezed = g.conv2d("fc1", squeezed, ConvSpec::new(2, 1).bias())?;
        let squeezed = g.activation("silu", squeezed, Activation::Silu)?;
        let squeezed = g.conv2d("fc2", squeezed, ConvSpec::new(8, 1).bias())?;
        let gate = g.activation("gate", squeezed, Activation::SIGMOID)?;
        let scaled = g.scale("scale", x, gate)?;
        let branch = g.stochastic_depth("drop_path", scaled, 0.3)?;
        let x = g.sum("add", branch, x)?;
        let x = g.avg_pool("avg", x, 2, 2, 0)?;
        let x = g.flatten("flatten", x)?;
        let x = g.dropout("dropout", x, 0.5)?;
        let x = g.add("linear", Op::Linear(Linear { bias: false, ..Linear::uniform(6, 0.1) }), &[x])?;
        g.add("softmax", Op::Softmax, &[x])
    });
    agree(&graph, None);
}

#[test]
fn a_feature_map_a_single_pixel_and_no_layer_at_all_agree() {
    agree(&network("feature_map", |g, x| g.conv2d("conv", x, ConvSpec::new(3, 3))), None);
    agree(&network("identity", |_, x| Ok(x)), None);
    agree(&network("only_dropout", |g, x| g.dropout("dropout", x, 0.5)), None);
    let mut g = GraphBuilder::new("pixel", Shape::map(3, 1, 1));
    let x = g.conv2d("conv", g.input(), ConvSpec::new(5, 3).padding(1)).unwrap();
    let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    agree(&g.finish(x).unwrap(), None);
}
