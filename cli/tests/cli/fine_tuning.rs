//! `tallow train --weights …`: what starts a run, what is said about it, and what is refused.

use std::path::Path;

use candle_core::Device;
use tallow_builder::Weights;
use tallow_models::{Options, build};

use crate::support::{CLASSES, QUICK, copy, images, shared, typed, workplace};

/// `data/` without one of its classes, so that a head for three does not fit.
fn without_a_class(folder: &Path) {
    for part in ["train", "validation"] {
        std::fs::remove_dir_all(folder.join("data").join(part).join(CLASSES[0])).unwrap();
    }
}

#[test]
fn a_run_of_other_classes_is_a_start_and_is_not_needed_to_go_on() {
    let folder = copy();
    let at = folder.path();
    without_a_class(at);
    for start in ["run", "run/saved_model"] {
        let name = format!("from-{}", start.len());
        let line =
            format!("train --data data --weights {start} --epochs 1 --batch-size 8 --workers 1 --run {name}");
        let run = typed(at, &line);
        let said = format!("weights of plain_cnn from {start}; head drawn anew: 3 → 2 classes");
        assert!(run.err.contains(&said), "{}", run.err);
        run.ok();
        let config = std::fs::read_to_string(at.join(&name).join("config.toml")).unwrap();
        for line in [
            "model = \"plain_cnn\"",
            "size = 8",
            "kind = \"adamw\"",
            "layer_decay = 0.75",
            "learning_rate = 0.001",
        ] {
            assert!(config.lines().any(|found| found == line), "{line} in {config}");
        }
        assert!(config.contains(&format!("/{start}\"")), "{config}");
    }
    std::fs::remove_dir_all(at.join("run")).unwrap();
    typed(at, "train --resume from-3 --epochs 2").ok();
    // The same number of classes keeps the head.
    let run = typed(at, &format!("{QUICK} --data data --weights from-3"));
    assert!(run.err.contains("head kept: 2 classes"), "{}", run.err);
    run.ok();
    // As many classes of other names do not.
    for part in ["train", "validation"] {
        let part = at.join("data").join(part);
        std::fs::rename(part.join(CLASSES[1]), part.join("another")).unwrap();
    }
    let run = typed(at, &format!("{QUICK} --data data --weights from-3 --run renamed"));
    assert!(run.err.contains("head drawn anew: its 2 classes have other names"), "{}", run.err);
    run.ok();
    let line = format!("{QUICK} --data data --weights from-3 --run never --classes");
    typed(at, &format!("{line} 5")).fails(2, &["has 2 classes, and --classes says 5"]);
    typed(at, &format!("{line} 2")).ok();
}

#[test]
fn what_is_trained_from_when_on_is_told() {
    let folder = copy();
    let line = format!("{QUICK} --data data --weights run --head-epochs 3 --run slow");
    let run = typed(folder.path(), &line);
    let lines: Vec<&str> = run.err.lines().filter(|line| line.contains("trained: ")).collect();
    assert_eq!(lines.len(), 1, "{}", run.err);
    assert!(lines[0].starts_with("trained: ") && lines[0].contains("from epoch 1, of "), "{}", run.err);
    assert!(
        run.err.contains("note: the run ends before") && run.err.contains("--epochs 4 or more"),
        "{}",
        run.err
    );
    run.ok();
}

#[test]
fn a_start_changes_nothing_but_the_head() {
    let folder = copy();
    let at = folder.path();
    without_a_class(at);
    // Frozen, and at a rate of which nothing is left, the network stays what it came as.
    typed(at, &format!("{QUICK} --data data --weights run --freeze stage* --lr 1e-30 --run from")).ok();
    let tensors = |run: &str, checkpoint: &str| {
        let file = at.join(run).join("checkpoints").join(checkpoint).join("weights.safetensors");
        tallow_builder::weights::read_safetensors(&file, &Device::Cpu).unwrap()
    };
    let (before, after) = (tensors("run", "best"), tensors("from", "last"));
    for (name, tensor) in &before {
        assert_eq!(name.starts_with("fc."), after[name].to_string() != tensor.to_string(), "{name}");
    }
}

/// As the hub has them, with a preprocessing that no other weights have.
fn described(folder: &Path) {
    let weights = folder.join("weights");
    std::fs::create_dir(&weights).unwrap();
    let config = serde_json::json!({
        "architecture": "tf_efficientnet_lite0",
        "num_classes": 3,
        "pretrained_cfg": {
            "input_size": [3, 64, 64], "interpolation": "nearest", "crop_pct": 0.5,
            "mean": [0.25, 0.5, 0.75], "std": [0.5, 0.25, 0.125],
        },
    });
    std::fs::write(weights.join("config.json"), config.to_string()).unwrap();
    let graph = build("timm/tf_efficientnet_lite0", &Options::new(3, 64)).unwrap();
    Weights::init(&graph, 5, &Device::Cpu).unwrap().save(&weights.join("model.safetensors")).unwrap();
}

