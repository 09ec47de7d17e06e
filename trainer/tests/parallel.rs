//! Training by several processes: as one process would with all their images, the same bits in each, and going on.
//! The processes are this test binary itself, started again for its test `a_rank` alone.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

#[path = "support/partly_broken.rs"]
mod partly_broken;
#[allow(dead_code)] // Each test of whole runs needs some of it.
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device, Tensor};
use tallow_builder::weights::read_safetensors;
use tallow_builder::{Network, Weights};
use tallow_distributed::Place;
use tallow_trainer::augment::EvalTransform;
use tallow_trainer::checkpoint::Checkpoint;
use tallow_trainer::compute::Compute;
use tallow_trainer::config::InputConfig;
use tallow_trainer::data::{Loader, LoaderOptions, Splits};
use tallow_trainer::distributed::DistributedConfig;
use tallow_trainer::evaluate::evaluate;
use tallow_trainer::metrics::csv;
use tallow_trainer::optim::Decay;
use tallow_trainer::progress::{Pass, Progress};
use tallow_trainer::schedule::{RateDecay, Schedule};
use tallow_trainer::{Config, NewRun, RunDir, Trainer};

use partly_broken::partly_broken;
use support::{contents, train_until};

/// What a process is told besides its place: the folder with `config.toml`, in which it trains in `run`.
const FOLDER: &str = "TALLOW_TEST_FOLDER";
/// Batches after which it stops; without, it trains to the end.
const BATCHES: &str = "TALLOW_TEST_BATCHES";
/// The seed of its weights, instead of the run's.
const WEIGHTS: &str = "TALLOW_TEST_WEIGHTS";

/// One process of a training, where the variables say so.
#[test]
fn a_rank() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (folder, number) =
        (Path::new(&folder), |name| Some(std::env::var(name).ok()?.parse::<u64>().unwrap()));
    let place = Place::from_environment().unwrap();
    let (run, rank) = (folder.join("run"), place.as_ref().map_or(0, |place| place.rank));
    let mut trainer = if RunDir::open(&run).is_ok_and(|run| run.has_checkpoint()) {
        Trainer::resume_at(&run, None, place.as_ref()).unwrap_or_else(|error| panic!("{error}"))
    } else {
        let config = Config::read(&folder.join("config.toml")).unwrap();
        let seed = number(WEIGHTS).unwrap_or(config.seed);
        let new = NewRun::prepare_at(config, place.as_ref()).unwrap_or_else(|error| panic!("{error}"));
        let weights = Weights::init(new.graph(), seed, &Device::Cpu).unwrap();
        new.begin(&run, weights).unwrap_or_else(|error| panic!("{error}"))
    };
    match number(BATCHES) {
        Some(batches) => drop(train_until(&mut trainer, batches as usize)),
        None => {
            let outcome = trainer.train(&mut Progress::hidden(), &AtomicBool::new(false));
            let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
            let skipped: Vec<String> = outcome.skipped.into_iter().map(|image| image.origin + "\n").collect();
            std::fs::write(folder.join(format!("skipped{rank}.txt")), skipped.concat()).unwrap();
        }
    }
    trainer.network().weights().save(&folder.join(format!("rank{rank}.safetensors"))).unwrap();
}

/// Starts `a_rank` in as many processes, with more variables for each.
fn start(
    folder: &Path,
    processes: usize,
    variables: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Vec<Child> {
    let port = tallow_distributed::free_port().unwrap();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_rank", "--exact", "--nocapture"]).env(FOLDER, folder).env("TALLOW_TIMEOUT", "60");
        let place = [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", processes)];
        command.envs(place.map(|(name, value)| (name, value.to_string())));
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.envs(variables(rank)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    (0..processes).map(start).collect()
}

fn outputs(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Trains in a folder with so many processes, for so many batches or to the end; gives each rank's weights.
fn train(folder: &Path, processes: usize, batches: Option<usize>) -> Vec<Vec<u8>> {
    let stop = || batches.map(|batches| (BATCHES, batches.to_string())).into_iter().collect();
    for output in outputs(start(folder, processes, |_| stop())) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let file = |rank: usize| std::fs::read(folder.join(format!("rank{rank}.safetensors"))).unwrap();
    (0..processes).map(file).collect()
}

/// A folder with these settings.
fn folder(config: &Config) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), config.to_toml()).unwrap();
    folder
}

/// A run of seconds: batch normalisation, shifted images, a plain schedule. Nothing is drawn process by process.
fn config(batch_size: usize, sync_batch_norm: bool) -> Config {
    Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        epochs: 2,
        batch_size,
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        schedule: Schedule {
            learning_rate: Some(0.05),
            warmup_epochs: 0.0,
            decay: RateDecay::Cosine { floor: 0.0 },
        },
        ema: Some(Decay { decay: 0.9, warm_up: true }),
        distributed: DistributedConfig { sync_batch_norm, bucket_mb: 0.02, world_size: None },
        ..Config::default()
    }
}

