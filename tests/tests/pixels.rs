//! A file that normalises images itself gives, from bytes, the probabilities that the other file gives from the floats
//! that are prepared outside, in every engine.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use ndarray::{Array4, ArrayD};
use tallow_builder::Rng;
use tallow_conformance::randomised;
use tallow_exporter::{OnnxOptions, export_onnx};
use tallow_input::{Interpolation, ModelCard, Preprocess, RgbImage};
use tallow_models::Options;
use tallow_runtime::{Classifier, EngineChoice, EngineKind, EngineOptions, find_library};

const TOLERANCE: f64 = 1e-5;
const SIZE: (u32, u32) = (40, 24);

fn card(classes: usize) -> ModelCard {
    let preprocess = Preprocess {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        interpolation: Interpolation::Bicubic,
        crop_fraction: 0.875,
        ..Preprocess::imagenet(SIZE.0, SIZE.1)
    };
    ModelCard::new("net", (0..classes).map(|class| format!("class {class}")).collect(), preprocess)
}

fn photos(n: usize) -> Vec<RgbImage> {
    let mut rng = Rng::new(5);
    let mut pixel = || (256.0 * rng.uniform()) as u8;
    (0..n)
        .map(|i| {
            let (width, height) = (60 + i as u32, 50);
            RgbImage::from_raw(width, height, (0..3 * width * height).map(|_| pixel()).collect()).unwrap()
        })
        .collect()
}

fn engines() -> Vec<EngineChoice> {
    let mut engines = vec![EngineChoice::Named(EngineKind::Tract)];
    if find_library(None).found.is_some() {
        engines.push(EngineChoice::Named(EngineKind::Ort));
    } else {
        assert!(std::env::var_os("TALLOW_REQUIRE_ORT").is_none(), "libonnxruntime is needed");
        eprintln!("NOT RUN in ort: there is no libonnxruntime");
    }
    engines
}

#[test]
fn bytes_inside_are_floats_outside() {
    let photos = photos(3);
    for (name, batch) in [("resnet18_cifar", None), ("efficientnet_lite0", Some(2))] {
        let options =
            Options { width: Some(SIZE.0 as usize), height: Some(SIZE.1 as usize), ..Options::new(6, 32) };
        let graph = tallow_models::build(name, &options).unwrap();
        let weights = randomised(&graph, 1).unwrap();
        let bytes = |options: &OnnxOptions| export_onnx(&graph, &weights, Some(&card(6)), options).unwrap();
        let outside = bytes(&OnnxOptions { softmax: true, ..Default::default() });
        let embedded = OnnxOptions { embed_preprocessing: true, cam: true, batch, ..Default::default() };
        let inside = bytes(&embedded);
        for engine in engines() {
            let open =
                |bytes: &Vec<u8>| Classifier::builder().engine(engine).from_bytes(bytes.clone()).unwrap();
            let (outside, inside) = (open(&outside), open(&inside));
            let expected = outside.scores(outside.prepare(&photos).unwrap().view()).unwrap();
            let found = inside.scores(inside.pixels(&photos).unwrap().view()).unwrap();
            let largest = expected.iter().fold(0f64, |most, v| most.max(f64::from(*v)));
            let differences = found.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs()));
            let relative = differences.fold(0f64, f64::max) / largest;
            eprintln!("{name} {engine}: {relative:.1e}");
            assert!(relative <= TOLERANCE, "{name} {engine}: {relative:e}");
            let [a, b] = [&outside, &inside].map(|c| c.classify_images(&photos, 1).unwrap());
            assert_eq!(
                a.iter().map(|p| &p[0].label).collect::<Vec<_>>(),
                b.iter().map(|p| &p[0].label).collect::<Vec<_>>()
            );
            if engine == EngineChoice::Named(EngineKind::Ort) {
                let options = EngineOptions { binding: Some(true), ..EngineOptions::default() };
                let builder = Classifier::builder().engine(engine).options(options);
                let bound = builder.from_bytes(bytes(&embedded)).unwrap();
                // The second run is the first through bound memory.
                for _ in 0..2 {
                    assert_eq!(bound.scores(bound.pixels(&photos).unwrap().view()).unwrap(), found);
                }
            }
            let network = inside.network();
            let maps: Vec<ArrayD<f32>> = network.run(inside.pixels(&photos).unwrap().view()).unwrap();
            assert_eq!(maps[network.output_index("cam").unwrap()].shape()[..2], [3, 6]);
        }
    }
}

#[test]
fn what_such_a_file_does_not_take_is_told() {
    let graph = tallow_models::build("plain_cnn", &Options::new(2, 16)).unwrap();
    let weights = randomised(&graph, 1).unwrap();
    let card = ModelCard { preprocess: Preprocess::imagenet(16, 16), ..card(2) };
    let options = OnnxOptions { embed_preprocessing: true, ..Default::default() };
    let bytes = export_onnx(&graph, &weights, Some(&card), &options).unwrap();
    let text = export_onnx(&graph, &weights, None, &options).unwrap_err().to_string();
    assert!(text.contains("give it a model card"), "{text}");
    let tract = EngineChoice::Named(EngineKind::Tract);
    let network =
        tallow_runtime::Network::from_bytes(bytes.clone(), tract, &EngineOptions::default()).unwrap();
    let floats = Array4::<f32>::zeros((1, 16, 16, 3));
    let text = network.run(floats.view()).unwrap_err().to_string();
    assert!(text.contains("uint8 [N, 16, 16, 3]") && text.contains("float32 [1, 16, 16, 3]"), "{text}");
    let text = network.run(Array4::<u8>::zeros((1, 3, 16, 16)).view()).unwrap_err().to_string();
    assert!(text.contains("uint8 [1, 3, 16, 16]"), "{text}");
    let builder = Classifier::builder().engine(tract).mean([0.5; 3]);
    let text = builder.from_bytes(bytes).unwrap_err().to_string();
    assert!(text.contains("normalises the images itself"), "{text}");
}
