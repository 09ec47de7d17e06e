//! Fine-tuning, whole runs: what is frozen stays as it is to the bit, rates and accumulated gradients are what their
//! formulas say, and all of it resumes to the bit.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{Device, Tensor};
use tallow_builder::Weights;
use tallow_trainer::checkpoint::Checkpoint;
use tallow_trainer::config::InputConfig;
use tallow_trainer::fine_tune::{FineTune, RateFactor};
use tallow_trainer::optim::{Decay, OptimizerKind};
use tallow_trainer::recipe::ADAMW;
use tallow_trainer::schedule::{RateDecay, Schedule};
use tallow_trainer::{Config, NewRun, Trainer};

use support::{contents, finish, train_until};

fn config(epochs: u64, fine_tune: FineTune) -> Config {
    Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        epochs,
        batch_size: 128,
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        ema: Some(Decay { decay: 0.9, warm_up: true }),
        optimizer: Some(ADAMW),
        schedule: Schedule { learning_rate: Some(0.003), ..Schedule::default() },
        fine_tune,
        ..Config::default()
    }
}

/// One step an epoch, of plain gradient descent, so that a step is the rate times the gradient.
fn descent(fine_tune: FineTune) -> Config {
    Config {
        batch_size: 1400,
        ema: None,
        optimizer: Some(OptimizerKind::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }),
        schedule: Schedule { learning_rate: Some(1.0), warmup_epochs: 0.0, decay: RateDecay::Constant },
        ..config(1, fine_tune)
    }
}

fn frozen(patterns: &[&str]) -> FineTune {
    FineTune { freeze: patterns.iter().map(|&pattern| pattern.into()).collect(), ..FineTune::default() }
}

/// The weights that a run begins with.
fn start(config: &Config) -> Weights {
    let new = NewRun::prepare(config.clone()).unwrap();
    Weights::init(new.graph(), config.seed, &Device::Cpu).unwrap()
}

/// The newest weights of a run, and their average.
fn end(run: &Path) -> [Weights; 2] {
    let graph = tallow_trainer::RunDir::open(run).unwrap().graph().unwrap();
    let last = Checkpoint::read(&run.join("checkpoints/last"), &graph, &Device::Cpu).unwrap();
    [last.weights.clone(), last.ema.unwrap_or(last.weights)]
}

fn bits(tensor: &Tensor) -> String {
    // Counters print whole; weights print as their bits.
    match tensor.flatten_all().unwrap().to_vec1::<f32>() {
        Ok(values) => values.iter().map(|value| format!("{:08x}", value.to_bits())).collect(),
        Err(_) => tensor.to_string(),
    }
}

/// Names of the tensors that are no longer the same to the bit.
fn moved(before: &Weights, after: &Weights) -> BTreeSet<String> {
    let pairs = before.iter().zip(after.iter());
    pairs.filter(|((_, a), (_, b))| bits(a) != bits(b)).map(|((name, _), _)| name.to_owned()).collect()
}

#[test]
fn what_is_frozen_stays_as_it_is_to_the_bit_with_its_moments_and_its_average() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config(2, frozen(&["stage[12]", "fc.bias"]));
    let before = start(&settings);
    let run = folder.path().join("run");
    finish(&mut Trainer::create(&run, settings).unwrap());
    for after in end(&run) {
        let moved = moved(&before, &after);
        let expected: BTreeSet<String> = before
            .iter()
            .map(|(name, _)| name.to_owned())
            .filter(|name| name.starts_with("stage3.") || name == "fc.weight")
            .collect();
        assert_eq!(moved, expected);
    }
}

#[test]
fn frozen_moments_stay_and_everything_else_learns() {
    let folder = tempfile::tempdir().unwrap();
    let settings = config(1, FineTune { freeze_batch_norm: true, ..FineTune::default() });
    let before = start(&settings);
    let run = folder.path().join("run");
    finish(&mut Trainer::create(&run, settings).unwrap());
    for after in end(&run) {
        let moved = moved(&before, &after);
        assert!(moved.iter().all(|name| !name.contains("running") && !name.contains("tracked")), "{moved:?}");
        assert!(moved.contains("stage1.0.bn.weight") && moved.contains("stage1.0.conv.weight"));
    }
}

#[test]
fn the_head_learns_first_and_stages_follow_from_the_top() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let settings = config(4, FineTune { head_epochs: 2, unfreeze_every: 1, ..FineTune::default() });
    let mut before = start(&settings);
    finish(&mut Trainer::create(&run, Config { epochs: 1, ..settings }).unwrap());
    for (epoch, stages) in [
        (1, vec!["fc."]),
        (2, vec!["fc."]),
        (3, vec!["fc.", "stage3."]),
        (4, vec!["fc.", "stage2.", "stage3."]),
    ] {
        if epoch > 1 {
            finish(&mut Trainer::resume(&run, Some(epoch)).unwrap());
        }
        let [after, _] = end(&run);
        let moved = moved(&before, &after);
        for (name, _) in before.iter() {
            let expected = stages.iter().any(|stage| name.starts_with(stage));
            assert_eq!(moved.contains(name), expected, "{name} in epoch {epoch}");
        }
        before = after;
    }
}

