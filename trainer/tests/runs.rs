//! Whole runs: they learn, resume to the bit, stop when asked, and explain what went wrong.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tallow_trainer::augment::{Augment, Mix, RandAugment, RandomErasing};
use tallow_trainer::checkpoint::Checkpoint;
use tallow_trainer::config::InputConfig;
use tallow_trainer::optim::{Decay, OptimizerKind};
use tallow_trainer::progress::Progress;
use tallow_trainer::recipe::SGD;
use tallow_trainer::schedule::{RateDecay, Schedule};
use tallow_trainer::{Changes, Config, RunDir, Trainer};

use support::{contents, finish, train_until};

/// A run of seconds that exercises everything random: augmentation, dropout, order.
fn config(epochs: u64) -> Config {
    Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        epochs,
        batch_size: 128,
        dropout: Some(0.2),
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        ema: Some(Decay { decay: 0.9, warm_up: true }),
        ..Config::default()
    }
}

#[test]
fn a_run_interrupted_anywhere_ends_in_the_same_bits_as_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let parts = folder.path().join("parts");
    let outcome = finish(&mut Trainer::create(&whole, config(3)).unwrap());
    assert!(!outcome.interrupted && outcome.epochs == 3);

    let outcome = train_until(&mut Trainer::create(&parts, config(3)).unwrap(), 1);
    assert!(outcome.interrupted && outcome.epochs == 0);
    // A second stop after the fifth batch, then across the end of an epoch.
    train_until(&mut Trainer::resume(&parts, None).unwrap(), 4);
    // The epoch has 11 batches: the sixth stop is the last of them, the others come in the validation.
    assert_eq!(train_until(&mut Trainer::resume(&parts, None).unwrap(), 8).epochs, 0);
    let state = std::fs::read_to_string(parts.join("checkpoints/last/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["epoch"], &state["batch"]), (&0.into(), &11.into()));
    assert!(!finish(&mut Trainer::resume(&parts, None).unwrap()).interrupted);

    for ((name, whole), (other, parts)) in contents(&whole).iter().zip(&contents(&parts)) {
        assert_eq!(name, other);
        assert!(whole == parts, "{name} differs after resuming");
    }
    let rows = |run: &Path| tallow_trainer::metrics::csv::read(&run.join("metrics.csv")).unwrap();
    let columns = |run: &Path| -> Vec<_> {
        rows(run).into_iter().map(|r| (r.epoch, r.step, r.train_loss, r.train_top1, r.validation)).collect()
    };
    assert_eq!(columns(&whole), columns(&parts));
    for picture in ["curves.png", "confusion.png"] {
        assert!(whole.join(picture).is_file(), "{picture}");
    }
}

#[test]
fn a_run_goes_on_in_smaller_batches_with_the_same_images_in_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    train_until(&mut Trainer::create(&run, config(2)).unwrap(), 3);
    let changes = |batch_size, accumulate| Changes { batch_size, accumulate, ..Changes::default() };
    for (batch_size, accumulate) in [(Some(48), None), (None, Some(3)), (Some(64), Some(1)), (Some(0), None)]
    {
        let error = Trainer::resume(&run, changes(batch_size, accumulate)).err().unwrap().to_string();
        assert!(error.contains("128 images") && error.contains("--grad-accum"), "{error}");
    }
    // Three of eleven steps are done, and twelve of the 44 batches that there are now.
    let mut smaller = Trainer::resume(&run, changes(Some(32), None)).unwrap();
    assert_eq!((smaller.config().batch_size, smaller.config().accumulate), (32, 4));
    train_until(&mut smaller, 8);
    let state = || -> serde_json::Value {
        let file = std::fs::read(run.join("checkpoints/last/state.json")).unwrap();
        serde_json::from_slice(&file).unwrap()
    };
    let images = &state()["running"]["samples"];
    assert_eq!((&state()["steps"], &state()["batch"], images), (&11.into(), &44.into(), &(128 * 11).into()));
    drop(smaller);
    // All batches are done, however they are counted: the validation is next.
    let mut larger = Trainer::resume(&run, changes(None, Some(1))).unwrap();
    assert_eq!((larger.config().batch_size, larger.config().accumulate), (128, 1));
    assert!(!finish(&mut larger).interrupted);
    let rows = tallow_trainer::metrics::csv::read(&run.join("metrics.csv")).unwrap();
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [11, 22]);
}

#[test]
fn policies_erasing_repetition_and_mixing_resume_to_the_bit_and_learn() {
    let folder = tempfile::tempdir().unwrap();
    let augment = Augment {
        rand_augment: Some(RandAugment { operations: 1, magnitude: 5, ..RandAugment::default() }),
        random_erasing: Some(RandomErasing { probability: 0.25, ..RandomErasing::default() }),
        repeated_augment: Some(2),
        ..Augment::default()
    };
    let mix = Some(Mix { mixup: 0.2, cutmix: 1.0, ..Mix::default() });
    let config = Config { augment: Some(augment), mix, batch_size: 64, ..config(3) };
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let best = finish(&mut Trainer::create(&whole, config.clone()).unwrap()).best.unwrap();
    assert!(best.validation.top1 > 0.7, "{best:?}");
    // Two epochs' worth of images each, in batches of which some lie in both repetitions of an image.
    let rows = tallow_trainer::metrics::csv::read(&whole.join("metrics.csv")).unwrap();
    assert_eq!(rows[0].step, 2 * 1437 / 64);

    train_until(&mut Trainer::create(&parts, Config { workers: 3, ..config }).unwrap(), 1);
    train_until(&mut Trainer::resume(&parts, None).unwrap(), 4);
    finish(&mut Trainer::resume(&parts, None).unwrap());
    assert!(contents(&whole) == contents(&parts), "the checkpoints differ after resuming");
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, seed| {
        let path = folder.path().join(name);
        finish(&mut Trainer::create(&path, Config { seed, ..config(1) }).unwrap());
        contents(&path)
    };
    let (a, b, c) = (run("a", 1), run("b", 1), run("c", 2));
    assert!(a == b);
    assert!(a != c);
}

