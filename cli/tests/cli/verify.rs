//! `tallow verify` layer by layer, its noise and its certificates, and `tallow info`, which checks these.

use std::fs;

use crate::support::{Run, command, copy, cut, shared, typed};

/// Changes a few weights; half way through an export some of them count.
fn change(path: &std::path::Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0x40);
    fs::write(path, bytes).unwrap();
}

#[test]
fn layers_are_compared_and_kept() {
    let folder = copy();
    let at = folder.path();
    let out = typed(at, "verify run --layers --noise --keep-tensors tensors").ok();
    assert!(out.contains("layers agree within 1e-5") && out.contains("noise"), "{out}");
    assert!(out.lines().any(|line| line.starts_with("layer ") && line.ends_with("f64")), "{out}");
    assert!(at.join("tensors/index.csv").is_file() && at.join("tensors/f64/batch0").is_dir());
    let refused = typed(at, "verify run --layers --keep-tensors tensors");
    assert_eq!(refused.out, "", "nothing runs before the folder is looked at");
    refused.fails(1, &["tensors: is not empty", "new folder"]);
    let all = typed(at, "verify run --layers --all-layers").ok();
    let json = typed(at, "verify run --layers --json").json();
    let layers = json["layers"]["layers"].as_array().unwrap();
    assert_eq!(json["agrees"], true);
    assert!(json["layers"]["first"].is_null());
    for layer in layers {
        assert!(all.contains(layer["layer"].as_str().unwrap()), "{all}");
    }
    for flags in ["--worst 3", "--all-layers", "--keep-tensors other"] {
        typed(at, &format!("verify run {flags}")).fails(2, &["required arguments"]);
    }
}

#[test]
fn a_layer_that_was_changed_is_named() {
    let folder = copy();
    let at = folder.path();
    let model = at.join("run/model.onnx");
    change(&model, fs::read(&model).unwrap().len() / 2);
    let run = typed(at, "verify run --layers");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.out.contains("Rounding does not explain it"), "{}", run.out);
    assert!(!run.out.contains("--layers"), "{}", run.out);
    let plain = typed(at, "verify run").out;
    assert!(plain.ends_with("With --layers, verify finds the layer that differs.\n"), "{plain}");
    assert!(run.out.contains("It begins in `") && run.out.contains("its input `"), "{}", run.out);
    assert!(run.out.contains("comes into being in this layer"), "{}", run.out);
}

#[test]
fn a_certificate_is_valid_until_a_byte_changes() {
    let folder = copy();
    let at = folder.path();
    let model = at.join("run/model.onnx");
    let before = fs::read(&model).unwrap();
    assert!(typed(at, "info run").ok().contains("certificate   none"));
    let out = typed(at, "verify run --certify").ok();
    assert!(out.contains("Certified: SHA-256"), "{out}");
    let certified = fs::read(&model).unwrap();
    assert!(certified.starts_with(&before));
    typed(at, "verify run/model.onnx --certify").ok();
    assert!(fs::read(&model).unwrap() == certified, "the same run gives the same bytes");

    let info = typed(at, "info run/model.onnx").ok();
    for part in [
        "plain_cnn, trained on data",
        "3: blue sky, green, red",
        "parameters",
        "images [N, 3, 8, 8] float32",
        "logits [N, 3] float32",
        "ai.onnx 17",
        "tallow 0.1.0",
        "metric        validation_top1",
        "certificate   valid",
        "candle (candle 0.11.1): reference",
        "tract (tract 0.23.9): max abs",
    ] {
        assert!(info.contains(part), "`{part}` is missing: {info}");
    }
    let json = typed(at, "info run --json").json();
    assert_eq!(json["certificate"]["status"], "valid");
    assert_eq!(json["card"]["labels"].as_array().unwrap().len(), 3);
    let predict = |says: bool| {
        let run = typed(at, "predict run data/train/red/0.png --engine tract");
        assert_eq!(run.err.contains("run/model.onnx: was changed after it was verified"), says, "{run:#?}");
        run.ok();
    };
    predict(false);

    change(&model, before.len() / 2);
    let run = typed(at, "info run");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.out.contains("ALTERED") && run.out.contains("saving it again"), "{}", run.out);
    predict(true);
    let changed = fs::read(&model).unwrap();
    let run = typed(at, "verify run --certify");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.err.contains("is not certified"), "{}", run.err);
    assert!(fs::read(&model).unwrap() == changed);
}

#[test]
fn without_onnx_runtime_the_certificate_says_so_by_its_engines() {
    let folder = copy();
    let mut command = command(folder.path());
    command.env("TALLOW_ONNXRUNTIME", "/nonexistent").args(["verify", "run", "--certify", "--layers"]);
    let run = Run::from(command.output().unwrap());
    let out = run.ok();
    assert!(out.contains("Not run, so not proved: ort."), "{out}");
    let json = typed(folder.path(), "info run --json").json();
    let engines = json["certificate"]["engines"].as_array().unwrap();
    assert!(engines.len() >= 2 && engines.iter().all(|engine| engine["engine"] != "ort"), "{json:#}");
}

