//! Images in, labels out: what the card says is done, and what it does not say must be told.
//! Runs on tract, which is always there; `engines.rs` shows that the engines agree.

#![allow(clippy::unwrap_used)] // a test's helpers fail by panicking, as the test does

mod tiny;

use tallow_input::{ModelCard, OutputKind, Preprocess, RgbImage};
use tallow_runtime::{Classifier, EngineChoice, EngineKind, RuntimeError, Views};
use tiny::{CLASSES, SIDE, bytes, card, expected, images};

fn tract() -> tallow_runtime::ClassifierBuilder {
    Classifier::builder().engine(EngineChoice::Named(EngineKind::Tract))
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|v| v.exp()).sum();
    logits.iter().map(|v| v.exp() / total).collect()
}

fn photo(seed: u8) -> RgbImage {
    RgbImage::from_fn(20, 14, |x, y| image::Rgb([(x * 11) as u8 ^ seed, (y * 17) as u8, seed]))
}

#[test]
fn predictions_are_the_softmax_of_the_logits_most_probable_first() {
    let classifier = tract().from_bytes(bytes(None, Some(&card()))).unwrap();
    let input = images(5, 4);
    let (_, logits) = expected(input.view());
    let predictions = classifier.classify_tensor(input.view(), 2).unwrap();
    for (row, predictions) in logits.rows().into_iter().zip(predictions) {
        let probabilities = softmax(&row.to_vec());
        let mut order: Vec<usize> = (0..CLASSES).collect();
        order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        assert_eq!(predictions.len(), 2);
        for (prediction, index) in predictions.iter().zip(order) {
            assert_eq!(prediction.index, index);
            assert_eq!(prediction.label, card().labels[index]);
            assert!((f64::from(prediction.probability) - probabilities[index]).abs() < 1e-6);
            assert!((f64::from(prediction.logit.unwrap()) - row[index]).abs() < 1e-5);
        }
    }
}

#[test]
fn a_graph_with_softmax_inside_gives_the_same_probabilities() {
    let inside = ModelCard { output: OutputKind::Probabilities, ..card() };
    let outside = tract().from_bytes(bytes(None, Some(&card()))).unwrap();
    let inside = tract().from_bytes(bytes(None, Some(&inside))).unwrap();
    let photo = photo(9);
    let (a, b) = (outside.classify_image(&photo, 3).unwrap(), inside.classify_image(&photo, 3).unwrap());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((&a.label, a.index), (&b.label, b.index));
        assert!((a.probability - b.probability).abs() < 1e-6);
        assert!(a.logit.is_some() && b.logit.is_none());
    }
}

#[test]
fn several_views_give_the_mean_of_their_probabilities() {
    let photos: Vec<RgbImage> = (0..3).map(|i| photo(i * 40)).collect();
    let one = tract().from_bytes(bytes(None, Some(&card()))).unwrap();
    let inside = ModelCard { output: OutputKind::Probabilities, ..card() };
    for views in [Views::Flip, Views::FiveCrop, Views::TenCrop] {
        for card in [&card(), &inside] {
            let several = tract().batch(7).views(views).from_bytes(bytes(None, Some(card))).unwrap();
            let found = several.classify_images(&photos, CLASSES).unwrap();
            for (photo, found) in photos.iter().zip(found) {
                let shown = one.preprocess().views(photo, views).unwrap();
                for prediction in found {
                    let of = |view: &RgbImage| {
                        let all = one.classify_image(view, CLASSES).unwrap();
                        all.iter().find(|p| p.index == prediction.index).unwrap().probability
                    };
                    let mean = shown.iter().map(of).sum::<f32>() / views.count() as f32;
                    assert!((prediction.probability - mean).abs() < 1e-6, "{views}");
                    assert_eq!(prediction.logit, None);
                }
            }
        }
    }
}

#[test]
fn bytes_files_images_and_tensors_agree_in_batches_of_any_size() {
    let classifier = tract().batch(2).from_bytes(bytes(None, Some(&card()))).unwrap();
    let photos: Vec<RgbImage> = (0..5).map(|i| photo(i * 40)).collect();
    let together = classifier.classify_images(&photos, 3).unwrap();
    let tensor = classifier.prepare(&photos).unwrap();
    assert_eq!(tensor.dim(), (5, 3, SIDE, SIDE));
    let from_tensor = classifier.classify_tensor(tensor.view(), 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (i, photo) in photos.iter().enumerate() {
        let path = dir.path().join(format!("{i}.png"));
        photo.save(&path).unwrap();
        let from_file = classifier.classify_file(&path, 3).unwrap();
        assert_eq!(classifier.classify_bytes(&std::fs::read(&path).unwrap(), 3).unwrap(), from_file);
        for other in [&together[i], &from_tensor[i]] {
            for (a, b) in from_file.iter().zip(other) {
                assert_eq!(a.label, b.label);
                assert!((a.probability - b.probability).abs() < 1e-6);
            }
        }
    }
    assert!(classifier.classify_images(&[], 3).unwrap().is_empty());
}

#[test]
fn a_classifier_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync>() {}
    shareable::<Classifier>();
}

