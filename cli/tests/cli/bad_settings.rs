//! Flags and settings that make no sense: exit code 2, before any work is done.

use std::fs;
use std::path::Path;

use crate::support::{QUICK, shared, typed, workplace};

#[track_caller]
fn refused(flags: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    typed(folder.path(), &format!("train --data digits {flags}")).fails(2, parts);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was written");
}

#[test]
fn numbers_out_of_range() {
    let small = "--model plain_cnn --size 8";
    for (flags, parts) in [
        ("--batch-size 0", ["batch_size = 0", "at least one"]),
        ("--epochs 0", ["epochs = 0", "at least 1"]),
        ("--learning-rate -1", ["learning_rate = -1", "above 0"]),
        ("--lr nan", ["learning_rate = NaN", "above 0"]),
        ("--momentum 1", ["momentum = 1", "[0, 1)"]),
        ("--weight-decay -0.1", ["weight_decay = -0.1", "choose 0"]),
        ("--label-smoothing 1", ["label_smoothing = 1", "[0, 1)"]),
        ("--clip-norm 0", ["clip_norm = 0", "leave it out"]),
        ("--ema 2", ["ema.decay = 2", "[0, 1)"]),
        ("--hflip 2", ["horizontal_flip = 2", "between 0 and 1"]),
        ("--random-crop 0", ["scale = [0, 1]", "above 0"]),
        ("--color-jitter -1", ["brightness = -1", "at least 0"]),
        ("--mixup -1", ["mixup = -1", "0 for none"]),
        ("--cutmix nan", ["cutmix = NaN", "0 for none"]),
        ("--rand-augment 2", ["--rand-augment", "such as 2,9"]),
        ("--rand-augment 2,31", ["rand_augment.magnitude = 31", "0 to 30"]),
        ("--auto-augment svhn", ["svhn", "--auto-augment"]),
        ("--random-erasing 1.5", ["random_erasing.probability = 1.5", "between 0 and 1"]),
        ("--repeated-augment 0", ["repeated_augment = 0", "1 to 1000"]),
        ("--workers 100000", ["workers = 100000", "at most 512"]),
        ("--validation-share 1", ["1", "between 0 and 1"]),
        ("--validation-share 1.5", ["1.5", "between 0 and 1"]),
        ("--dropout 1", ["dropout", "[0, 1)"]),
        ("--threads 0", ["0", "1..=1024"]),
        ("--optimizer adamw --momentum 0.5", ["--momentum", "beta1"]),
    ] {
        refused(&format!("{small} {flags}"), &parts);
    }
}

#[test]
fn networks_and_sizes_that_there_are_not() {
    refused("--model resnet5", &["no network is called `resnet5`", "did you mean `resnet50`"]);
    refused("--model resnet50 --size 4", &["4×4", "7×7 window", "`conv1`", "larger --size"]);
    refused("--model plain_cnn --size 2", &["2×2 images", "`stage2.pool`", "use a larger image"]);
    refused("--model plain_cnn --size 0", &["--size", "1 to 16384"]);
    refused("--size 8xtall", &["--size", "240x320"]);
    refused("--width 320", &["width factor must be above 0 and at most 16, is 320"]);
}

#[test]
fn settings_files_are_checked_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    for (text, parts) in [
        ("data = \"digits\"\nepochz = 3\n", ["s.toml: line 2", "unknown field `epochz`", "--print-config"]),
        ("epochs = \"three\"\n", ["s.toml: line 1", "invalid type", "--print-config"]),
        ("[optimizer]\nkind = \"adam\"\n", ["s.toml: line 2", "`adamw`", "--print-config"]),
        ("epochs = \n", ["s.toml: line 1", "epochs", ""]),
    ] {
        fs::write(&path, text).unwrap();
        let parts = if text == "epochs = \n" { vec!["s.toml: line 1"] } else { parts.to_vec() };
        typed(folder.path(), "train --config s.toml").fails(2, &parts);
    }
    typed(folder.path(), "train --config nowhere.toml")
        .fails(1, &["cannot read nowhere.toml", "No such file"]);
}

#[test]
fn what_is_missing_or_contradicts_itself() {
    typed(Path::new("."), "train").fails(2, &["--data FOLDER", "--data digits"]);
    typed(shared(), "train --resume run --lr 0.1")
        .fails(2, &["--resume", "only --epochs, --data, --device, --precision, --checkpoint-activations"]);
    typed(shared(), "train --resume run --epochs 1").fails(2, &["epochs = 1", "already longer"]);
    typed(shared(), "train --resume data").fails(1, &["data holds no training run", "config.toml"]);
    typed(shared(), "export").fails(2, &["required"]);
    typed(shared(), "export --model resnet18").fails(2, &["required"]);
    typed(shared(), "predict run data/train/red --top-k 0").fails(2, &["--top-k 0"]);
    typed(shared(), "predict run data/train/red --engine tensorflow").fails(2, &["tensorflow", "ort-cuda"]);
    typed(shared(), "verify run --batches 0").fails(2, &["batches"]);
    typed(shared(), "verify run --tolerance -1").fails(2, &["--tolerance -1"]);
    typed(shared(), "bench run --batch 0").fails(2, &["--batch"]);
    typed(shared(), "bench").fails(2, &["required"]);
    typed(shared(), "frobnicate").fails(2, &["frobnicate"]);
}

#[test]
fn a_divergence_names_the_layer_and_the_remedy() {
    let folder = workplace();
    let parts = [
        "no longer a finite number",
        "epoch 1, batch",
        "layer `",
        "lower the learning rate",
        "no checkpoint yet",
    ];
    typed(folder.path(), &format!("{QUICK} --data data --lr 1e30 --run run")).fails(1, &parts);
    typed(folder.path(), "train --resume run").fails(1, &["run has no checkpoint", "start it anew"]);
    typed(folder.path(), &format!("{QUICK} --data data --run run")).ok();
}
