//! `tallow export` and `tallow verify`: files that say the same in every engine, and a damaged one that does not.

use std::fs;

use crate::support::{copy, shared, typed};

#[test]
fn every_option_gives_a_file_that_verifies() {
    let folder = copy();
    let at = folder.path();
    for (name, options) in [
        ("o15", "--opset 15"),
        ("o16", "--opset 16"),
        ("o18", "--opset 18"),
        ("o19", "--opset 19"),
        ("o20", "--opset 20"),
        ("o21", "--opset 21"),
        ("unfolded", "--no-fold"),
        ("softmax", "--softmax --batch 2"),
    ] {
        let json = typed(at, &format!("export run {options} -o {name}.onnx --json")).json();
        assert_eq!(json["path"], format!("{name}.onnx"));
        let report = typed(at, &format!("verify {name}.onnx --from run --json")).json();
        assert_eq!(report["reference"], "candle");
        assert_eq!(report["agrees"], true, "{report:#}");
    }
    for opset in [14, 22] {
        typed(at, &format!("export run --opset {opset} -o new.onnx")).fails(2, &["15 to 21"]);
    }
    typed(at, "export run --batch 0 -o new.onnx").fails(2, &["batch"]);
    assert!(!at.join("new.onnx").exists());
}

#[test]
fn a_float16_file_verifies_with_its_own_tolerance_and_says_what_it_is() {
    let folder = copy();
    let at = folder.path();
    for options in ["", "--no-fold", "--softmax", "--cam --opset 18", "--embed-preprocessing --batch 2"] {
        typed(at, &format!("export run --dtype f16 {options} -o half.onnx --force")).ok();
        let json = typed(at, "verify half.onnx --from run --json").json();
        assert_eq!(
            (&json["agrees"], &json["tolerance"]),
            (&true.into(), &2e-2.into()),
            "{options}: {json:#}"
        );
        assert_eq!(json["dtype"], "f16");
    }
    let size = |name: &str| fs::metadata(at.join(name)).unwrap().len();
    typed(at, "export run --dtype f16 -o half.onnx --force").ok();
    // The name that is not said is another one than that of the float32 file, which stays.
    let before = fs::read(at.join("run/model.onnx")).unwrap();
    let named = typed(at, "export run --dtype float16").ok();
    assert!(named.starts_with("run/model.f16.onnx  "), "{named}");
    assert!(fs::read(at.join("run/model.f16.onnx")).unwrap() == fs::read(at.join("half.onnx")).unwrap());
    assert!(fs::read(at.join("run/model.onnx")).unwrap() == before);
    typed(at, "verify run/model.f16.onnx").ok();
    let layers = typed(at, "verify run/model.f16.onnx --layers");
    assert_eq!(layers.out, "", "it is refused before anything runs");
    layers.fails(2, &["run/model.f16.onnx", "float16", "leave --layers out"]);
    assert!(size("half.onnx") < size("run/model.onnx"));
    let info = typed(at, "info half.onnx").ok();
    for part in
        ["computes in   float16", ", float16\n", "images [N, 3, 8, 8] float32", "logits [N, 3] float32"]
    {
        assert!(info.contains(part), "`{part}` is missing: {info}");
    }
    assert_eq!(typed(at, "info half.onnx --json").json()["card"]["dtype"], "f16");
    assert!(typed(at, "info run").ok().contains("computes in   float32"));
    let report = typed(at, "verify half.onnx --from run").ok();
    assert!(report.contains("computes in float16, for which the tolerance is 2e-2"), "{report}");
    let strict = typed(at, "verify half.onnx --from run --tolerance 1e-9");
    assert!(strict.code == Some(1) && !strict.out.contains("--layers"), "{strict:#?}");
    typed(at, "predict half.onnx data/train/red/0.png --engine tract").ok();
    let refused = "--dtype f16 is for --format onnx";
    typed(at, "export run --dtype f16 --format saved-model -o new").fails(2, &[refused]);
    typed(at, "export run --dtype f16 --format tf-checkpoint -o new").fails(2, &[refused]);
    assert!(!at.join("new").exists());
}

#[test]
fn the_same_weights_give_the_same_bytes() {
    let folder = copy();
    let at = folder.path();
    typed(at, "export run/saved_model -o again.onnx").ok();
    assert!(fs::read(at.join("again.onnx")).unwrap() == fs::read(at.join("run/model.onnx")).unwrap());
}

