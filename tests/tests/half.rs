//! Every network of the zoo exported to float16: ONNX Runtime on the CPU and tract, which both compute in float32 with the
//! file's float16 weights, stay within float16's tolerance of candle, with the same first class. What rounding each layer's
//! result adds shows on a GPU alone. At a small size, for the question is of each operator and of depth, not of size.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod suite;

use tallow_builder::Network;
use tallow_conformance::{Outcome, VerifyOptions, randomised, tolerance, verify};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};
use tallow_input::{Dtype, ModelCard, Preprocess};
use tallow_models::Options;

const HALF: OnnxOptions = OnnxOptions {
    opset: 17,
    fold: true,
    softmax: false,
    cam: false,
    embed_preprocessing: false,
    batch: None,
    dtype: Dtype::F16,
};

/// Exports the network and compares; returns the largest difference.
fn agree(name: &str, options: &OnnxOptions) -> f64 {
    let graph = tallow_models::build(name, &Options::new(7, 32)).unwrap();
    let report = suite::check(&graph, options, Some("float16"));
    assert_eq!(report.tolerance, tolerance(Dtype::F16));
    assert!(report.to_string().contains("computes in float16"), "{report}");
    let mut largest = 0f64;
    for engine in ["ort", "tract"] {
        if let Outcome::Compared { max_rel, top1, .. } = report.row(engine).unwrap().outcome {
            assert_eq!(top1, 1.0, "{report}");
            largest = largest.max(max_rel);
        }
    }
    println!("HALF {name} {largest:.1e}");
    largest
}

#[test]
fn resnets_agree_in_float16() {
    for name in tallow_models::names().filter(|name| name.starts_with("resnet")) {
        agree(name, &HALF);
    }
    agree("plain_cnn", &HALF);
}

#[test]
fn efficientnets_agree_in_float16() {
    for name in tallow_models::names().filter(|name| name.starts_with("efficientnet")) {
        agree(name, &HALF);
    }
}

#[test]
fn every_option_agrees_in_float16() {
    for options in [
        OnnxOptions { fold: false, ..HALF },
        OnnxOptions { softmax: true, cam: true, ..HALF },
        OnnxOptions { opset: 21, batch: Some(2), ..HALF },
    ] {
        agree("resnet18_cifar", &options);
        agree("efficientnet_b0", &options);
    }
}

#[test]
fn the_file_is_half_as_large_and_differs_from_float32() {
    let graph = tallow_models::build("resnet20", &Options::new(7, 32)).unwrap();
    let weights = randomised(&graph, 1).unwrap();
    let card =
        ModelCard::new("resnet20", (0..7).map(|i| i.to_string()).collect(), Preprocess::imagenet(32, 32));
    let folder = tempfile::tempdir().unwrap();
    let size = |dtype| {
        let path = folder.path().join(format!("{dtype:?}.onnx"));
        let options = OnnxOptions { dtype, ..HALF };
        write_onnx(&path, &graph, &weights, Some(&card), &options, Existing::Keep).unwrap();
        (std::fs::metadata(&path).unwrap().len() as f64, path)
    };
    let ((single, _), (half, path)) = (size(Dtype::F32), size(Dtype::F16));
    assert!(half < 0.52 * single, "{half} of {single}");
    // What float32's tolerance would say of it: the file does compute in float16.
    let network = Network::new(graph, weights);
    let options = VerifyOptions { tolerance: Some(1e-5), ..Default::default() };
    let report = verify(&path, Some(&network), &options).unwrap();
    assert!(!report.agrees, "{report}");
}
