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
    for line in [
        &format!("{PREDICT} --engine ort"),
        "eval run --engine ort",
        "bench run --engine ort --seconds 0",
        "verify run --engine ort,tract",
    ] {
        without_ort(line).fails(1, &parts);
    }
    let run = without_ort(PREDICT);
    assert!(run.err.starts_with("engine tract: "), "{}", run.err);
    assert!(run.err.contains("ort not taken: not available: no libonnxruntime"), "{}", run.err);
    run.ok();
    let report = without_ort("verify run").ok();
    assert!(report.contains("not run: no libonnxruntime") && report.contains("engines agree"), "{report}");
    let info = without_ort("runtime info").ok();
    assert!(info.contains("TALLOW_ONNXRUNTIME   does not exist  /nonexistent"), "{info}");
    assert!(
        info.starts_with("libonnxruntime was looked for in:\n  TALLOW_ONNXRUNTIME "),
        "no flag names one: {info}"
    );
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

#[cfg(target_os = "linux")]
#[test]
fn what_gpus_need_is_looked_for_before_anything_is_installed_for_them() {
    let empty = tempfile::tempdir().unwrap();
    let folders = format!("{}:/nonexistent/lib:", empty.path().display());
    let run = |flags: &str| {
        let mut command = command(shared());
        command.env("TALLOW_ONNXRUNTIME", "/nonexistent").env("TALLOW_CUDA_LIBRARIES", &folders);
        Run::from(command.args(["runtime", "info"]).args(flags.split_whitespace()).output().unwrap())
    };
    let json = run("--json").json();
    assert_eq!(json["gpu_providers"], false);
    assert_eq!(json["absent_folders"], serde_json::json!(["/nonexistent/lib"]));
    let names: Vec<&str> =
        json["libraries"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("libcudart.so.")), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("libcudnn.so.")), "{names:?}");
    let looked: Vec<String> = serde_json::from_value(json["folders"].clone()).unwrap();
    assert!(looked.contains(&empty.path().display().to_string()), "{looked:?}");
    let text = run("").ok();
    for part in [
        "which `tallow runtime install --gpu` installs, would need:",
        "looked where the loader does, ",
        "TALLOW_CUDA_LIBRARIES names /nonexistent/lib, which is no folder",
        "training      candle on the CPU",
    ] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
    // What it trains with is what the version says.
    let version = typed(shared(), "--version").ok();
    let features: Vec<String> = serde_json::from_value(json["training"]["features"].clone()).unwrap();
    let expected = if features.is_empty() { String::new() } else { format!(" ({})", features.join(", ")) };
    assert_eq!(version, format!("tallow {}{expected}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn engines_on_a_gpu_have_short_names() {
    for (name, engine) in [("cuda", "ort-cuda"), ("tensorrt", "ort-tensorrt")] {
        let run = without_ort(&format!("{PREDICT} --engine {name}"));
        run.fails(1, &[&format!("engine {engine} is not available")]);
    }
}

#[test]
fn an_option_that_does_not_fit_the_engine_is_wrong_usage() {
    for (line, part) in [
        (&*format!("{PREDICT} --engine tract --tf32"), "engine tract does not take the option tf32"),
        (
            &format!("{PREDICT} --engine ort --cuda-device 0"),
            "engine ort does not take the option cuda-device",
        ),
        (&format!("{PREDICT} --engine tract --io-binding on"), "does not take the option io-binding"),
        (&format!("{PREDICT} --engine ort-cuda --cuda-graph --io-binding off"), "fixed addresses"),
        (&format!("{PREDICT} --engine ort-cuda --trt-fp16"), "it is for --engine ort-tensorrt"),
        (&format!("{PREDICT} --cuda-memory 0"), "--cuda-memory"),
        (&format!("{PREDICT} --conv-search best"), "choose one of exhaustive, heuristic, default"),
        ("eval run --cuda-graph", "name its .onnx file, or an --engine"),
        ("bench run --engine tract --nhwc --seconds 0", "does not take the option nhwc"),
        ("bench --train plain_cnn --tf32", "training is measured on candle"),
        ("verify run --cuda-device 1", "add ort-cuda or ort-tensorrt to --engine"),
        ("verify run --engine ort-tensorrt --tf32", "NVIDIA_TF32_OVERRIDE"),
        ("verify run --engine auto", "name engines"),
        ("runtime info --tf32", "name a file for it with --model"),
        ("runtime info --model run/model.onnx --engine tract", "providers are ONNX Runtime's"),
    ] {
        typed(shared(), line).fails(2, &[part]);
    }
}

#[test]
fn the_library_for_gpus_is_preferred_where_it_is_installed() {
    let cache = tempfile::tempdir().unwrap();
    let outcome = || {
        let mut command = command(shared());
        for variable in ["TALLOW_ONNXRUNTIME", "ORT_DYLIB_PATH"] {
            command.env_remove(variable);
        }
        command.env("XDG_CACHE_HOME", cache.path()).args(["runtime", "info", "--json"]);
        let json = Run::from(command.output().unwrap()).json();
        let steps = json["search"]["steps"].as_array().unwrap().clone();
        ["the GPU cache", "the cache"].map(|place| {
            let step = steps.iter().find(|step| step["place"] == place).unwrap();
            step["outcome"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(outcome(), ["not set", "does not exist"]);
    let folder = cache.path().join("tallow/onnxruntime-gpu-1.31.1");
    std::fs::create_dir_all(&folder).unwrap();
    let name = format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    std::fs::write(folder.join(name), "no library").unwrap();
    assert_eq!(outcome(), ["found", "not looked at"]);
    let mut again = command(shared());
    again.env("XDG_CACHE_HOME", cache.path()).args(["runtime", "install", "--gpu"]);
    let said = Run::from(again.output().unwrap()).ok();
    assert!(said.contains("is already there: ") && said.contains("--engine ort-cuda"), "{said}");
}

#[test]
fn tensorrt_is_an_error_that_names_the_missing_file() {
    let info = typed(shared(), "runtime info --json").json();
    let Some(missing) = info["tensorrt_missing"].as_str() else { return };
    for line in [
        &format!("{PREDICT} --engine ort-tensorrt"),
        "runtime info --engine ort-tensorrt",
        "verify run --engine ort-tensorrt,tract",
    ] {
        typed(shared(), line).fails(1, &["engine ort-tensorrt is not available", missing]);
    }
}

#[test]
fn bound_runs_are_measured_and_nodes_counted() {
    if !ort_is_there("bound_runs_are_measured_and_nodes_counted") {
        return;
    }
    let measured = |switch: &str| {
        let line = format!("bench run --engine ort --batch 2 --seconds 0 --json --io-binding {switch}");
        typed(shared(), &line).json()[0]["io_binding"].clone()
    };
    assert_eq!((measured("on"), measured("off")), (true.into(), false.into()));
    let table = typed(shared(), "bench run --engine ort --batch 2 --seconds 0 --io-binding on").ok();
    assert!(table.contains("ort (bound)"), "{table}");
    typed(shared(), "verify run --io-binding on").ok();
    let json = typed(shared(), "runtime info --model run --engine ort --json").json();
    assert!(json["placement"]["providers"]["CPUExecutionProvider"]["Gemm"].is_number(), "{json:#}");
    let text = typed(shared(), "runtime info --model run/model.onnx --engine ort").ok();
    for part in ["NVIDIA driver", "ort-tensorrt", "CPUExecutionProvider", " nodes: "] {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
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
