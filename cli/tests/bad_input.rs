//! The binary as a person uses it wrongly: one clear line, the right exit code, nothing overwritten, no panic.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod tool;

use std::path::Path;

use tool::{Tool, photos};

#[test]
fn wrong_usage_exits_with_2_and_names_the_remedy() {
    let t = Tool::new();
    for (args, parts) in [
        (&["train"][..], &["--data"][..]),
        (&["train", "--data", "digits", "--epochs", "0"], &["epochs = 0", "at least 1"]),
        (&["train", "--data", "digits", "--batch-size", "0"], &["batch_size"]),
        (&["train", "--data", "digits", "--model", "resnet19"], &["did you mean", "resnet18"]),
        (&["train", "--data", "digits", "--learning-rate=-1"], &["learning_rate = -1"]),
        (&["summary", "resnet51"], &["did you mean"]),
        (&["predict", "m.onnx", "a.png", "--engine", "cuda"], &["engine"]),
        (&["nonsense"], &["nonsense"]),
    ] {
        t.fails(args, 2, parts);
    }
}

#[test]
fn data_that_cannot_be_used_is_named() {
    let t = Tool::new();
    let train = |data: &str, parts: &[&str]| {
        t.fails(&["train", "--data", data, "--model", "plain_cnn", "--size", "8", "--run", "r"], 1, parts);
        assert!(!t.path("r").exists(), "nothing is left of a run that never began");
    };
    train("nowhere", &["no such folder", "nowhere"]);
    std::fs::create_dir_all(t.path("none")).unwrap();
    train("none", &["none", "<class>"]);
    photos(&t.path("one/train"), &["cat"], 3);
    train("one", &["only one class", "cat"]);
    photos(&t.path("gap/train"), &["cat", "dog"], 3);
    std::fs::create_dir_all(t.path("gap/train/empty")).unwrap();
    train("gap", &["no images", "empty"]);
    photos(&t.path("differ/train"), &["cat", "dog"], 3);
    photos(&t.path("differ/validation"), &["cat", "cow"], 2);
    train("differ", &["dog", "cow"]);
}

