//! Where candle computes: the flags that every command that does so takes, and what is told.

use std::fs;

use crate::support::{QUICK, copy, shared, typed, workplace};

const PHOTO: &str = "data/validation/red/0.png";

/// Commands that compute in candle, with little to do.
fn commands() -> [String; 5] {
    [
        format!("{QUICK} --data data --run new"),
        "eval run".into(),
        format!("cam run {PHOTO} -o seen.png"),
        "soup run run --data data -o soup".into(),
        "bench --train plain_cnn --size 8 --batch 2 --seconds 0".into(),
    ]
}

#[test]
fn the_cpu_can_be_named_and_is_told() {
    let folder = copy();
    for line in commands() {
        let run = typed(folder.path(), &format!("{line} --device cpu --precision float32"));
        assert!(run.err.lines().any(|line| line == "on cpu, f32"), "{line}: {run:#?}");
        run.ok();
    }
    let json = typed(shared(), "eval run --device cpu --json").json();
    assert_eq!((&json["device"], &json["precision"]), (&"cpu".into(), &"f32".into()));
    let json = typed(shared(), "bench --train plain_cnn --size 8 --batch 2 --seconds 0 --json --device cpu");
    assert_eq!(json.json()[0]["precision"], "f32");
}

#[test]
fn gpus_and_precisions_that_are_not_there_are_errors_before_anything_is_written() {
    let folder = copy();
    let at = folder.path();
    for line in commands() {
        typed(at, &format!("{line} --device cuda:4711")).fails(1, &["cuda:4711", "--device cpu"]);
        typed(at, &format!("{line} --device 4711")).fails(1, &["cuda:4711"]);
        typed(at, &format!("{line} --device cpu --precision fp16"))
            .fails(2, &["precision = f16", "needs a GPU", "--device cuda:0"]);
        typed(at, &format!("{line} --precision fp8")).fails(2, &["'fp8'", "f32, tf32, f16 or bf16"]);
    }
    for left in ["new", "seen.png", "soup"] {
        assert!(!at.join(left).exists(), "{left}");
    }
}

#[test]
fn a_device_that_is_none_is_named_once() {
    let run = typed(shared(), "eval run --device nonsense");
    assert_eq!(run.err.matches("nonsense").count(), 1, "{}", run.err);
    run.fails(2, &["'nonsense' for '--device <DEVICE>'", "cpu, auto or cuda:N"]);
    let folder = workplace();
    for (settings, part) in
        [("device = \"nonsense\"", "cpu, auto or cuda:N"), ("precision = \"f8\"", "f32, tf32, f16 or bf16")]
    {
        fs::write(folder.path().join("s.toml"), format!("[compute]\n{settings}\n")).unwrap();
        typed(folder.path(), "train --data data --config s.toml").fails(2, &["s.toml: line 2", part]);
    }
    fs::write(folder.path().join("s.toml"), "[compute]\nprecision = \"bfloat16\"\n").unwrap();
    let settings = typed(folder.path(), "train --data data --config s.toml --print-config").ok();
    assert!(settings.contains("precision = \"bf16\""), "{settings}");
}

#[test]
fn devices_are_for_what_candle_computes() {
    let folder = copy();
    let at = folder.path();
    for line in [
        "eval run/model.onnx --device cuda:0".into(),
        "eval run --engine tract --precision bf16".into(),
        "bench run --device cpu".into(),
        format!("cam run/model.onnx {PHOTO} --device cuda:0 -o x.png"),
    ] {
        typed(at, &line).fails(2, &["--device and --precision", "candle", "--engine ort-cuda"]);
    }
    typed(at, "soup run run -o soup --device cpu").fails(2, &["--device and --precision", "--recalibrate"]);
}