fn tensors(folder: &Path, rank: usize) -> BTreeMap<String, Tensor> {
    read_safetensors(&folder.join(format!("rank{rank}.safetensors")), &Device::Cpu).unwrap()
}

/// The largest difference between two networks' weights, each as a share of its tensor's largest value.
fn difference(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) -> f64 {
    assert!(a.keys().eq(b.keys()));
    let values = |t: &Tensor| -> Vec<f64> {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let of = |(a, b): (&Tensor, &Tensor)| {
        let (a, b) = (values(a), values(b));
        let largest = b.iter().fold(f64::MIN_POSITIVE, |most, v| most.max(v.abs()));
        a.iter().zip(&b).fold(0f64, |most, (a, b)| most.max((a - b).abs())) / largest
    };
    a.values().zip(b.values()).map(of).fold(0.0, f64::max)
}

/// Rounding: sums over a batch are made in another order, which costs a few times 2⁻²⁴ of the largest value in each layer,
/// and four steps take it into the weights. 5e-7 was measured; moments of their own make 1e-2.
const ROUNDING: f64 = 1e-5;

#[test]
fn processes_with_synchronised_moments_train_as_one_with_all_their_images() {
    let alone = folder(&config(64, true));
    train(alone.path(), 1, Some(4));
    let alone = tensors(alone.path(), 0);
    // Two with half of each batch, then three that do not have the same number of images.
    for (processes, world_size, synchronised) in [(2, None, true), (3, Some(2), true), (2, None, false)] {
        let mut config = config(32, synchronised);
        config.distributed.world_size = world_size;
        let folder = folder(&config);
        let weights = train(folder.path(), processes, Some(4));
        assert!(weights.iter().all(|other| *other == weights[0]), "ranks differ");
        let found = difference(&tensors(folder.path(), 0), &alone);
        assert_eq!(found < ROUNDING, synchronised, "{processes} processes: {found:e}");
        assert!(synchronised || found > 1e-3, "{found:e}");
    }
}

#[test]
fn images_that_cannot_be_used_weigh_nothing_in_any_process() {
    let data = tempfile::tempdir().unwrap();
    // Which process meets the broken ones depends on the order.
    let images = partly_broken(data.path(), 20, |number| number % 7 == 3);
    let config = Config { data: images, epochs: 1, ..config(4, true) };
    let together = folder(&config);
    let weights = train(together.path(), 2, None);
    assert!(weights[0] == weights[1], "ranks differ");
    let alone = folder(&Config { batch_size: 8, ..config });
    train(alone.path(), 1, None);
    let found = difference(&tensors(together.path(), 0), &tensors(alone.path(), 0));
    assert!(found < ROUNDING, "{found:e}");
    // Every process knows of all of them in the end, and counts each image once.
    let rows = |folder: &Path| csv::read(&folder.join("run/metrics.csv")).unwrap()[0];
    let (together_row, alone_row) = (rows(together.path()), rows(alone.path()));
    assert_eq!((together_row.train_top1, together_row.step), (alone_row.train_top1, alone_row.step));
    let skipped = |folder: &Path, rank: usize| {
        std::fs::read_to_string(folder.join(format!("skipped{rank}.txt"))).unwrap().lines().count()
    };
    assert_eq!([skipped(together.path(), 0), skipped(together.path(), 1)], [skipped(alone.path(), 0); 2]);
    assert!(skipped(alone.path(), 0) > 3);
}

#[test]
fn a_process_without_images_goes_along() {
    // Two images a batch, three processes: rank 0 never has one.
    let mut small = config(1, true);
    small.distributed.world_size = Some(2);
    small.schedule.learning_rate = Some(1e-3);
    let together = folder(&small);
    let weights = train(together.path(), 3, Some(3));
    assert!(weights.iter().all(|other| *other == weights[0]), "ranks differ");
    let alone = folder(&small);
    train(alone.path(), 1, Some(3));
    let found = difference(&tensors(together.path(), 0), &tensors(alone.path(), 0));
    assert!(found < ROUNDING, "{found:e}");
    // With moments of their own, too, if only the ranks agree.
    small.distributed.sync_batch_norm = false;
    let own = folder(&small);
    let weights = train(own.path(), 3, Some(3));
    assert!(weights.iter().all(|other| *other == weights[0]), "ranks differ");
}

#[test]
fn moments_of_their_own_and_dropout_give_the_same_bits_twice_and_after_any_interruption() {
    let config = Config { dropout: Some(0.2), accumulate: 2, ..config(48, false) };
    let (whole, parts) = (folder(&config), folder(&config));
    let weights = train(whole.path(), 2, None);
    assert!(weights[0] == weights[1], "ranks differ");

    // Steps 1, 2 to 5, then across the end of the epoch, then the rest: each time in new processes.
    for batches in [Some(1), Some(4), Some(4), None] {
        let weights = train(parts.path(), 2, batches);
        assert!(weights[0] == weights[1], "ranks differ");
    }
    assert!(contents(&whole.path().join("run")) == contents(&parts.path().join("run")));
    let rows = |folder: &Path| csv::read(&folder.join("run/metrics.csv")).unwrap();
    let columns = |folder: &Path| -> Vec<_> {
        rows(folder).into_iter().map(|r| (r.epoch, r.step, r.train_loss, r.validation)).collect()
    };
    assert_eq!(columns(whole.path()), columns(parts.path()));
    assert!(rows(whole.path()).last().unwrap().validation.unwrap().top1 > 0.5);

    // The counts are those of all validation images, each once.
    let run = RunDir::open(&whole.path().join("run")).unwrap();
    let (weights, position) =
        Checkpoint::read_weights(&run.last(), &run.graph().unwrap(), &Device::Cpu).unwrap();
    let network = Network::new(run.graph().unwrap(), weights);
    let validation = Splits::open("digits", config.split, None, None).unwrap().validation;
    let images = validation.len();
    let transform = Arc::new(EvalTransform::new(config.preprocess().unwrap()).unwrap());
    let loader = Loader::new(validation, transform, LoaderOptions::default()).unwrap();
    let pass = Pass { what: "validate", epoch: 1, epochs: 1, batches: 1, first_batch: 0 };
    let found =
        evaluate(&network, &Compute::cpu(), &loader, &mut Progress::hidden(), pass, &AtomicBool::new(false))
            .unwrap()
            .unwrap();
    let last = rows(whole.path()).last().unwrap().validation.unwrap();
    assert_eq!((found.images, found.validation.top1, found.validation.top5), (images, last.top1, last.top5));
    assert!((found.validation.loss - last.loss).abs() < 1e-6 && position.epoch == 2);
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let config = config(32, true);
    let (two, changed) = (folder(&config), folder(&config));
    train(two.path(), 2, Some(4));
    train(changed.path(), 2, Some(2));
    // Within an epoch, with one process and then with three, batches keep their 64 images.
    train(changed.path(), 1, Some(1));
    train(changed.path(), 3, Some(1));
    let state = |folder: &Path| -> serde_json::Value {
        serde_json::from_str(
            &std::fs::read_to_string(folder.join("run/checkpoints/last/state.json")).unwrap(),
        )
        .unwrap()
    };
    for key in ["epoch", "batch", "steps"] {
        assert_eq!(state(two.path())[key], state(changed.path())[key], "{key}");
    }
    assert_eq!(state(two.path())["running"]["samples"], 4 * 64);
    let found = difference(&tensors(changed.path(), 0), &tensors(two.path(), 0));
    assert!(found < ROUNDING, "{found:e}");
    let text = std::fs::read_to_string(changed.path().join("run/config.toml")).unwrap();
    assert!(
        text.contains("world_size = 2") && text.trim_end().lines().rev().any(|line| line == "[split]"),
        "{text}"
    );
}

#[test]
fn what_differs_between_processes_or_ends_one_ends_all() {
    let plain = folder(&config(32, false));
    let seeds = |rank: usize| vec![(WEIGHTS, rank.to_string()), (BATCHES, "1".into())];
    for output in outputs(start(plain.path(), 2, seeds)) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("rank 1 starts from other weights"), "{text}");
    }

    // A learning rate at which the loss is soon no number, on every rank.
    let mut wild = config(32, false);
    wild.schedule.learning_rate = Some(1e30);
    let wild = folder(&wild);
    for output in outputs(start(wild.path(), 2, |_| vec![])) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("no longer a finite number"), "{text}");
    }

    // One that is killed.
    let killed = folder(&Config { epochs: 1000, ..config(32, false) });
    let mut children = start(killed.path(), 2, |_| vec![]);
    let begun = std::time::Instant::now();
    while !killed.path().join("run/checkpoints/last/state.json").exists() {
        assert!(begun.elapsed().as_secs() < 60, "no epoch within a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    children[1].kill().unwrap();
    let output = outputs(children).remove(0);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("rank 0 lost rank 1"), "{text}");
    assert!(begun.elapsed().as_secs() < 60);
}