#[test]
fn broken_images_are_left_out_of_training_and_counted() {
    let t = Tool::new();
    photos(&t.path("data/train"), &["cat", "dog"], 12);
    let whole = std::fs::read(t.path("data/train/cat/0.jpg")).unwrap();
    std::fs::write(t.path("data/train/cat/cut.jpg"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(t.path("data/train/dog/text.png"), "not an image").unwrap();
    let train = ["train", "--data", "data", "--model", "plain_cnn", "--size", "8", "--epochs", "1"];
    let out = t.succeeds(&[&train[..], &["--batch-size", "8", "--run", "r"]].concat());
    for part in ["2 images could not be used", "cut.jpg", "text.png"] {
        assert!(out.contains(part), "{out}");
    }
    let strict = [&train[..], &["--strict", "--run", "s"]].concat();
    t.fails(&strict, 1, &[".jpg|.png"]);
}

#[test]
fn an_image_too_small_for_the_network_names_the_layer() {
    let t = Tool::new();
    let args = ["train", "--data", "digits", "--model", "plain_cnn", "--size", "2", "--run", "r"];
    t.fails(&args, 2, &["plain_cnn", "2×2"]);
}

#[test]
fn settings_files_are_checked_key_by_key() {
    let t = Tool::new();
    std::fs::write(t.path("a.toml"), "data = \"digits\"\nepoch = 3\n").unwrap();
    t.fails(&["train", "--config", "a.toml"], 2, &["a.toml", "epoch"]);
    std::fs::write(t.path("b.toml"), "data = \"digits\"\nepochs = \"many\"\n").unwrap();
    t.fails(&["train", "--config", "b.toml"], 2, &["b.toml", "epochs|many"]);
    t.fails(&["train", "--config", "c.toml"], 1, &["c.toml"]);
}

#[test]
fn runs_and_models_that_are_damaged_or_in_the_way_are_named() {
    let t = Tool::new();
    t.train("r");
    t.fails(
        &["train", "--data", "digits", "--model", "plain_cnn", "--run", "r"],
        1,
        &["r holds a run", "--resume"],
    );
    t.succeeds(&["export", "r"]);
    let written = std::fs::read(t.path("r/model.onnx")).unwrap();
    t.fails(&["export", "r"], 1, &["model.onnx", "--force"]);
    assert!(std::fs::read(t.path("r/model.onnx")).unwrap() == written);
    t.fails(&["export", "r", "--opset", "30", "-o", "x.onnx"], 2, &["30", "21"]);
    t.fails(&["export", "r", "-o", "no/such/x.onnx"], 1, &["no/such"]);
    t.fails(&["export", "nothing"], 1, &["nothing"]);
    let wrong =
        ["--model", "resnet20", "--weights", "r/checkpoints/last/weights.safetensors", "-o", "x.onnx"];
    t.fails(&[&["export"][..], &wrong].concat(), 1, &["resnet20", "missing"]);

    for file in ["weights.safetensors", "optimizer.safetensors", "state.json"] {
        let path = t.path("r/checkpoints/last").join(file);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        t.fails(&["train", "--resume", "r", "--epochs", "2"], 1, &["checkpoints/last"]);
        std::fs::write(&path, &bytes).unwrap();
    }

    std::fs::write(t.path("cut.onnx"), &written[..written.len() / 2]).unwrap();
    std::fs::write(t.path("empty.onnx"), "").unwrap();
    for model in ["cut.onnx", "empty.onnx", "missing.onnx"] {
        t.fails(&["predict", model, "r/curves.png", "--engine", "tract"], 1, &[model]);
        t.fails(&["verify", model], 1, &[model]);
    }
}

#[test]
fn one_bad_image_does_not_keep_the_others_from_being_labelled() {
    let t = Tool::new();
    t.train("r");
    t.succeeds(&["export", "r"]);
    std::fs::write(t.path("bad.jpg"), "not an image").unwrap();
    let args = ["predict", "r", "bad.jpg", "r/curves.png", "--engine", "tract", "-k", "2"];
    let out = t.fails(&args, 1, &["bad.jpg"]);
    assert_eq!(out.lines().filter(|line| line.contains('%')).count(), 2, "{out}");
}

#[test]
fn engines_that_are_missing_are_errors_or_said() {
    let t = Tool::new();
    t.train("r");
    t.succeeds(&["export", "r"]);
    let nowhere = [("TALLOW_ONNXRUNTIME", "/nonexistent")];
    let predict = |engine: &str| t.run_with(&["predict", "r", "r/curves.png", "--engine", engine], &nowhere);
    let (code, _, errors) = predict("ort");
    assert!(
        code == Some(1) && errors.contains("/nonexistent") && errors.contains("runtime install"),
        "{errors}"
    );
    let (code, _, errors) = predict("ort-cuda");
    assert!(code == Some(1) && errors.contains("ort-cuda"), "{errors}");
    let (code, out, errors) = predict("auto");
    assert!(code == Some(0) && errors.contains("tract") && errors.contains("ort not taken"), "{errors}");
    assert!(out.contains('%'));
}

#[test]
fn a_full_disk_keeps_the_older_checkpoint() {
    // A limit on the size of a file stands in for a disk without room.
    let t = Tool::new();
    t.train("r");
    let before = std::fs::read(t.path("r/checkpoints/last/weights.safetensors")).unwrap();
    let command = "trap '' XFSZ; ulimit -f 200; exec \"$0\" train --resume r --epochs 2";
    let out = std::process::Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_tallow")])
        .current_dir(t.folder())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{errors}");
    assert!(errors.contains("checkpoint") && !errors.contains("panicked"), "{errors}");
    assert!(std::fs::read(t.path("r/checkpoints/last/weights.safetensors")).unwrap() == before);
    assert!(Path::new(&t.path("r/checkpoints/last/state.json")).is_file());
    t.succeeds(&["train", "--resume", "r", "--epochs", "2"]);
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_layer() {
    let t = Tool::new();
    let args =
        ["train", "--data", "digits", "--model", "plain_cnn", "--size", "8", "--learning-rate", "1e30"];
    t.fails(&[&args[..], &["--warmup", "0", "--run", "r"]].concat(), 1, &["no longer a finite number", "`"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let t = Tool::new();
    let command = "\"$0\" summary resnet152 | head -n 1; exit 0";
    let out = std::process::Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_tallow")])
        .current_dir(t.folder())
        .output()
        .unwrap();
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}
