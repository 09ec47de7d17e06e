//! Files that are damaged, wrong, in the way or impossible to write: one line, and nothing that was there is harmed.

use std::fs;

use crate::support::{QUICK, command, content, copy, cut, shared, typed};

#[test]
fn a_checkpoint_cut_short() {
    for file in ["weights.safetensors", "optimizer.safetensors", "state.json"] {
        let folder = copy();
        let at = folder.path();
        cut(&at.join("run/checkpoints/last").join(file));
        cut(&at.join("run/checkpoints/best").join(file));
        let before = content(&at.join("run"));
        let parts = ["damaged checkpoint", file, "put run/checkpoints/best in its place", "start a new run"];
        typed(at, "train --resume run --epochs 5").fails(1, &parts);
        if file != "optimizer.safetensors" {
            let parts = ["run/checkpoints/best", file, "put run/checkpoints/last in its place"];
            typed(at, "export run -o new.onnx").fails(1, &parts);
            typed(at, "eval run").fails(1, &["run/checkpoints/best", file]);
            assert!(!at.join("new.onnx").exists());
        }
        assert!(content(&at.join("run")) == before, "{file}: the run was changed");
    }
}

#[test]
fn a_checkpoint_that_is_missing() {
    let folder = copy();
    let at = folder.path();
    // As a full disk leaves it after the first best epoch.
    fs::remove_dir_all(at.join("run/checkpoints/last")).unwrap();
    typed(at, "train --resume run --epochs 3").ok();
    fs::remove_file(at.join("run/checkpoints/last/optimizer.safetensors")).unwrap();
    typed(at, "train --resume run --epochs 4").fails(1, &["optimizer.safetensors", "No such file"]);
    fs::remove_dir_all(at.join("run/checkpoints")).unwrap();
    typed(at, "train --resume run").fails(1, &["run has no checkpoint"]);
    typed(at, "export run -o new.onnx").fails(1, &["run has no checkpoint"]);
}

#[test]
fn a_damaged_run_directory() {
    let folder = copy();
    let at = folder.path();
    fs::write(at.join("run/network.json"), "{").unwrap();
    typed(at, "summary run").fails(1, &["run/network.json", "restore it"]);
    typed(at, "train --resume run --epochs 3").fails(1, &["run/network.json"]);
    fs::write(at.join("run/config.toml"), "epochs = ").unwrap();
    typed(at, "train --resume run --epochs 3").fails(1, &["run/config.toml: line 1"]);
    cut(&at.join("run/saved_model/1/assets.extra/model.onnx"));
    let parts = ["run/saved_model/1/assets.extra/model.onnx", "export it again"];
    typed(at, "verify run/saved_model").fails(1, &parts);
    fs::remove_file(at.join("run/model.onnx")).unwrap();
    typed(at, "predict run data/train/red").fails(1, &["run has no model.onnx yet", "tallow export run"]);
}

#[test]
fn weights_of_another_network() {
    let at = shared();
    let weights = "--weights run/checkpoints/best/weights.safetensors";
    let parts = [
        "weights.safetensors does not fit network `resnet18`",
        "missing: conv1.weight",
        "unexpected: stage1",
        "more",
    ];
    typed(at, &format!("export --model resnet18 {weights} -o new.onnx")).fails(1, &parts);
    typed(at, &format!("train --data data --model resnet18 --size 32 {weights} --run new")).fails(1, &parts);
    let parts = ["2 wrong shape: fc.weight (needs [10, 128], has [3, 128])", "fc.bias"];
    typed(at, &format!("export --model plain_cnn {weights} -o new.onnx")).fails(1, &parts);
    typed(at, "export --model plain_cnn --weights data/train/red/0.png -o new.onnx")
        .fails(1, &["data/train/red/0.png", "no file of weights that is known here", "take another copy"]);
    typed(at, "export --model plain_cnn --weights nowhere -o new.onnx")
        .fails(1, &["nowhere does not exist", "name a file"]);
    assert!(!at.join("new.onnx").exists() && !at.join("new").exists());
}

#[test]
fn weights_that_are_not_finite_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let graph = tallow_models::build("plain_cnn", &tallow_models::Options::new(3, 8)).unwrap();
    let mut weights = tallow_builder::Weights::init(&graph, 1, &candle_core::Device::Cpu).unwrap();
    let nan = candle_core::Tensor::new(&[0.0, f32::NAN, f32::INFINITY], &candle_core::Device::Cpu).unwrap();
    weights.set("fc.bias", nan);
    weights.save(&folder.path().join("w.safetensors")).unwrap();
    let line = "--model plain_cnn --classes 3 --size 8 --weights w.safetensors -o new.onnx";
    let parts = ["w.safetensors: `fc.bias` has 2 values that are NaN or infinite", "earlier checkpoint"];
    typed(folder.path(), &format!("export {line}")).fails(1, &parts);
    assert!(!folder.path().join("new.onnx").exists());
}

