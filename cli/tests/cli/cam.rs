//! `tallow cam`: pictures of where a network sees its classes, by candle and by the engines.

use std::fs;

use crate::support::{CLASSES, content, copy, shared, typed};

#[test]
fn candle_and_an_engine_draw_the_same_picture() {
    let folder = copy();
    let at = folder.path();
    let photo = "data/validation/red/0.png";
    let candle = typed(at, &format!("cam run {photo} -k 2 -o candle.png --json")).json();
    typed(at, "export run --cam -o maps.onnx").ok();
    let engine = typed(at, &format!("cam maps.onnx {photo} -k 2 -o engine.png --engine tract --json")).json();
    for key in ["label", "size", "peak"] {
        assert_eq!(candle[0]["maps"][0][key], engine[0]["maps"][0][key]);
    }
    let difference = [&candle, &engine].map(|json| json[0]["maps"][1]["probability"].as_f64().unwrap());
    assert!((difference[0] - difference[1]).abs() < 1e-5);
    let [a, b] = ["candle.png", "engine.png"].map(|file| image::open(at.join(file)).unwrap().to_rgb8());
    let differing = a.as_raw().iter().zip(b.as_raw()).filter(|(a, b)| a.abs_diff(**b) > 1).count();
    assert_eq!((a.dimensions(), differing), (b.dimensions(), 0));
}

#[test]
fn classes_layers_and_files_that_cannot_be_shown_are_told() {
    let folder = copy();
    let at = folder.path();
    let photo = "data/validation/red/0.png";
    let asked = typed(at, &format!("cam run {photo} --class green --class 0 --json")).json();
    let labels: Vec<&str> =
        asked[0]["maps"].as_array().unwrap().iter().map(|map| map["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["green", CLASSES[0]]);
    assert!(at.join("0.cam.png").is_file());
    typed(at, &format!("cam run {photo}")).fails(1, &["0.cam.png", "--force"]);
    typed(at, &format!("cam run {photo} --layer stage1.0.relu -o layer.png")).ok();
    let before = content(at);
    typed(at, &format!("cam run {photo} --class purple -o x.png")).fails(2, &["`purple`", "below 3"]);
    typed(at, &format!("cam run {photo} --layer stage9 -o x.png")).fails(2, &["`stage9`", "tallow summary"]);
    typed(at, &format!("cam run {photo} -o x.jpg")).fails(2, &["x.jpg", "PNG"]);
    typed(at, &format!("cam run {photo} {photo} -o x.png")).fails(2, &["--output"]);
    typed(at, "cam run").fails(2, &["name the images"]);
    typed(at, &format!("cam run {photo} --engine ort -o x.png")).fails(2, &["--engine"]);
    typed(at, &format!("cam run/model.onnx {photo} -o x.png")).fails(1, &["run/model.onnx", "--cam"]);
    typed(at, &format!("cam run/model.onnx {photo} --layer fc -o x.png")).fails(2, &["--layer"]);
    fs::write(at.join("broken.png"), "no image").unwrap();
    typed(at, "cam run broken.png -o x.png").fails(1, &["broken.png", "not an image"]);
    fs::remove_file(at.join("broken.png")).unwrap();
    assert_eq!(content(at), before);
}

#[test]
fn a_checkpoint_has_no_maps() {
    typed(shared(), "export run --cam --format tf-checkpoint -o nowhere").fails(2, &["--cam"]);
}