#[test]
fn a_foreign_model_runs_if_told_size_and_labels() {
    let error = tract().from_bytes(bytes(None, None)).unwrap_err().to_string();
    let expected =
        "model data: it has no tallow metadata, so the labels must be given (on the command line: --labels";
    assert!(error.starts_with(expected), "{error}");
    let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
    let error = tract().labels(labels.clone()).from_bytes(bytes(None, None)).unwrap_err().to_string();
    assert!(error.contains("so the input size must be given"), "{error}");

    let side = SIDE as u32;
    let told = tract().labels(labels.clone()).preprocess(Preprocess::imagenet(side, side));
    let classifier = told.clone().from_bytes(bytes(None, None)).unwrap();
    assert!(classifier.card().is_none());
    let ours = tract().from_bytes(bytes(None, Some(&card()))).unwrap();
    let (a, b) =
        (classifier.classify_image(&photo(3), 1).unwrap(), ours.classify_image(&photo(3), 1).unwrap());
    assert_eq!((a[0].index, a[0].probability), (b[0].index, b[0].probability));

    let error =
        told.clone().labels(labels[..2].to_vec()).from_bytes(bytes(None, None)).unwrap_err().to_string();
    assert_eq!(error, "model data: its output `logits` has 3 classes, but there are 2 labels");
    let error =
        told.preprocess(Preprocess::imagenet(32, 16)).from_bytes(bytes(None, None)).unwrap_err().to_string();
    let expected = "model data: its input is [N, 3, 9, 9], but the preprocessing makes images of [3, 16, 32]";
    assert_eq!(error, expected);
}

#[test]
fn what_is_said_changes_one_thing_of_what_the_card_says() {
    let usual = card().preprocess;
    let open = |builder: tallow_runtime::ClassifierBuilder| builder.from_bytes(bytes(None, Some(&card())));
    let changed = open(tract().mean([0.1, 0.2, 0.3])).unwrap();
    assert_eq!(*changed.preprocess(), Preprocess { mean: [0.1, 0.2, 0.3], ..usual });
    let changed = open(tract().std([0.5; 3])).unwrap();
    assert_eq!(*changed.preprocess(), Preprocess { std: [0.5; 3], ..usual });
    assert_eq!(*open(tract().size(usual.width, usual.height)).unwrap().preprocess(), usual);
    let error = open(tract().output(OutputKind::Probabilities)).unwrap_err().to_string();
    assert!(error.contains("says that it ends in logits, not in probabilities"), "{error}");

    // Where there is no card, ImageNet's habits stand in.
    let side = SIDE as u32;
    let labels = ["a", "b", "c"].map(String::from).to_vec();
    let told = tract().labels(labels).size(side, side).std([0.5; 3]).from_bytes(bytes(None, None)).unwrap();
    assert_eq!(*told.preprocess(), Preprocess { std: [0.5; 3], ..Preprocess::imagenet(side, side) });
}

#[test]
fn bad_metadata_names_file_and_key() {
    let mut model = tiny::model(None, Some(&card()));
    model.metadata_props.iter_mut().find(|e| e.key == "tallow.labels").unwrap().value = "[1".into();
    let error = tract().from_bytes(prost::Message::encode_to_vec(&model)).unwrap_err().to_string();
    assert!(error.starts_with("model data: metadata tallow.labels: cannot be read: "), "{error}");
}

#[test]
fn scores_that_are_not_finite_are_an_error() {
    let mut model = tiny::model(None, Some(&card()));
    let bias = &mut model.graph.as_mut().unwrap().initializer[3].raw_data;
    bias[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let classifier = tract().from_bytes(prost::Message::encode_to_vec(&model)).unwrap();
    let error = classifier.classify_image(&photo(1), 3).unwrap_err();
    assert!(matches!(error, RuntimeError::Model { .. }));
    assert!(error.to_string().contains("its output `logits` is not finite (NaN)"), "{error}");
}

#[test]
fn a_bad_image_is_an_error_naming_it() {
    let classifier = tract().from_bytes(bytes(None, Some(&card()))).unwrap();
    let error = classifier.classify_file("/nowhere/photo.jpg", 1).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/photo.jpg: cannot read the file: "), "{error}");
    let error = classifier.classify_bytes(b"", 1).unwrap_err().to_string();
    assert_eq!(error, "image data: the file is empty");
}
