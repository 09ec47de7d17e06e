//! Labels and logits of real photos, through candle and every engine, beside PyTorch's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use libtest_mimic::{Failed, Trial};
use serde::Deserialize;
use tallow_builder::Network;
use tallow_exporter::{Head, OnnxOptions, export_onnx, read_weights};
use tallow_input::{ModelCard, decode_file};
use tallow_models::{Options, find, imagenet_labels};
use tallow_runtime::{Classifier, EngineChoice, EngineKind, find_library};

use crate::packages::{Packages, WEIGHTS};

/// Relative to the largest logit.
const TOLERANCE: f64 = 1e-5;
const PHOTOS: [(&str, &str); 6] = [
    ("skimage/data/astronaut.png", "football helmet"),
    ("skimage/data/chelsea.png", "tiger cat"),
    ("skimage/data/coffee.png", "espresso"),
    ("skimage/data/rocket.jpg", "missile"),
    ("sklearn/datasets/images/china.jpg", "palace"),
    ("sklearn/datasets/images/flower.jpg", "daisy"),
];

/// What PyTorch gives (`tests/parity/published_photos.py`).
#[derive(Deserialize)]
struct Expected {
    top5: Vec<usize>,
    logits: Vec<f64>,
}

/// From one prepared image to its logits.
type Logits = Box<dyn Fn(&[f32]) -> Result<Vec<f32>, Failed>>;

pub fn trials(packages: &Packages) -> Vec<Trial> {
    let engines = [None, Some(EngineKind::Ort), Some(EngineKind::Tract)];
    let trials = engines.into_iter().map(|engine| {
        let name = engine.map_or("candle".into(), |engine| engine.to_string());
        let trial = packages
            .trial(&format!("lite0_on_photos_is_pytorchs::{name}"), move |folder| run(folder, engine));
        let can_run = engine != Some(EngineKind::Ort) || ort_is_there() || trial.has_ignored_flag();
        if can_run { trial } else { trial.with_ignored_flag(true) }
    });
    trials.collect()
}

/// Whether libonnxruntime is there, or has to be.
fn ort_is_there() -> bool {
    find_library(None).found.is_some() || std::env::var_os("TALLOW_REQUIRE_ORT").is_some()
}

fn run(folder: &Path, engine: Option<EngineKind>) -> Result<(), Failed> {
    let network = find("efficientnet_lite0")?;
    let graph = network.build(&Options::default())?;
    let weights = read_weights(&graph, &folder.join(WEIGHTS), None, Head::Kept, &Device::Cpu)?.weights;
    let preprocess = network.preprocess(224, 224);
    let logits: Logits = match engine {
        None => {
            let network = Network::new(graph, weights);
            Box::new(move |image| {
                let image = Tensor::from_slice(image, (1, 3, 224, 224), &Device::Cpu)?;
                Ok(network.forward(&image)?.flatten_all()?.to_vec1()?)
            })
        }
        Some(engine) => {
            let card = ModelCard::new(network.name, imagenet_labels(), preprocess);
            let bytes = export_onnx(&graph, &weights, Some(&card), &OnnxOptions::default())?;
            let classifier = Classifier::builder().engine(EngineChoice::Named(engine)).from_bytes(bytes)?;
            Box::new(move |image| {
                let image = ndarray::ArrayView4::from_shape((1, 3, 224, 224), image)?;
                Ok(classifier.scores(image)?.into_raw_vec_and_offset().0)
            })
        }
    };
    let labels = imagenet_labels();
    for (photo, label) in PHOTOS {
        let expected =
            &expected()[PathBuf::from(photo).file_name().and_then(|n| n.to_str()).unwrap_or_default()];
        let found = logits(&preprocess.apply(&decode_file(folder.join(photo))?)?)?;
        let largest = expected.logits.iter().fold(0f64, |most, value| most.max(value.abs()));
        let differences = found.iter().zip(&expected.logits).map(|(a, b)| (f64::from(*a) - b).abs());
        let relative = differences.fold(0f64, f64::max) / largest;
        println!("{photo}: {relative:.1e}");
        if relative > TOLERANCE {
            return Err(format!("{photo}: logits differ by {relative:e}").into());
        }
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by(|&a, &b| found[b].total_cmp(&found[a]));
        if order[..5] != expected.top5 || labels[order[0]] != label {
            return Err(
                format!("{photo}: the best classes are {:?}, not {:?}", &order[..5], expected.top5).into()
            );
        }
    }
    Ok(())
}

fn expected() -> &'static BTreeMap<String, Expected> {
    static EXPECTED: OnceLock<BTreeMap<String, Expected>> = OnceLock::new();
    let text = include_str!("../../parity/fixtures/published_photos.json");
    EXPECTED.get_or_init(|| serde_json::from_str(text).expect("a fixture of ours"))
}