#[test]
fn size_and_preprocessing_come_with_the_weights_unless_they_are_said() {
    let folder = workplace();
    let at = folder.path();
    described(at);
    let text = typed(at, "train --data data --weights weights --print-config").ok();
    let has = |text: &str, line: &str| {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {text}");
    };
    for line in [
        "model = \"timm/tf_efficientnet_lite0\" ",
        "size = 64 ",
        "mean = [0.25, 0.5, 0.75] ",
        "std = [0.5, 0.25, 0.125] ",
        "interpolation = \"nearest\" ",
        "crop_fraction = 0.5 ",
    ] {
        has(&text, line);
    }
    std::fs::write(at.join("s.toml"), "weights = \"weights\"\n[input]\ncrop_fraction = 1.0\n").unwrap();
    let text = typed(at, "train --data data --config s.toml --size 48x32 --print-config").ok();
    for line in ["width = 32 ", "height = 48 ", "crop_fraction = 1.0 ", "mean = [0.25, 0.5, 0.75] "] {
        has(&text, line);
    }
}

#[test]
fn each_family_has_a_recipe_of_its_own() {
    let at = shared();
    for (model, lines) in [
        ("efficientnet_lite0", ["kind = \"rmsprop\" ", "learning_rate = 0.004 ", "layer_decay = 1.0 "]),
        ("resnet20", ["kind = \"sgd\" ", "learning_rate = 0.05 ", "layer_decay = 1.0 "]),
        ("plain_cnn --weights run", ["kind = \"adamw\" ", "learning_rate = 0.001 ", "layer_decay = 0.75 "]),
        (
            "plain_cnn --weights run --optimizer sgd --layer-decay 0.9",
            ["kind = \"sgd\" ", "learning_rate = 0.01 ", "layer_decay = 0.9 "],
        ),
        (
            "efficientnet_b0 --accumulate 4 --momentum 0.8",
            ["kind = \"rmsprop\" ", "learning_rate = 0.016 ", "momentum = 0.8 "],
        ),
    ] {
        let text = typed(at, &format!("train --data data --model {model} --print-config")).ok();
        for line in lines {
            assert!(text.lines().any(|found| found.starts_with(line)), "{model}: {line} in {text}");
        }
    }
}

#[test]
fn what_cannot_be_meant_is_one_clear_line() {
    let at = shared();
    let train = |flags: &str| typed(at, &format!("{QUICK} --data data --run never {flags}"));
    train("--freeze layer1*").fails(2, &["freeze `layer1*` fits no layer", "near are", "stage1"]);
    train("--freeze stage1 --freeze *").fails(2, &["freeze = stage1, *: leaves nothing to train"]);
    train("--freeze fc --head-epochs 1")
        .fails(2, &["freeze = fc: leaves nothing to train in the first epoch"]);
    train("--layer-decay 0").fails(2, &["layer_decay = 0: choose a number above 0"]);
    train("--accumulate 0").fails(2, &["accumulate = 0: choose at least 1"]);
    train("--fold 6/5").fails(2, &["6/5", "K from 1 to N"]);
    train("--fold 1/5").fails(2, &["--fold 1/5 has no effect", "validation images of its own"]);
    train("--fold 1/5 --validation-share 0.1").fails(2, &["--fold", "--validation-share"]);
    typed(at, "train --data data --weights run --model resnet20")
        .fails(2, &["run: is of plain_cnn, not resnet20"]);
    let file = "run/checkpoints/best/weights.safetensors";
    typed(at, &format!("train --data data --weights {file}")).fails(2, &[file, "say with --model"]);
    typed(at, &format!("train --data data --weights {file} --model resnet20 --run never"))
        .fails(1, &["its weights are plain_cnn's: pass --model plain_cnn ("]);
    typed(at, "train --data data --weights gone.pth --model resnet20 --run never").fails(1, &["gone.pth"]);
    assert!(!at.join("never").exists());
}

#[test]
fn folds_hold_out_other_images_and_a_run_keeps_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    images(&at.join("data"), false);
    for fold in ["1/4", "4/4"] {
        let name = fold.replace('/', "of");
        let run = typed(at, &format!("{QUICK} --data data --fold {fold} --run {name}"));
        assert!(run.err.contains("18 images to train on, 6 to validate"), "{}", run.err);
        run.ok();
        let config = std::fs::read_to_string(at.join(&name).join("config.toml")).unwrap();
        assert!(config.contains(&format!("fold = \"{fold}\"")), "{config}");
        typed(at, &format!("train --resume {name} --epochs 3")).ok();
    }
    let data = |name: &str| std::fs::read(at.join(name).join("data.json")).unwrap();
    assert!(data("1of4") != data("4of4"));
}

#[test]
fn a_step_that_is_longer_than_an_epoch_is_told() {
    let folder = workplace();
    let train = |run: &str, accumulate: usize| {
        let line = format!("{QUICK} --data data --run {run} --grad-accum {accumulate}");
        let ended = typed(folder.path(), &line);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        ended.err.contains("note: --grad-accum 4 takes more batches into a step than an epoch has (3)")
    };
    assert!(train("more", 4));
    assert!(!train("as_many", 3));
}