/// What weights are or are not is told before anybody asks which network they are of.
#[test]
fn weights_where_a_model_is_wanted_and_the_other_way_round() {
    let at = shared();
    let train = "train --data data --run new --weights";
    typed(at, &format!("{train} nofile")).fails(1, &["nofile does not exist", "name a file"]);
    typed(at, &format!("{train} run/model.onnx")).fails(1, &["run/model.onnx", "is an ONNX model"]);
    let weights = "run/checkpoints/best/weights.safetensors";
    typed(at, &format!("{train} {weights}")).fails(2, &["--model"]);
    for weights in [weights, "hf:timm/resnet18.a1_in1k"] {
        typed(at, &format!("predict {weights} data/train/red/0.png"))
            .fails(2, &["names weights", &format!("pass --weights {weights}")]);
        typed(at, &format!("info {weights}"))
            .fails(1, &["names weights", &format!("tallow export --weights {weights}")]);
    }
    assert!(!at.join("new").exists());
}

#[test]
fn nothing_is_overwritten_unless_told() {
    let folder = copy();
    let at = folder.path();
    let before = content(&at.join("run"));
    typed(at, &format!("{QUICK} --data data --run run")).fails(1, &["run holds a run", "--resume", "--run"]);
    typed(at, &format!("{QUICK} --data data --run data")).fails(1, &["data is not empty", "--run"]);
    typed(at, "export run").fails(1, &["run/model.onnx: already exists", "--force"]);
    typed(at, "export run --format saved-model").fails(1, &["run/saved_model/1: already exists", "--force"]);
    typed(at, "export run -o data --force --format saved-model")
        .fails(1, &["data", "something else than versions of a SavedModel"]);
    typed(at, "export run -o data --force").fails(1, &["data: is no regular file", "name a file"]);
    typed(at, "export run -o no/such/folder/m.onnx")
        .fails(1, &["the folder no/such/folder does not exist", "create it"]);
    assert!(content(&at.join("run")) == before);
    typed(at, "export run --force --opset 15").ok();
    assert!(content(&at.join("run")) != before);
}

#[test]
fn a_run_below_a_file() {
    let folder = copy();
    let parts = ["cannot create", "labels.txt/run"];
    typed(folder.path(), &format!("{QUICK} --data data --run run/labels.txt/run")).fails(1, &parts);
}

/// What a full disk does, by a limit on the size of files: a write comes to an end half way.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_room_keeps_the_older_checkpoint() {
    let folder = copy();
    let at = folder.path();
    let before = content(&at.join("run/checkpoints"));
    let limited = |line: &str| -> crate::support::Run {
        let binary = command(at).get_program().to_owned();
        // Without the trap the system would end the process by SIGXFSZ (25). 512 kB is less than the weights take.
        let script = format!("trap '' 25; ulimit -f 1000; exec \"$0\" {line}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).arg(binary).current_dir(at).env("RUST_BACKTRACE", "1");
        shell.output().unwrap().into()
    };
    let parts = ["cannot write the checkpoint run/checkpoints/", "room", "--resume", "is kept"];
    limited("train --resume run --epochs 4").fails(1, &parts);
    assert!(
        content(&at.join("run/checkpoints")) == before,
        "the older checkpoint was harmed, or rubbish is left"
    );
    limited("export run -o new.onnx").fails(1, &["new.onnx", "make room"]);
    limited("export run -o new --format saved-model").fails(1, &["new/1/", "make room"]);
    limited("export run -o new --format tf-checkpoint").fails(1, &["new/model.ckpt-", "make room"]);
    let parts = ["cannot write the checkpoint first/checkpoints/", "room", "there is no earlier one"];
    limited("train --model plain_cnn --size 8 --batch-size 8 --epochs 1 --data data --run first")
        .fails(1, &parts);
    fs::remove_dir_all(at.join("first")).unwrap();
    let left: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    typed(at, "train --resume run --epochs 4").ok();
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written_to() {
    use std::os::unix::fs::PermissionsExt;

    let folder = copy();
    let at = folder.path();
    let closed = at.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
    if fs::write(closed.join("try"), "").is_ok() {
        return; // The super-user may write anywhere.
    }
    typed(at, "export run -o closed/m.onnx").fails(1, &["closed/m.onnx", "ermission denied"]);
    typed(at, &format!("{QUICK} --data data --run closed/run")).fails(1, &["closed/run", "ermission denied"]);
}
