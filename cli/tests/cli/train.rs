//! `tallow train`: from images or settings to a run directory, and on from there.

use std::path::Path;

use image::{DynamicImage, ImageFormat};

use crate::support::{QUICK, content, copy, images, picture, shared, typed, workplace};

#[test]
fn a_folder_of_images_becomes_a_run_directory() {
    let folder = workplace();
    let run = typed(folder.path(), &format!("{QUICK} --data data --run run"));
    assert!(run.err.contains("24 images to train on, 9 to validate, 3 classes"), "{}", run.err);
    assert!(run.err.contains("epoch 2 "), "{}", run.err);
    let out = run.ok();
    assert!(out.contains("next: tallow export run && tallow verify run/model.onnx"), "{out}");
    for file in ["config.toml", "network.json", "labels.txt", "metrics.csv", "curves.png", "confusion.png"] {
        assert!(folder.path().join("run").join(file).is_file(), "{file}");
    }
    for checkpoint in ["best", "last"] {
        assert!(folder.path().join("run/checkpoints").join(checkpoint).join("state.json").is_file());
    }
}

#[test]
fn reports_are_written_as_asked() {
    let folder = workplace();
    let run = typed(folder.path(), &format!("{QUICK} --data data --run quiet --no-tensorboard"));
    assert!(!run.err.contains("gradient flow"), "{}", run.err);
    assert!(!run.ok().contains("tensorboard --logdir"));
    assert!(!folder.path().join("quiet/train").exists());
    let run = typed(folder.path(), &format!("{QUICK} --data data --run told --diagnose --histograms 0"));
    let table = run.err.lines().find(|line| line.starts_with("layer "));
    assert!(table.is_some_and(|line| line.contains("|Δw|/|w|")), "{}", run.err);
    for epoch in 1..=2 {
        assert!(run.err.contains(&format!("epoch {epoch}, gradient flow: ")), "{}", run.err);
    }
    assert!(run.ok().contains("tensorboard --logdir told"));
    for file in ["gradient_flow.png", "gradient_flow.txt"] {
        assert!(folder.path().join("told").join(file).is_file(), "{file}");
    }
    for part in ["", "train", "validation"] {
        let names = std::fs::read_dir(folder.path().join("told").join(part)).unwrap();
        let events = names.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents.")
        });
        assert_eq!(events.count(), 1, "{part}");
    }
    typed(folder.path(), &format!("{QUICK} --data data --no-tensorboard --histograms 2"))
        .fails(2, &["--histograms", "--no-tensorboard"]);
    std::fs::write(folder.path().join("s.toml"), "[tensorboard]\nscalar_steps = 0\n").unwrap();
    typed(folder.path(), "train --config s.toml --data digits")
        .fails(2, &["tensorboard.scalar_steps = 0", "at least 1"]);
}

#[test]
fn a_run_without_a_name_gets_a_free_one() {
    let folder = workplace();
    for name in ["runs/plain_cnn-data", "runs/plain_cnn-data-2"] {
        let json = typed(
            folder.path(),
            &format!("{QUICK} --data data --epochs 1 --json").replace("--epochs 2 ", ""),
        )
        .json();
        assert_eq!(json["run"], name);
        assert_eq!(json["epochs"], 1);
        assert_eq!(json["interrupted"], false);
        assert!(json["best"]["validation"]["top1"].is_number());
    }
}

#[test]
fn every_kind_of_image_is_taken_whatever_its_name() {
    let folder = workplace();
    let odd = folder.path().join("data/train/red");
    let image = DynamicImage::from(picture(2, 3));
    image.save_with_format(odd.join("really_a.png.jpg"), ImageFormat::Png).unwrap();
    image.to_luma8().save(odd.join("grey.png")).unwrap();
    image.to_rgba8().save(odd.join("transparent.png")).unwrap();
    image.to_luma16().save(odd.join("grey16.png")).unwrap();
    image.save(odd.join("UPPER.JPEG")).unwrap();
    let json = typed(folder.path(), &format!("{QUICK} --data data --strict --json")).json();
    assert_eq!(json["skipped"], serde_json::json!([]));
}

#[test]
fn without_a_validation_folder_a_share_is_held_out() {
    let folder = tempfile::tempdir().unwrap();
    images(&folder.path().join("data"), false);
    let run = typed(folder.path(), &format!("{QUICK} --data data --validation-share 0.5"));
    assert!(run.err.contains("12 images to train on, 12 to validate"), "{}", run.err);
    run.ok();
}

#[test]
fn the_printed_settings_train_the_same_network() {
    let folder = workplace();
    let flags =
        "--data data --momentum 0.8 --ema 0.9 --hflip 0.25 --pad-crop 1 --color-jitter 0.1 --schedule step";
    let text = typed(folder.path(), &format!("{QUICK} {flags} --print-config")).ok();
    for line in ["momentum = 0.8 ", "horizontal_flip = 0.25 ", "pad_and_crop = 1 ", "kind = \"step\" "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {text}");
    }
    std::fs::write(folder.path().join("settings.toml"), &text).unwrap();
    typed(folder.path(), "train --config settings.toml --run a").ok();
    typed(folder.path(), &format!("{QUICK} {flags} --run b")).ok();
    let weights =
        |run: &str| std::fs::read(folder.path().join(run).join("checkpoints/last/ema.safetensors")).unwrap();
    assert!(weights("a") == weights("b"));
}

