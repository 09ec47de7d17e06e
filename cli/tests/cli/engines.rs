//! Engines: those asked for run or say what is missing, `auto` says what it took and why.

use crate::support::{Run, command, ort_is_there, shared, typed};

const PREDICT: &str = "predict run data/train/red/0.png";

/// Runs with a variable that names a library that is not there.
fn without_ort(line: &str) -> Run {
    let mut command = command(shared());
    command.env("TALLOW_ONNXRUNTIME", "/nonexistent").args(line.split_whitespace());
    command.output().unwrap().into()
}

#[test]
fn a_missing_library_is_an_error_only_where_it_was_asked_for() {
    let parts = [
        "engine ort is not available",
        "/nonexistent: does not exist",
        "correct TALLOW_ONNXRUNTIME",
        "tallow runtime install",
    ];
    for line in
        [&format!("{PREDICT} --engine ort"), "eval run --engine ort", "bench run --engine ort --seconds 0"]
    {
        without_ort(line).fails(1, &parts);
    }
    let run = without_ort(PREDICT);
    assert!(run.err.starts_with("engine tract: "), "{}", run.err);
    assert!(run.err.contains("ort not taken: not available: no libonnxruntime"), "{}", run.err);
    run.ok();
    let report = without_ort("verify run").ok();
    assert!(report.contains("not run: no libonnxruntime") && report.contains("engines agree"), "{report}");
    let info = without_ort("runtime info");
    assert!(info.ok().contains("TALLOW_ONNXRUNTIME   does not exist  /nonexistent"));
}

#[test]
fn a_library_that_is_none() {
    let mut command = command(shared());
    command.env("TALLOW_ONNXRUNTIME", shared().join("run/labels.txt"));
    command.args(PREDICT.split_whitespace()).args(["--engine", "ort"]);
    Run::from(command.output().unwrap())
        .fails(1, &["engine ort is not available", "labels.txt", "TALLOW_ONNXRUNTIME"]);
}

#[test]
fn cuda_is_an_error_that_names_the_way_out() {
    let info = typed(shared(), "runtime info --json").json();
    if info["cuda_missing"].is_null() {
        return; // Its libraries are here; whether a GPU is, the runtime's own tests ask.
    }
    typed(shared(), &format!("{PREDICT} --engine ort-cuda"))
        .fails(1, &["engine ort-cuda is not available", "--engine ort"]);
    typed(shared(), "eval run/model.onnx --engine ort-cuda").fails(1, &["engine ort-cuda is not available"]);
}

#[test]
fn onnx_runtime_gives_what_tract_gives() {
    if !ort_is_there("onnx_runtime_gives_what_tract_gives") {
        return;
    }
    let run = typed(shared(), PREDICT);
    assert!(run.err.starts_with("engine ort"), "{}", run.err);
    let logit = |engine: &str| {
        let json = typed(shared(), &format!("{PREDICT} --engine {engine} --json")).json();
        json[0]["predictions"][0]["logit"].as_f64().unwrap()
    };
    assert!((logit("ort") - logit("tract")).abs() < 1e-4);
    let report = typed(shared(), "verify run --json").json();
    let status = |engine: &str| {
        let rows = report["engines"].as_array().unwrap();
        rows.iter().find(|row| row["engine"] == engine).unwrap()["status"].clone()
    };
    assert_eq!(status("candle"), "reference");
    for engine in ["ort", "tract", "candle-onnx"] {
        assert_eq!(status(engine), "compared", "{engine}");
    }
}