#[test]
fn bare_weights_become_a_model() {
    let folder = copy();
    let at = folder.path();
    fs::write(at.join("names.txt"), "blue\ngreen\nred\n\n").unwrap();
    let weights = "--model plain_cnn --weights run/checkpoints/best/weights.safetensors --classes 3 --size 8";
    typed(at, &format!("export {weights} --labels names.txt -o bare --format saved-model")).ok();
    typed(at, "verify bare").ok();
    let json = typed(at, "predict bare data/validation/red/0.png --engine tract -k 1 --json").json();
    assert!(["blue", "green", "red"].contains(&json[0]["predictions"][0]["label"].as_str().unwrap()));
    typed(at, &format!("export {weights}")).fails(2, &["--output"]);
    fs::write(at.join("names.txt"), "blue\ngreen\n").unwrap();
    typed(at, &format!("export {weights} --labels names.txt -o new.onnx"))
        .fails(1, &["names.txt names 2 classes", "3"]);
}

#[test]
fn a_changed_weight_is_found() {
    let folder = copy();
    let at = folder.path();
    let path = at.join("run/model.onnx");
    let mut bytes = fs::read(&path).unwrap();
    // The middle of the file is within the weights; a single one may be of a channel that is never on.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].iter_mut().for_each(|byte| *byte ^= 0x40);
    fs::write(&path, bytes).unwrap();
    let run = typed(at, "verify run");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.out.contains("DIFFERS") && run.out.contains("do NOT agree"), "{}", run.out);
    let run = typed(at, "verify run --json");
    assert_eq!(run.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["agrees"], false);
}

#[test]
fn another_run_is_told_from_a_later_epoch() {
    let folder = copy();
    let at = folder.path();
    typed(at, "train --model plain_cnn --size 8 --epochs 1 --data digits --run other").ok();
    typed(at, "verify run/model.onnx --from other").fails(
        1,
        &[
            "run/model.onnx holds plain_cnn of data (3 classes)",
            "other holds plain_cnn of digits (10 classes)",
        ],
    );
}

#[test]
fn what_is_no_model_is_said_to_be_none() {
    let at = shared();
    typed(at, "verify data/train/red/0.png")
        .fails(1, &["data/train/red/0.png", "not an ONNX model, or damaged"]);
    typed(at, "verify nowhere.onnx").fails(1, &["nowhere.onnx", "No such file"]);
    typed(at, "verify data").fails(1, &["data holds no model.onnx"]);
    typed(at, "verify run/model.onnx --from data")
        .fails(1, &["data is neither a run directory nor a SavedModel"]);
    typed(at, "export data -o new.onnx").fails(1, &["data is neither a run directory nor a SavedModel"]);
    typed(at, "export run/model.onnx -o new.onnx").fails(1, &["run/model.onnx is a file"]);
}

#[test]
fn a_file_that_normalises_itself_labels_and_measures_as_the_other_does() {
    let folder = copy();
    let at = folder.path();
    typed(at, "export run --embed-preprocessing -o pixels.onnx").ok();
    typed(at, "predict pixels.onnx data/validation/red --engine tract").ok();
    let line = "data/validation/red/0.png --engine tract --json";
    let [inside, outside] =
        ["pixels.onnx", "run/model.onnx"].map(|model| typed(at, &format!("predict {model} {line}")).json());
    let probability = |json: &serde_json::Value| json[0]["predictions"][0]["probability"].as_f64().unwrap();
    assert!((probability(&inside) - probability(&outside)).abs() < 1e-5);
    let [inside, outside] = ["pixels.onnx", "run/model.onnx"]
        .map(|model| typed(at, &format!("eval {model} --data data --engine tract --json")).json());
    assert_eq!(inside["top1"], outside["top1"]);
    assert!((inside["loss"].as_f64().unwrap() - outside["loss"].as_f64().unwrap()).abs() < 1e-5);
    typed(at, &format!("predict pixels.onnx {line} --mean 0,0,0"))
        .fails(1, &["normalises the images itself"]);
    for format in ["saved-model", "tf-checkpoint"] {
        typed(at, &format!("export run --embed-preprocessing --format {format} -o x"))
            .fails(2, &["--embed-preprocessing"]);
    }
}

#[test]
fn what_a_run_says_itself_is_not_said_again() {
    for flags in ["--size 20", "--width 2", "--classes 3", "--model resnet18", "--key a", "--labels x"] {
        typed(shared(), &format!("export run -o never.onnx {flags}")).fails(2, &["--weights"]);
    }
    assert!(!shared().join("never.onnx").exists());
}