#[test]
fn flags_override_the_settings_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.toml"), "model = \"resnet20\"\nepochs = 3\n[input]\nsize = 16\n")
        .unwrap();
    let text = typed(
        folder.path(),
        "train --config s.toml --data digits --epochs 5 --optimizer adamw --print-config",
    )
    .ok();
    for line in [
        "model = \"resnet20\"",
        "epochs = 5 ",
        "size = 16 ",
        "kind = \"adamw\"",
        "beta2 = 0.999",
        "learning_rate = 0.001 ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} in {text}");
    }
}

#[test]
fn each_optimiser_has_a_rate_of_its_own_unless_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("adamw.toml"), "[optimizer]\nkind = \"adamw\"\n").unwrap();
    std::fs::write(folder.path().join("rate.toml"), "[schedule]\nlearning_rate = 0.3\n").unwrap();
    for (flags, line) in [
        ("--config adamw.toml", "learning_rate = 0.001 "),
        ("--config adamw.toml --optimizer rmsprop", "learning_rate = 0.004 "),
        ("--config rate.toml --optimizer adamw", "learning_rate = 0.3 "),
        ("--config rate.toml --lr 0.2", "learning_rate = 0.2 "),
        ("", "learning_rate = 0.05 "),
        ("--optimizer adamw", "learning_rate = 0.001 "),
        ("--optimizer rmsprop --batch-size 64", "learning_rate = 0.004 "),
        ("--optimizer adamw --lr 0.01", "learning_rate = 0.01 "),
    ] {
        let text = typed(folder.path(), &format!("train --data digits {flags} --print-config")).ok();
        assert!(text.lines().any(|found| found.starts_with(line)), "{flags}: {line} in {text}");
    }
}

#[test]
fn images_need_not_be_square() {
    let folder = workplace();
    let line = format!("{} --data data --size 8x12 --run run", QUICK.replace("--size 8 ", ""));
    assert!(typed(folder.path(), &line).err.contains("3×8×12"));
    typed(folder.path(), "export run").ok();
    typed(folder.path(), "verify run").ok();
}

#[test]
fn a_resumed_run_equals_one_that_never_stopped() {
    let folder = copy();
    let at = folder.path();
    let long = QUICK.replace("--epochs 2", "--epochs 4");
    // The schedule looks at the length of the run, so the short one has a schedule that does not.
    typed(at, &format!("{long} --schedule constant --data data --run whole")).ok();
    typed(at, &format!("{QUICK} --schedule constant --data data --run parts")).ok();
    typed(at, "train --resume parts --epochs 4").ok();
    let weights =
        |run: &str| std::fs::read(at.join(run).join("checkpoints/last/weights.safetensors")).unwrap();
    assert!(weights("whole") == weights("parts"));
    assert!(std::fs::read_to_string(at.join("parts/config.toml")).unwrap().contains("epochs = 4"));
}

#[test]
fn a_finished_run_says_how_to_go_on() {
    let folder = copy();
    let before = content(&folder.path().join("run/checkpoints"));
    let run = typed(folder.path(), "train --resume run");
    assert!(run.err.contains("tallow train --resume run --epochs 4"), "{}", run.err);
    run.ok();
    assert!(content(&folder.path().join("run/checkpoints")) == before);
}

#[test]
fn weights_of_another_run_are_a_start() {
    let weights = "run/checkpoints/best/weights.safetensors";
    let folder = copy();
    typed(folder.path(), &format!("{QUICK} --data data --weights {weights} --run from")).ok();
}

