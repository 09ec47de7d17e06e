//! `tallow cam`: pictures of where a network sees its classes, by candle and by the engines.

use std::fs;

use crate::support::{CLASSES, content, copy, cut, shared, typed};

#[test]
fn candle_and_an_engine_draw_the_same_picture() {
    let folder = copy();
    let at = folder.path();
    let photo = "data/validation/red/0.png";
    let candle = typed(at, &format!("cam run {photo} -k 2 -o candle.png --json")).json();
    typed(at, "export run --cam -o maps.onnx").ok();
    let engine = typed(at, &format!("cam maps.onnx {photo} -k 2 -o engine.png --engine tract --json")).json();
    for key in ["class", "label", "size", "peak"] {
        assert_eq!(candle[0]["maps"][0][key], engine[0]["maps"][0][key]);
    }
    for map in [&candle, &engine].map(|json| &json[0]["maps"][0]) {
        let number = |key: &str| map[key].as_f64().unwrap();
        let rows: Vec<Vec<f64>> = serde_json::from_value(map["map"].clone()).unwrap();
        assert_eq!(map["size"], serde_json::json!([rows.len(), rows[0].len()]));
        let values: Vec<f64> = rows.concat();
        assert_eq!(values.iter().copied().fold(f64::INFINITY, f64::min), number("minimum"));
        assert_eq!(values.iter().copied().fold(f64::NEG_INFINITY, f64::max), number("maximum"));
        assert_eq!(map["label"], CLASSES[map["class"].as_u64().unwrap() as usize]);
    }
    let logit = |json: &serde_json::Value| json[0]["maps"][0]["logit"].as_f64().unwrap();
    assert!((logit(&candle) - logit(&engine)).abs() < 1e-4);
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
    typed(at, &format!("cam run {photo} --class purple -o x.png"))
        .fails(2, &["`purple`", "did you mean `", "below 3"]);
    typed(at, &format!("cam run {photo} --class sky -o x.png")).fails(2, &["did you mean `blue sky`? "]);
    typed(at, &format!("cam run {photo} --layer fc -o x.png")).fails(2, &["`fc` gives no feature map"]);
    typed(at, &format!("cam run {photo} -k 0 -o x.png")).fails(2, &["--top-k 0"]);
    typed(at, &format!("cam run {photo} -k 2000 -o x.png")).fails(2, &["2000 classes", "at most 30"]);
    typed(at, &format!("cam run {photo} -o nodir/x.png"))
        .fails(1, &["nodir/x.png", "the folder nodir does not exist"]);
    typed(at, &format!("cam run {photo} --layer stage9 -o x.png")).fails(2, &["`stage9`", "tallow summary"]);
    typed(at, &format!("cam run {photo} -o x.jpg")).fails(2, &["x.jpg", "PNG"]);
    typed(at, &format!("cam run {photo} {photo} -o x.png")).fails(2, &["--output"]);
    typed(at, "cam run").fails(2, &["name the images"]);
    typed(at, &format!("cam run {photo} --engine ort -o x.png")).fails(2, &["--engine"]);
    typed(at, &format!("cam run/model.onnx {photo} -o x.png"))
        .fails(1, &["run/model.onnx", "--cam", "--weights"]);
    typed(at, &format!("cam run/model.onnx {photo} --layer fc -o x.png")).fails(2, &["--layer", "--weights"]);
    fs::write(at.join("broken.png"), "no image").unwrap();
    typed(at, "cam run broken.png -o x.png").fails(1, &["broken.png", "not an image"]);
    fs::remove_file(at.join("broken.png")).unwrap();
    assert_eq!(content(at), before);
}

#[test]
fn a_stage_stands_for_its_last_layer_with_a_map() {
    let folder = copy();
    let run = typed(folder.path(), "cam run data/validation/red/0.png --layer stage1 --json");
    assert!(
        run.err.contains("--layer stage1 is a stage: its last feature map is that of stage1."),
        "{run:#?}"
    );
    let method = run.json()[0]["method"].as_str().unwrap().to_owned();
    assert!(method.starts_with("Grad-CAM at stage1."), "{method}");
}

#[test]
fn folders_are_looked_at_whole_and_no_picture_is_lost() {
    let folder = copy();
    let at = folder.path();
    cut(&at.join("data/validation/red/0.png"));
    let run = typed(at, "cam run data/validation/red data/validation/green/2.bmp -k 1");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.err.contains("error: data/validation/red/0.png: the image is cut short"), "{run:#?}");
    let lines: Vec<&str> = run.out.lines().filter(|line| line.contains("cam.png")).collect();
    let told = [
        "data/validation/red/1.jpg: 1.cam.png",
        "data/validation/red/2.bmp: 2.cam.png",
        "data/validation/green/2.bmp: 2-2.cam.png",
    ];
    assert_eq!(lines, told);
    let [red, green] = ["2.cam.png", "2-2.cam.png"].map(|file| fs::read(at.join(file)).unwrap());
    assert_ne!(red, green);

    // Nothing is computed where a picture must not be written, and the others are forced.
    typed(at, "cam run data/validation/red").fails(1, &["1.cam.png", "already exists"]);
    let json = typed(at, "cam run data/validation/red --force --json");
    assert_eq!(json.code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json[0]["error"], "data/validation/red/0.png: the image is cut short");
    assert_eq!(json[2]["picture"], "2.cam.png");
}

#[test]
fn a_checkpoint_has_no_maps() {
    typed(shared(), "export run --cam --format tf-checkpoint -o nowhere").fails(2, &["--cam"]);
}
