//! Every option of the export, on small networks: operator sets 15 to 21, folding, softmax, fixed batches, and a
//! batch that changes from run to run.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod suite;

use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Padding, Shape};
use tallow_builder::{Graph, GraphBuilder, Result};
use tallow_conformance::{Outcome, VerifyOptions, verify};
use tallow_exporter::OnnxOptions;
use tallow_exporter::onnx::{NEWEST_OPSET, OLDEST_OPSET};
use tallow_models::Options;

fn network(name: &str) -> Graph {
    tallow_models::build(name, &Options::new(6, 32)).unwrap()
}

/// One network with every operation and activation, so that each is met in each operator set.
fn every_operation() -> Result<Graph> {
    let mut g = GraphBuilder::new("every_operation", Shape::map(3, 21, 26));
    let x = g.batch_norm("bn0", g.input(), BatchNorm { eps: 1e-3, ..Default::default() })?;
    let x = g.conv2d("conv1", x, ConvSpec::new(8, 3).stride(2).padding(Padding::Same))?;
    let x = g.batch_norm("bn1", x, BatchNorm::default())?;
    let x = g.activation("relu", x, Activation::Relu)?;
    let x = g.max_pool("max_pool", x, 3, 1, 1)?;
    let x = g.conv2d("depthwise", x, ConvSpec::new(8, 3).groups(8).padding(2).dilation(2))?;
    let x = g.batch_norm("bn2", x, BatchNorm::default())?;
    let x = g.activation("relu6", x, Activation::Relu6)?;
    let squeezed = g.global_avg_pool("squeeze", x)?;
    let squeezed = g.conv2d("fc1", squeezed, ConvSpec::new(4, 1).bias())?;
    let squeezed = g.activation("silu", squeezed, Activation::Silu)?;
    let squeezed = g.conv2d("fc2", squeezed, ConvSpec::new(8, 1).bias())?;
    let gate = g.activation("sigmoid", squeezed, Activation::SIGMOID)?;
    let scaled = g.scale("scale", x, gate)?;
    let branch = g.stochastic_depth("drop_path", scaled, 0.2)?;
    let x = g.sum("add", branch, x)?;
    let x = g.conv2d("conv2", x, ConvSpec::new(8, 3).groups(2).bias())?;
    let x = g.batch_norm("bn3", x, BatchNorm::default())?;
    let x = g.activation("leaky_relu", x, Activation::LeakyRelu { slope: 0.2 })?;
    let x = g.avg_pool("avg_pool", x, 2, 2, 0)?;
    let x = g.conv2d("conv3", x, ConvSpec::new(8, 1).bias())?;
    let x = g.batch_norm("bn4", x, BatchNorm::default())?;
    let x = g.activation("hard_swish", x, Activation::HardSwish)?;
    let x = g.conv2d("conv4", x, ConvSpec::new(8, 1).bias())?;
    let x = g.batch_norm("bn5", x, BatchNorm::default())?;
    let x = g.activation("tanh", x, Activation::Tanh)?;
    let x = g.activation("steep", x, Activation::Sigmoid { slope: 3.0 })?;
    let x = g.flatten("flatten", x)?;
    let x = g.dropout("dropout", x, 0.5)?;
    let x = g.linear("fc", x, Linear::uniform(6, 0.1))?;
    g.finish(x)
}

#[test]
fn every_operator_set_agrees() {
    for graph in [every_operation().unwrap(), network("resnet18"), network("efficientnet_b0")] {
        for opset in OLDEST_OPSET..=NEWEST_OPSET {
            // Deep networks have no operation that the first does not have: the ends will do.
            if graph.name() == "every_operation" || opset == OLDEST_OPSET || opset == NEWEST_OPSET {
                suite::check(&graph, &OnnxOptions { opset, ..Default::default() }, None);
            }
        }
    }
}

#[test]
fn unfolded_softmax_and_fixed_batches_agree() {
    for graph in [every_operation().unwrap(), network("resnet20")] {
        for fold in [true, false] {
            for softmax in [true, false] {
                for batch in [None, Some(1), Some(2)] {
                    let options = OnnxOptions { fold, softmax, batch, ..Default::default() };
                    suite::check(&graph, &options, None);
                }
            }
        }
    }
    suite::check(&network("efficientnet_b0"), &OnnxOptions { fold: false, ..Default::default() }, None);
}

#[test]
fn a_batch_that_changes_in_one_session_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let options = VerifyOptions { batches: vec![3, 1, 5, 1, 3, 2], seed: 9, ..Default::default() };
    suite::check_in(folder.path(), &network("resnet18_cifar"), &OnnxOptions::default(), &options, None);
}

#[test]
fn without_a_layer_graph_an_engine_is_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let options = VerifyOptions::default();
    suite::check_in(folder.path(), &network("resnet20"), &OnnxOptions::default(), &options, None);
    let report = verify(&folder.path().join("resnet20.onnx"), None, &options).unwrap();
    assert!(report.agrees && report.reference != "candle", "{report}");
    assert!(matches!(report.row("candle").unwrap().outcome, Outcome::NotRun { .. }));
}

#[test]
fn a_wrong_weight_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let graph = network("resnet20");
    let options = VerifyOptions::default();
    suite::check_in(folder.path(), &graph, &OnnxOptions::default(), &options, None);
    let mut weights = tallow_conformance::randomised(&graph, 1).unwrap();
    let changed = (weights.get("fc.bias") + 1e-2).unwrap();
    weights.set("fc.bias", changed);
    let network = tallow_builder::Network::new(graph, weights);
    let report = verify(&folder.path().join("resnet20.onnx"), Some(&network), &options).unwrap();
    assert!(!report.agrees, "{report}");
    assert!(matches!(report.row("tract").unwrap().outcome, Outcome::Compared { within: false, .. }));
}

#[test]
fn another_network_or_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = VerifyOptions::default();
    suite::check_in(folder.path(), &network("resnet20"), &OnnxOptions::default(), &options, None);
    let other = tallow_models::build("resnet20", &Options::new(6, 24)).unwrap();
    let weights = tallow_conformance::randomised(&other, 1).unwrap();
    let path = folder.path().join("resnet20.onnx");
    let text = verify(&path, Some(&tallow_builder::Network::new(other, weights)), &options).unwrap_err();
    assert!(text.to_string().contains("takes images of 3×32×32, but network `resnet20` takes 3×24×24"));
    let missing = verify(&folder.path().join("no.onnx"), None, &options).unwrap_err().to_string();
    assert!(missing.contains("no.onnx") && !missing.contains('\n'), "{missing}");
}