#[test]
fn evaluation_finds_what_training_found() {
    let found = typed(shared(), "eval run --batch-size 8 --json").json();
    assert_eq!(found["engine"], "candle");
    assert_eq!(found["images"], 9);
    assert_eq!(found["classes"].as_array().unwrap().len(), 3);
    let state = std::fs::read_to_string(shared().join("run/checkpoints/best/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(found["top1"], state["best"]["validation"]["top1"]);
    assert_eq!(found["loss"], state["best"]["validation"]["loss"]);

    for model in
        ["run/model.onnx --engine tract", "run --engine tract", "run/saved_model --data data --engine tract"]
    {
        let other = typed(shared(), &format!("eval {model} --json")).json();
        assert_eq!(other["engine"], "tract");
        assert_eq!(other["top1"], found["top1"]);
        let difference = other["loss"].as_f64().unwrap() - found["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-5, "{difference}");
    }
    let table = typed(shared(), "eval run --data data/validation").ok();
    assert!(table.contains("blue sky") && table.contains("on 9 images (candle"), "{table}");
}

#[test]
fn speed_is_measured() {
    let json = typed(shared(), "bench run --engine tract --batch 2 --seconds 0 --json").json();
    assert_eq!(json[0]["engine"], "tract");
    assert_eq!(json[0]["batch"], 2);
    assert!(json[0]["images_per_second"].as_f64().unwrap() > 0.0);
    let json = typed(Path::new("."), "bench --train plain_cnn --size 8 --batch 2 --seconds 0 --json").json();
    assert_eq!(json[0]["engine"], "candle");
}

#[test]
fn a_run_can_be_used_from_any_folder_and_on_data_that_has_moved() {
    let folder = copy();
    let at = folder.path();
    typed(at, &format!("{QUICK} --data data --run here")).ok();
    let elsewhere = tempfile::tempdir().unwrap();
    let run = at.join("here").display().to_string();
    typed(elsewhere.path(), &format!("train --resume {run} --epochs 3")).ok();
    assert_eq!(typed(elsewhere.path(), &format!("eval {run} --json")).json()["images"], 9);
    // What is shipped names the data set, not the machine's folders.
    typed(elsewhere.path(), &format!("export {run}")).ok();
    let model = std::fs::read(at.join("here/model.onnx")).unwrap();
    let path = at.to_str().unwrap().as_bytes();
    assert!(!model.windows(path.len()).any(|bytes| bytes == path));

    std::fs::rename(at.join("data"), at.join("moved")).unwrap();
    typed(at, "train --resume here --epochs 4").fails(1, &["no such folder", "/data", "--data"]);
    typed(at, "train --resume here --epochs 4 --data moved").ok();
    typed(at, "train --resume here --epochs 5").ok();
}

#[test]
fn a_run_goes_on_with_the_same_images_only() {
    let folder = copy();
    let at = folder.path();
    typed(at, &format!("{QUICK} --data data --run here")).ok();
    let before = content(&at.join("here"));
    let image = at.join("data/train/red/0.png");
    std::fs::rename(&image, at.join("0.png")).unwrap();
    typed(at, "train --resume here --epochs 3")
        .fails(1, &["data has changed since here began", "7 of red", "8"]);
    std::fs::rename(at.join("0.png"), at.join("data/train/red/new.png")).unwrap();
    typed(at, "train --resume here --epochs 3").fails(1, &["data has changed", "other files for training"]);
    std::fs::rename(at.join("data/train/red/new.png"), &image).unwrap();
    assert!(content(&at.join("here")) == before);
    // A run from before there was a fingerprint goes on, and has one from then on.
    std::fs::remove_file(at.join("here/data.json")).unwrap();
    typed(at, "train --resume here --epochs 3").ok();
    assert!(at.join("here/data.json").is_file());
}

#[test]
fn settings_that_were_cut_short_are_not_made_up() {
    let folder = copy();
    let at = folder.path();
    let path = at.join("run/config.toml");
    let whole = std::fs::read_to_string(&path).unwrap();
    for end in [whole.find("[schedule]").unwrap(), whole.find("[split]").unwrap(), whole.len() - 1, 20] {
        std::fs::write(&path, &whole[..end]).unwrap();
        let run = typed(at, "train --resume run --epochs 3");
        run.fails(1, &["run/config.toml", if end == 20 { "" } else { "is cut short" }]);
        typed(at, "eval run").fails(1, &["run/config.toml"]);
    }
    // By hand is well.
    std::fs::write(&path, whole.replace("epochs = 2", "epochs = 3")).unwrap();
    assert_eq!(typed(at, "train --resume run --json").json()["epochs"], 3);
}

#[test]
fn a_run_says_how_its_images_are_prepared() {
    let config = std::fs::read_to_string(shared().join("run/config.toml")).unwrap();
    for key in
        ["size = 8", "mean = [", "std = [", "interpolation = ", "crop_fraction = ", "learning_rate = 0.05"]
    {
        assert!(config.lines().any(|line| line.starts_with(key)), "{key} in {config}");
    }
}

#[test]
fn a_missing_newest_checkpoint_is_told() {
    let folder = copy();
    std::fs::remove_dir_all(folder.path().join("run/checkpoints/last")).unwrap();
    let run = typed(folder.path(), "train --resume run --epochs 3");
    assert!(run.err.contains("checkpoints/last) is missing"), "{}", run.err);
    run.ok();
}

#[test]
fn evaluation_takes_what_training_holds_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    images(&at.join("data"), false);
    typed(at, &format!("{QUICK} --data data --run run --validation-share 0.5")).ok();
    typed(at, "export run -o m.onnx").ok();
    assert_eq!(typed(at, "eval run --data data --json").json()["images"], 12);
    let run = typed(at, "eval m.onnx --data data --engine tract --json");
    assert!(run.err.contains("data has no validation folder: evaluating on the 6 images"), "{}", run.err);
    assert_eq!(run.json()["images"], 6);
}
