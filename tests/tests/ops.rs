//! Every operation, activation and kind of padding, in small networks whose sizes are odd and not square.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod op_cases;
mod suite;

use candle_core::{Device, Tensor};
use op_cases::{Case, network};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Shape};
use tallow_builder::{Graph, GraphBuilder, Weights};
use tallow_conformance::{VerifyOptions, randomised};
use tallow_exporter::OnnxOptions;

fn agree(graph: &Graph, missing: Option<&str>) {
    suite::check(graph, &OnnxOptions::default(), missing);
}

fn all_agree(cases: Vec<Case>) {
    cases.iter().for_each(|(graph, missing)| agree(graph, *missing));
}

#[test]
fn convolutions_agree() {
    all_agree(op_cases::convolutions(4));
}

#[test]
fn pools_agree() {
    all_agree(op_cases::pools(4));
}

#[test]
fn activations_agree() {
    all_agree(op_cases::activations(4));
}

/// A network that was trained for a moment can have most of its activations far out on a tail, where each is next to
/// nothing, and a sum over all of them in its logits. An approximation that is off by 7e-6 there is off by 4e-4 here.
#[test]
fn sums_over_the_tails_of_activations_agree() {
    const CHANNELS: usize = 64;
    for (name, activation) in [("silu_tail", Activation::Silu), ("sigmoid_tail", Activation::SIGMOID)] {
        let graph = network(name, 4, |g, x| {
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
    agree(&op_cases::unfoldable(4), None);
}

#[test]
fn branches_scaling_softmax_and_bare_linear_agree() {
    agree(&op_cases::branches(4), None);
}

#[test]
fn a_feature_map_a_single_pixel_and_no_layer_at_all_agree() {
    agree(&network("feature_map", 4, |g, x| g.conv2d("conv", x, ConvSpec::new(3, 3))), None);
    agree(&network("identity", 4, |_, x| Ok(x)), None);
    agree(&network("only_dropout", 4, |g, x| g.dropout("dropout", x, 0.5)), None);
    let mut g = GraphBuilder::new("pixel", Shape::map(3, 1, 1));
    let x = g.conv2d("conv", g.input(), ConvSpec::new(5, 3).padding(1)).unwrap();
    let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    agree(&g.finish(x).unwrap(), None);
}
