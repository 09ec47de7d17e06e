//! Class activation maps out of an exported file are candle's, in every engine, and their means are the logits.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use candle_core::{Device, Tensor};
use ndarray::{Array4, ArrayD};
use tallow_builder::cam::class_activation_maps;
use tallow_builder::{Graph, Network, Rng};
use tallow_conformance::randomised;
use tallow_exporter::onnx::CAM;
use tallow_exporter::{OnnxOptions, export_onnx};
use tallow_models::Options;
use tallow_runtime::{EngineChoice, EngineKind, EngineOptions, find_library};

/// Relative to the largest magnitude of what is compared.
const TOLERANCE: f64 = 1e-5;

fn images(graph: &Graph, n: usize) -> Array4<f32> {
    let dims = graph.input_shape().dims();
    let mut rng = Rng::new(1);
    Array4::from_shape_simple_fn((n, dims[0], dims[1], dims[2]), || rng.normal() as f32)
}

fn difference<'a>(found: impl Iterator<Item = &'a f32>, expected: &[f32]) -> f64 {
    let largest = expected.iter().fold(0f64, |most, v| most.max(f64::from(v.abs())));
    found.zip(expected).map(|(a, b)| f64::from((a - b).abs())).fold(0f64, f64::max) / largest
}

fn check(graph: &Graph, options: &OnnxOptions) {
    let weights = randomised(graph, 1).unwrap();
    let bytes = export_onnx(graph, &weights, None, options).unwrap();
    let images = images(graph, 3);
    let network = Network::new(graph.clone(), weights);
    let tensor = Tensor::from_slice(images.as_slice().unwrap(), images.shape(), &Device::Cpu).unwrap();
    let (logits, maps) = class_activation_maps(&network, &tensor).unwrap().unwrap();
    let [logits, expected] = [&logits, &maps].map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    for engine in [EngineKind::Ort, EngineKind::Tract] {
        if engine == EngineKind::Ort && find_library(None).found.is_none() {
            assert!(std::env::var_os("TALLOW_REQUIRE_ORT").is_none(), "libonnxruntime is needed");
            eprintln!("NOT RUN in ort: there is no libonnxruntime");
            continue;
        }
        let model = tallow_runtime::Network::from_bytes(
            bytes.clone(),
            EngineChoice::Named(engine),
            &EngineOptions::default(),
        );
        let model = model.unwrap();
        let outputs: Vec<ArrayD<f32>> = model.run(images.view()).unwrap();
        let found = &outputs[model.output_index(CAM).unwrap()];
        assert_eq!(found.shape(), maps.dims());
        let relative = difference(found.iter(), &expected);
        eprintln!("{} {engine:?}: {relative:.1e}", graph.name());
        assert!(relative <= TOLERANCE, "{} in {engine:?}: {relative:e}", graph.name());
        if !options.softmax {
            assert!(difference(outputs[0].iter(), &logits) <= TOLERANCE);
        }
    }
}

#[test]
fn every_engine_gives_candles_maps() {
    for name in ["plain_cnn", "resnet18", "resnet20", "efficientnet_b0", "efficientnet_lite0"] {
        let graph = tallow_models::build(name, &Options::new(7, 64)).unwrap();
        check(&graph, &OnnxOptions { cam: true, ..OnnxOptions::default() });
    }
}

#[test]
fn maps_go_with_every_other_option() {
    let graph = tallow_models::build("resnet18_cifar", &Options::new(5, 24)).unwrap();
    for (fold, softmax, batch, opset) in [
        (false, false, None, 15),
        (true, true, None, 17),
        (true, false, Some(2), 21),
        (false, true, Some(3), 18),
    ] {
        check(&graph, &OnnxOptions { opset, fold, softmax, cam: true, batch, ..Default::default() });
    }
}

#[test]
fn the_classifiers_weights_are_in_the_file_once() {
    let graph = tallow_models::build("efficientnet_lite0", &Options::new(1000, 64)).unwrap();
    let weights = randomised(&graph, 1).unwrap();
    let length =
        |cam| export_onnx(&graph, &weights, None, &OnnxOptions { cam, ..Default::default() }).unwrap().len();
    assert!(length(true) - length(false) < 1000);
}