#[test]
fn a_named_engine_that_is_not_there_is_an_error_and_nothing_is_certified() {
    let folder = copy();
    let at = folder.path();
    let model = at.join("run/model.onnx");
    let before = fs::read(&model).unwrap();
    // Providers are looked for beside the library before it is loaded, so an empty one does on any machine.
    let library = at.join("libonnxruntime.so");
    fs::write(&library, "").unwrap();
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let provider = format!("{prefix}onnxruntime_providers_cuda{suffix} is not beside");
    for flags in [
        "--engine ort-cuda",
        "--engine ort-cuda,ort --certify",
        "--engine tract,ort-cuda --certify --json",
        "--engine tract,ort-cuda --certify --layers --keep-tensors tensors",
    ] {
        let mut command = command(at);
        command.env("TALLOW_ONNXRUNTIME", &library).args(["verify", "run/model.onnx"]);
        let run = Run::from(command.args(flags.split_whitespace()).output().unwrap());
        assert_eq!(run.out, "", "nothing runs before the engines are looked at");
        run.fails(1, &["engine ort-cuda is not available", &provider, "tallow runtime install --gpu"]);
        assert!(fs::read(&model).unwrap() == before, "{flags}: the file was changed");
    }
    assert!(!at.join("tensors").exists());
}

/// A protobuf field that holds bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

#[test]
fn info_fails_where_the_weights_lie_in_a_file_that_is_gone() {
    let folder = copy();
    let at = folder.path();
    // A float weight of two numbers in gone.data, in a second piece of the graph: pieces of a message are merged.
    let entry = [field(1, b"location"), field(2, b"gone.data")].concat();
    let weight = [&[0x08, 2, 0x10, 1][..], &field(8, b"w"), &field(13, &entry)].concat();
    let piece = field(7, &field(5, &weight));
    let model = [fs::read(at.join("run/model.onnx")).unwrap(), piece].concat();
    fs::write(at.join("model.onnx"), model).unwrap();
    let run = typed(at, "info model.onnx");
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.out.contains("weights in    gone.data: MISSING"), "{}", run.out);
    fs::write(at.join("gone.data"), [0; 8]).unwrap();
    assert!(!typed(at, "info model.onnx").ok().contains("MISSING"));
}

#[test]
fn what_cannot_be_described_or_compared_is_one_line() {
    let folder = copy();
    let at = folder.path();
    typed(at, "info nowhere.onnx").fails(1, &["nowhere.onnx", "No such file"]);
    typed(at, "info data/train/red/0.png").fails(1, &["data/train/red/0.png", "not an ONNX model"]);
    fs::write(at.join("empty.onnx"), "").unwrap();
    typed(at, "info empty.onnx").fails(1, &["empty.onnx: the file is empty"]);
    typed(at, "info data").fails(1, &["data holds no model.onnx"]);
    typed(at, "verify run --size 9").fails(1, &["[N, 3, 8, 8]", "leave that out"]);
    typed(at, "verify run --size 9x").fails(2, &["--size"]);
    fs::copy(at.join("run/model.onnx"), at.join("alone.onnx")).unwrap();
    typed(at, "verify alone.onnx --noise").fails(1, &["--noise", "none beside alone.onnx", "--from"]);
    typed(at, "verify run --layers --batches 0").fails(2, &["batches"]);
    cut(&at.join("run/model.onnx"));
    for line in ["info run", "verify run --layers", "verify run --certify"] {
        typed(at, line).fails(1, &["run/model.onnx: not a", "ONNX model", "export it again"]);
    }
    typed(shared(), "verify run --layers --keep-tensors run/labels.txt").fails(1, &["run/labels.txt"]);
}

#[test]
fn a_gpu_that_cannot_be_used_is_an_error_before_anything_runs() {
    let folder = copy();
    let at = folder.path();
    let run = typed(at, "verify run --device cuda:4711 --precision f32,bf16");
    assert_eq!(run.out, "");
    run.fails(1, &["cuda:4711", "--device cpu"]);
    typed(at, "verify run --device cpu").fails(2, &["--device cpu", "name a GPU, such as cuda:0"]);
    typed(at, "verify run --device gpu").fails(2, &["'gpu'", "cuda:0"]);
    typed(at, "verify run --precision bf16").fails(2, &["required arguments"]);
    typed(at, "verify run --device cuda:0 --precision fp8").fails(2, &["f32, tf32, f16 or bf16"]);
}
