//! `tallow import`, and the exports whose weights it reads back.

use std::fs;

use crate::support::{copy, cut, shared, typed};

const MODEL: &str = "--model plain_cnn --classes 3 --size 8";
const TRAINED: &str = "--model plain_cnn --size 8";

#[test]
fn weights_come_back_unchanged_from_every_export() {
    let folder = copy();
    let at = folder.path();
    typed(at, "export run --format tf-checkpoint").ok();
    let wanted = fs::read(at.join("run/checkpoints/best/weights.safetensors")).unwrap();
    for (i, source) in ["run/saved_model", "run/tf_checkpoint"].iter().enumerate() {
        let json = typed(at, &format!("import {source} {MODEL} -o {i}.safetensors --json")).json();
        assert_eq!(json["network"], "plain_cnn");
        // TensorFlow has no counter of a batch norm's batches: the files are equal in length and in all else.
        let got = fs::read(at.join(format!("{i}.safetensors"))).unwrap();
        assert_eq!(got.len(), wanted.len(), "{source}");
        typed(at, &format!("export {MODEL} --weights {i}.safetensors -o {i}.onnx")).ok();
        typed(at, &format!("verify {i}.onnx --from run")).ok();
    }
    let out = typed(at, "import run/saved_model -o plain.safetensors").ok();
    assert!(out.contains("plain.safetensors  plain_cnn with"), "{out}");
    typed(at, "import run/saved_model -o plain.safetensors").fails(1, &["plain.safetensors", "--force"]);
    typed(at, &format!("export {MODEL} --weights run/tf_checkpoint -o direct.onnx")).ok();
    assert!(fs::read(at.join("direct.onnx")).unwrap().len() > 1000);
}

#[test]
fn what_does_not_fit_is_said_and_nothing_is_written() {
    let folder = copy();
    let at = folder.path();
    typed(at, "import run/saved_model --model resnet20 -o new.safetensors").fails(
        1,
        &[
            "does not fit network `resnet20`",
            "105 missing: bn1/beta",
            "wrong shape: fc/kernel (needs [64, 3], has [128, 3])",
        ],
    );
    typed(at, "import nowhere.pth --model resnet18 -o new.safetensors")
        .fails(1, &["nowhere.pth does not exist"]);
    typed(at, "import data --model resnet18 -o new.safetensors")
        .fails(1, &["data", "neither a checkpoint nor a SavedModel"]);
    typed(at, "import run -o new.safetensors")
        .fails(1, &["run is a run", "run/checkpoints/best/weights.safetensors"]);
    typed(at, "import data/train/red/0.png -o new.safetensors").fails(2, &["--model"]);
    typed(at, &format!("import data/train/red/0.png {MODEL} -o new.safetensors"))
        .fails(1, &["0.png", "no file of weights that is known here"]);
    typed(at, "import run/saved_model --key ema -o new.safetensors").fails(2, &["leave --key out"]);
    typed(at, "import run/saved_model -o data --force").fails(1, &["data: is no regular file"]);
    typed(at, "import run/saved_model -o no/such.safetensors").fails(1, &["no does not exist", "create it"]);
    cut(&at.join("run/saved_model/1/variables/variables.data-00000-of-00001"));
    typed(at, "import run/saved_model -o new.safetensors")
        .fails(1, &["variables.data-00000-of-00001", "damaged at byte", "cut short"]);
    cut(&at.join("run/saved_model/1/variables/variables.index"));
    typed(at, "import run/saved_model -o new.safetensors").fails(1, &["variables.index", "cut short"]);
    assert!(!at.join("new.safetensors").exists());
}

#[test]
fn flags_that_a_format_has_no_use_for_are_refused() {
    let at = shared();
    for (flags, parts) in [
        ("--fold -o x.onnx", "--no-fold"),
        ("--model-version 2 -o x.onnx", "saved-model"),
        ("--model-version 1 -o x.onnx", "saved-model"),
        ("--format saved-model --softmax -o x", "logits, probabilities and classes in any case"),
        ("--format saved-model --fold --no-fold -o x", "--no-fold"),
        ("--format saved-model --model-version 9223372036854775808 -o x", "0..=9223372036854775807"),
        ("--format tf-checkpoint --opset 17 -o x", "a checkpoint holds the weights"),
        ("--format tf-checkpoint --softmax -o x", "a checkpoint holds the weights"),
        ("--format tf-checkpoint --fold -o x", "a checkpoint holds the weights"),
    ] {
        typed(at, &format!("export run {flags}")).fails(2, &[parts]);
    }
}

