//! Every option of the export, on small networks: operator sets 15 to 21, folding, softmax, fixed batches, and a
//! batch that changes from run to run.

mod suite;

use tallow_builder::Graph;
use tallow_conformance::{Outcome, VerifyOptions, verify};
use tallow_exporter::OnnxOptions;
use tallow_exporter::onnx::{NEWEST_OPSET, OLDEST_OPSET};
use tallow_models::Options;

fn network(name: &str) -> Graph {
    tallow_models::build(name, &Options::new(6, 32)).unwrap()
}

#[test]
fn every_operator_set_agrees() {
    for name in ["resnet18", "efficientnet_b0", "efficientnet_lite0"] {
        let graph = network(name);
        for opset in OLDEST_OPSET..=NEWEST_OPSET {
            suite::check(&graph, &OnnxOptions { opset, ..Default::default() }, None);
        }
    }
}

#[test]
fn unfolded_softmax_and_fixed_batches_agree() {
    for name in ["resnet20", "efficientnet_b0"] {
        let graph = network(name);
        for fold in [true, false] {
            for softmax in [true, false] {
                for batch in [None, Some(1), Some(2)] {
                    let options = OnnxOptions { fold, softmax, batch, ..Default::default() };
                    suite::check(&graph, &options, None);
                }
            }
        }
    }
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