#[test]
fn every_optimiser_learns_the_digits() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = |learning_rate| Schedule {
        learning_rate: Some(learning_rate),
        warmup_epochs: 1.0,
        decay: RateDecay::Cosine { floor: 0.0 },
    };
    for (name, optimizer, rate) in [
        ("sgd", SGD, 0.1),
        ("adamw", OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 }, 0.003),
        (
            "rmsprop",
            OptimizerKind::RmsProp { decay: 0.9, momentum: 0.9, eps: 1e-3, weight_decay: 1e-5 },
            0.01,
        ),
    ] {
        let settings = Config {
            optimizer: Some(optimizer),
            schedule: schedule(rate),
            dropout: None,
            ema: None,
            batch_size: 64,
            ..config(8)
        };
        let path = folder.path().join(name);
        let best = finish(&mut Trainer::create(&path, settings).unwrap()).best.unwrap();
        assert!(best.validation.top1 > 0.9, "{name}: {best:?}");
    }
}

#[test]
fn a_loss_that_is_no_number_names_the_layer_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let schedule = Schedule { learning_rate: Some(1e30), warmup_epochs: 0.0, decay: RateDecay::Constant };
    let mut trainer = Trainer::create(&path, Config { schedule, ..config(2) }).unwrap();
    let error = trainer.train(&mut Progress::hidden(), &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("no longer a finite number in epoch 1, batch"), "{error}");
    assert!(
        error.contains("first in the output of layer `") || error.contains("first in the gradient of `"),
        "{error}"
    );
}

/// One step an epoch, so that the validation is the first to see what it did.
#[test]
fn a_validation_loss_that_is_no_number_stops_the_run_and_its_checkpoint_can_be_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let schedule =
        |rate| Schedule { learning_rate: Some(rate), warmup_epochs: 0.0, decay: RateDecay::Constant };
    let settings = |rate| Config { schedule: schedule(rate), batch_size: 1400, ema: None, ..config(2) };
    let run = |trainer: &mut Trainer| trainer.train(&mut Progress::hidden(), &AtomicBool::new(false));
    let first = folder.path().join("first");
    let error = run(&mut Trainer::create(&first, settings(1e30)).unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("the validation loss is no longer a finite number in epoch 1, batch 1"),
        "{error}"
    );
    assert!(
        error.contains("first in the output of layer `") && error.contains("no checkpoint yet"),
        "{error}"
    );
    assert!(Trainer::create(&first, settings(1e-3)).is_ok(), "what came to no checkpoint is begun anew");

    let mut trainer = Trainer::create(&path, Config { epochs: 1, ..settings(1e-3) }).unwrap();
    run(&mut trainer).unwrap();
    drop(trainer);
    let toml = std::fs::read_to_string(path.join("config.toml")).unwrap();
    std::fs::write(path.join("config.toml"), toml.replace("learning_rate = 0.001", "learning_rate = 1e30"))
        .unwrap();
    let before = contents(&path);
    let error = run(&mut Trainer::resume(&path, Some(2)).unwrap()).unwrap_err().to_string();
    assert!(error.contains("validation loss") && error.contains("checkpoint before it is kept"), "{error}");
    assert!(contents(&path) == before);
    std::fs::write(path.join("config.toml"), toml).unwrap();
    assert_eq!(run(&mut Trainer::resume(&path, Some(2)).unwrap()).unwrap().epochs, 2);
}

#[test]
fn a_state_that_no_checkpoint_can_hold_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let schedule = Schedule { learning_rate: Some(1e300), warmup_epochs: 0.0, decay: RateDecay::Constant };
    let mut trainer = Trainer::create(&path, Config { schedule, ..config(2) }).unwrap();
    let error = trainer.train(&mut Progress::hidden(), &AtomicBool::new(true)).unwrap_err().to_string();
    assert!(
        error.contains("the state is no longer a finite number in epoch 1, batch 1, first in `"),
        "{error}"
    );
    assert!(!trainer.run_dir().has_checkpoint());
}

#[test]
fn folders_that_hold_no_run_or_one_already_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let error = Trainer::resume(&path, None).err().unwrap().to_string();
    assert!(error.contains("holds no training run"), "{error}");
    let mut trainer = Trainer::create(&path, config(1)).unwrap();
    let error = Trainer::create(&path, config(1)).err().unwrap().to_string();
    assert!(error.contains("another process trains in it"), "{error}");
    finish(&mut trainer);
    drop(trainer);
    let error = Trainer::create(&path, config(1)).err().unwrap().to_string();
    assert!(error.contains("holds a run"), "{error}");

    // A checkpoint that was cut short is named, and nothing panics.
    let weights = path.join("checkpoints/last/weights.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let error = Trainer::resume(&path, Some(2)).err().unwrap().to_string();
    assert!(error.contains("weights.safetensors"), "{error}");
    // A crash between the two renames of a checkpoint is mended.
    std::fs::write(&weights, &bytes).unwrap();
    std::fs::rename(path.join("checkpoints/last"), path.join("checkpoints/.replaced-last")).unwrap();
    assert_eq!(finish(&mut Trainer::resume(&path, Some(2)).unwrap()).epochs, 2);

    let run = RunDir::open(&path).unwrap();
    let (weights, position) =
        Checkpoint::read_weights(&run.best(), &run.graph().unwrap(), &candle_core::Device::Cpu).unwrap();
    assert!(position.best.is_some() && weights.iter().count() > 0);
}
