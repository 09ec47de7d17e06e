//! The binary as the README uses it: from training to labels, on every kind of output.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod tool;

use serde_json::Value;
use tool::{Tool, photos};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_folder_of_photos_becomes_a_file_that_labels_them() {
    let t = Tool::new();
    photos(&t.path("data/train"), &["blue", "red"], 40);
    photos(&t.path("data/validation"), &["blue", "red"], 6);
    let train =
        ["train", "--data", "data", "--model", "plain_cnn", "--size", "12", "--epochs", "4", "--json"];
    let result =
        json(&t.succeeds(&[&train[..], &["--batch-size", "16", "--run", "r", "--seed", "5"]].concat()));
    assert_eq!((&result["interrupted"], &result["epochs"]), (&Value::Bool(false), &Value::from(4)));
    for file in ["config.toml", "network.json", "labels.txt", "metrics.csv", "curves.png", "confusion.png"] {
        assert!(t.path("r").join(file).is_file(), "{file}");
    }
    t.succeeds(&["export", "r"]);
    t.succeeds(&["export", "r", "--format", "model-dir"]);
    for file in
        ["model.onnx", "variables/variables.safetensors", "assets/labels.txt", "assets/preprocess.json"]
    {
        assert!(t.path("r/model").join(file).is_file(), "{file}");
    }
    for model in ["r/model.onnx", "r/model"] {
        let report = json(&t.succeeds(&["verify", model, "--json"]));
        assert_eq!(report["agrees"], Value::Bool(true), "{report}");
        assert_eq!(report["reference"], "candle");
    }
    let images = ["data/validation/blue/0.jpg", "data/validation/red/1.jpg"];
    for engine in ["auto", "tract"] {
        let args = [&["predict", "r", "--json", "--engine", engine][..], &images].concat();
        let predicted = json(&t.succeeds(&args));
        let labels: Vec<&str> = predicted
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["predictions"][0]["label"].as_str().unwrap())
            .collect();
        assert_eq!(labels, ["blue", "red"], "{engine}");
    }
    let candle = json(&t.succeeds(&["eval", "r", "--json"]));
    let tract = json(&t.succeeds(&["eval", "r/model.onnx", "--engine", "tract", "--json"]));
    assert_eq!((&candle["top1"], &candle["images"]), (&tract["top1"], &tract["images"]));
    assert_eq!(candle["images"], 12);
}

#[test]
fn exports_take_every_option_and_the_same_weights_give_the_same_bytes() {
    let t = Tool::new();
    t.train("r");
    for (name, options) in [
        ("a.onnx", &[][..]),
        ("b.onnx", &[]),
        ("c.onnx", &["--opset", "21", "--softmax", "--batch", "2", "--no-fold"]),
    ] {
        t.succeeds(&[&["export", "r", "-o", name][..], options].concat());
        t.succeeds(&["verify", name, "--from", "r", "--batches", "2"]);
    }
    assert!(std::fs::read(t.path("a.onnx")).unwrap() == std::fs::read(t.path("b.onnx")).unwrap());
    let weights = "r/checkpoints/best/weights.safetensors";
    let bare = ["export", "--model", "plain_cnn", "--weights", weights, "--classes", "10", "--size", "8"];
    t.succeeds(&[&bare[..], &["-o", "bare.onnx"]].concat());
    t.succeeds(&["bench", "a.onnx", "--seconds", "0.05", "--engine", "tract"]);
}

#[test]
fn a_file_whose_weights_were_changed_is_found_out() {
    let t = Tool::new();
    t.train("r");
    t.succeeds(&["export", "r"]);
    let path = t.path("r/model.onnx");
    let mut bytes = std::fs::read(&path).unwrap();
    // The middle of the file is weights: the highest byte of one float, sign and exponent.
    let middle = bytes.len() / 2 | 3;
    for byte in &mut bytes[middle..middle + 64] {
        *byte ^= 0x40;
    }
    std::fs::write(&path, &bytes).unwrap();
    let (code, out, _) = t.run_with(&["verify", "r/model.onnx"], &[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("DIFFERS"), "{out}");
}

#[test]
fn ctrl_c_writes_a_checkpoint_and_the_run_goes_on() {
    let t = Tool::new();
    let args =
        ["train", "--data", "digits", "--model", "plain_cnn", "--size", "8", "--epochs", "500", "--run", "r"];
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tallow"))
        .args(args)
        .current_dir(t.folder())
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The first epoch's row tells that training is under way.
    while std::fs::read_to_string(t.path("r/metrics.csv")).map_or(0, |text| text.lines().count()) < 2 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(child.try_wait().unwrap().is_none(), "training ended by itself");
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let done = std::fs::read_to_string(t.path("r/metrics.csv")).unwrap().lines().count() as u64 - 1;
    let epochs = (done + 1).to_string();
    t.succeeds(&["train", "--resume", "r", "--epochs", &epochs]);
}

#[test]
fn summaries_are_for_people_and_machines() {
    let t = Tool::new();
    let text = t.succeeds(&["summary", "resnet50"]);
    assert!(text.contains("25,557,032") && text.contains("4,089,184,256"), "{text}");
    let summary =
        json(&t.succeeds(&["summary", "efficientnet_b0", "--classes", "10", "--size", "64", "--json"]));
    assert_eq!(summary["totals"]["parameters"], 4_020_358);
    let all = json(&t.succeeds(&["summary", "--json"]));
    assert!(all.as_array().unwrap().len() >= 29);
    t.succeeds(&["runtime", "info"]);
}
