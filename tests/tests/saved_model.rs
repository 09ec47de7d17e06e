//! From a SavedModel to predictions: what the exporter writes, the runtime serves, and candle agrees.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use candle_core::Device;
use tallow_builder::Network;
use tallow_conformance::{VerifyOptions, randomised, verify};
use tallow_exporter::tensorflow::{SavedModel, SavedModelOptions};
use tallow_exporter::{Existing, OnnxOptions};
use tallow_models::Options;
use tallow_runtime::{Classifier, EngineChoice, EngineKind, ModelCard, OutputKind, Preprocess, RgbImage};

#[test]
fn a_saved_model_verifies_and_serves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { height: Some(24), width: Some(32), ..Options::new(3, 24) };
    let graph = tallow_models::build("resnet20", &options).unwrap();
    let weights = randomised(&graph, 4).unwrap();
    let labels = vec!["cat".to_string(), "dog, old".into(), "Ä".into()];
    let preprocess = Preprocess { crop_fraction: 0.875, ..Preprocess::imagenet(32, 24) };
    let mut card = ModelCard::new("resnet20", labels.clone(), preprocess);
    card.dataset = Some("pets".into());
    card.metrics.insert("top1".into(), 0.5);

    let photo = RgbImage::from_fn(50, 41, |x, y| [5 * x as u8, 6 * y as u8, (x * y) as u8].into());
    let mut answers = Vec::new();
    for softmax in [false, true] {
        let path = folder.path().join(format!("softmax_{softmax}"));
        let onnx = OnnxOptions { softmax, ..Default::default() };
        let options = SavedModelOptions { onnx, ..Default::default() };
        SavedModel::write(&path, &graph, &weights, &card, &options, Existing::Keep).unwrap();

        let dir = SavedModel::open(&path).unwrap();
        let network = Network::new(dir.graph().clone(), dir.load_weights(&Device::Cpu).unwrap());
        let report = verify(&dir.onnx_path(), Some(&network), &VerifyOptions::default()).unwrap();
        assert!(report.agrees, "{report}");

        let tract = EngineChoice::Named(EngineKind::Tract);
        let classifier = Classifier::builder().engine(tract).open(dir.onnx_path()).unwrap();
        let served = classifier.card().unwrap();
        assert_eq!(served, dir.card());
        assert_eq!((&served.labels, &served.preprocess), (&labels, &preprocess));
        assert_eq!((served.dataset.as_deref(), served.metrics["top1"]), (Some("pets"), 0.5));
        let kind = if softmax { OutputKind::Probabilities } else { OutputKind::Logits };
        assert_eq!(served.output, kind);
        assert!(served.producer.as_ref().unwrap().starts_with("tallow "));

        let top = classifier.classify_image(&photo, 3).unwrap();
        assert_eq!(top[0].label, labels[top[0].index]);
        answers.push(top);
    }
    for (a, b) in answers[0].iter().zip(&answers[1]) {
        assert_eq!(a.label, b.label);
        assert!((a.probability - b.probability).abs() < 1e-5);
    }
}