#[test]
fn a_step_is_the_rate_times_the_layer_decay_times_its_pattern_s_multiplier() {
    let folder = tempfile::tempdir().unwrap();
    let step = |name: &str, fine_tune: FineTune| {
        let settings = descent(fine_tune);
        let before = start(&settings);
        let run = folder.path().join(name);
        finish(&mut Trainer::create(&run, settings).unwrap());
        let [after, _] = end(&run);
        move |name: &str| -> Vec<f32> {
            let moved = (after.get(name) - before.get(name)).unwrap();
            moved.flatten_all().unwrap().to_vec1().unwrap()
        }
    };
    let whole = step("whole", FineTune::default());
    let factored = step(
        "factored",
        FineTune {
            layer_decay: Some(0.5),
            rates: vec![RateFactor { pattern: "stage2.*".into(), multiplier: 0.25 }],
            ..FineTune::default()
        },
    );
    for (name, factor) in [
        ("fc.weight", 1.0),
        ("stage3.0.conv.weight", 0.5),
        ("stage2.1.bn.bias", 0.25 * 0.25),
        ("stage2.0.conv.weight", 0.25 * 0.25),
        ("stage1.0.conv.weight", 0.125),
    ] {
        let (whole, factored) = (whole(name), factored(name));
        let largest = whole.iter().fold(0f32, |a, b| a.max(b.abs()));
        assert!(largest > 1e-6, "{name} did not move");
        for (a, b) in whole.iter().zip(&factored) {
            // A difference of two weights keeps what f32 has of them.
            assert!((a * factor - b).abs() < 1e-6 + 1e-4 * largest, "{name}: {a} × {factor} is not {b}");
        }
    }
}

/// With fixed moments an image's gradient does not depend on the others in its batch.
#[test]
fn four_batches_a_step_give_the_gradient_of_one_four_times_as_large() {
    let folder = tempfile::tempdir().unwrap();
    let fixed = FineTune { freeze_batch_norm: true, ..FineTune::default() };
    let run = |name: &str, batch_size, accumulate| {
        let path = folder.path().join(name);
        let rate = Schedule { learning_rate: Some(0.05), ..descent(fixed.clone()).schedule };
        let settings = Config { batch_size, accumulate, schedule: rate, epochs: 3, ..descent(fixed.clone()) };
        finish(&mut Trainer::create(&path, settings).unwrap());
        let state = std::fs::read_to_string(path.join("checkpoints/last/state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        (end(&path), state["steps"].as_u64().unwrap())
    };
    let ([one, _], steps) = run("one", 1400, 1);
    let ([four, _], same_steps) = run("four", 350, 4);
    assert_eq!((steps, same_steps), (3, 3));
    for ((name, a), (_, b)) in one.iter().zip(four.iter()).filter(|((_, a), _)| a.rank() > 0) {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (a, b) in values(a).iter().zip(&values(b)) {
            assert!((a - b).abs() < 2e-5 * (1.0 + a.abs()), "{name}: {a} and {b}");
        }
    }
    // Of four batches, the last step of an epoch has one.
    assert_eq!(run("rest", 350, 3).1, 2 * 3);
}

#[test]
fn a_run_that_uses_all_of_it_resumes_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || Config {
        dropout: Some(0.2),
        batch_size: 64,
        accumulate: 4,
        // Which does not look at the run's length, because the parts have another.
        schedule: Schedule { learning_rate: Some(0.003), warmup_epochs: 0.5, decay: RateDecay::Constant },
        ..config(
            4,
            FineTune {
                freeze: vec!["stage1.0".into()],
                layer_decay: Some(0.75),
                head_epochs: 1,
                unfreeze_every: 1,
                rates: vec![RateFactor { pattern: "*.bias".into(), multiplier: 2.0 }],
                ..FineTune::default()
            },
        )
    };
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    finish(&mut Trainer::create(&whole, settings()).unwrap());
    // 22 batches an epoch: five steps of four, and one of two.
    train_until(&mut Trainer::create(&parts, settings()).unwrap(), 1);
    let state = std::fs::read_to_string(parts.join("checkpoints/last/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!((&state["batch"], &state["steps"]), (&4.into(), &1.into()), "a stop waits for the step's end");
    train_until(&mut Trainer::resume(&parts, None).unwrap(), 5);
    // An epoch is ended, the next begun, with another stage.
    let mut trainer = Trainer::resume(&parts, Some(2)).unwrap();
    finish(&mut trainer);
    drop(trainer);
    train_until(&mut Trainer::resume(&parts, Some(4)).unwrap(), 2);
    finish(&mut Trainer::resume(&parts, None).unwrap());
    for ((name, whole), (other, parts)) in contents(&whole).iter().zip(&contents(&parts)) {
        assert_eq!(name, other);
        assert!(whole == parts, "{name} differs after resuming");
    }
}