#[test]
fn a_saved_model_does_not_go_where_a_file_or_a_version_is() {
    let folder = copy();
    let at = folder.path();
    let export = |to: &str| typed(at, &format!("export run --format saved-model --force -o {to}"));
    export("run/labels.txt").fails(1, &["labels.txt: is a file"]);
    for to in ["run/saved_model/1", "new/1"] {
        let above = to.trim_end_matches("/1");
        export(to).fails(1, &[to, &format!("name the model's folder, {above}, and --model-version 1")]);
    }
    fs::rename(at.join("run/saved_model/1"), at.join("run/saved_model/final")).unwrap();
    export("run/saved_model/final").fails(1, &["is a version of a SavedModel", "name the folder above"]);
    assert!(!at.join("new").exists() && !at.join("run/saved_model/final/1").exists());
}

#[test]
fn every_part_of_a_saved_model_and_of_a_checkpoint_leads_to_its_weights() {
    let folder = copy();
    let at = folder.path();
    typed(at, "export run --format tf-checkpoint").ok();
    for part in ["", "/1", "/1/variables", "/1/variables/variables", "/1/saved_model.pb"] {
        typed(at, &format!("import run/saved_model{part} {MODEL} --force -o w.safetensors")).ok();
    }
    for part in ["", "/1", "/1/variables", "/1/saved_model.pb"] {
        typed(at, &format!("import run/saved_model{part} --force -o w.safetensors")).ok();
    }
    let prefix = fs::read_dir(at.join("run/tf_checkpoint")).unwrap().map(|entry| entry.unwrap().path());
    let prefix =
        prefix.filter_map(|path| Some(path.to_str()?.strip_suffix(".index")?.to_owned())).next().unwrap();
    for part in ["", ".index", ".meta", ".data-00000-of-00001"] {
        typed(at, &format!("import {prefix}{part} {MODEL} --force -o w.safetensors")).ok();
    }
    fs::remove_dir_all(at.join("run/saved_model/1/variables")).unwrap();
    typed(at, "import run/saved_model -o new.safetensors").fails(1, &["copy its variables/ folder too"]);
    fs::remove_file(format!("{prefix}.index")).unwrap();
    for (part, what) in [(".meta", "graph of a checkpoint"), (".data-00000-of-00001", "data of a checkpoint")]
    {
        typed(at, &format!("import {prefix}{part} {MODEL} -o new.safetensors"))
            .fails(1, &[part, what, ".index"]);
    }
    typed(at, &format!("import run/model.onnx {MODEL} -o new.safetensors"))
        .fails(1, &["model.onnx", "ONNX model"]);
    assert!(!at.join("new.safetensors").exists());
}

#[test]
fn folded_weights_are_no_weights_of_the_network() {
    let folder = copy();
    let at = folder.path();
    typed(at, "export run --format saved-model -o folded --fold").ok();
    for model in ["", MODEL] {
        typed(at, &format!("import folded {model} -o new.safetensors"))
            .fails(1, &["folded/1/variables", "batch normalisation is folded", "without --fold"]);
    }
    typed(at, "export folded -o folded.onnx").ok();
    assert!(!at.join("new.safetensors").exists());
}

#[test]
fn training_says_what_is_wrong_with_the_weights_it_is_to_start_from() {
    let folder = copy();
    std::fs::write(folder.path().join("w.pth"), b"PK\x03\x04 and more than eight bytes").unwrap();
    typed(folder.path(), &format!("train {TRAINED} --data data --weights w.pth --run new"))
        .fails(1, &["w.pth", "damaged or cut short"]);
}

#[test]
fn versions_of_a_model_stand_beside_each_other() {
    let folder = copy();
    let at = folder.path();
    typed(at, "export run --format saved-model --model-version 2 --fold").ok();
    typed(at, "verify run/saved_model").ok();
    typed(at, "verify run/saved_model/1").ok();
    typed(at, "eval run/saved_model --data data").ok();
    let names = fs::read_dir(at.join("run/saved_model")).unwrap().count();
    assert_eq!(names, 2);
}
