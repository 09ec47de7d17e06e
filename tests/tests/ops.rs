//! Every operation, activation and kind of padding, in small networks whose sizes are odd and not square.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod op_cases;
mod suite;

use op_cases::{Case, network};
use tallow_builder::graph::{BatchNorm, ConvSpec, Shape};
use tallow_builder::{Graph, GraphBuilder};
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
