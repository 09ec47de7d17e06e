//! Ranks as threads of one process, so that their states and what they say to each other can be looked at.

#[path = "../../tests/support/partly_broken.rs"]
mod partly_broken;

use candle_core::{DType, Tensor};

use super::*;
use crate::config::InputConfig;
use crate::distributed::{Calls, DistributedConfig, state_digest};
use crate::optim::Decay;
use crate::schedule::{RateDecay, Schedule};
use crate::tensorboard::TensorboardConfig;
use tallow_builder::Weights;
use tallow_cuda::emulator::{self, emulated};
use tallow_distributed::{Place, free_port};
use tallow_tensorflow::event::{EventReader, is_event_file};

use partly_broken::partly_broken;

/// A run of seconds with moments of its own in each process.
fn config(batch_size: usize) -> Config {
    let decay = RateDecay::Cosine { floor: 0.0 };
    Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        epochs: 1,
        batch_size,
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        schedule: Schedule { learning_rate: Some(0.02), warmup_epochs: 0.0, decay },
        ema: Some(Decay { decay: 0.9, warm_up: true }),
        ..Config::default()
    }
}

/// Begins to train in so many threads, and gives what `body` gives in each; within [`emulated`], with the
/// kernels for GPUs.
fn ranks<R: Send>(config: &Config, world_size: usize, body: impl Fn(Trainer, Calls) -> R + Sync) -> Vec<R> {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let place = |rank| Place {
        rank,
        local_rank: rank,
        world_size,
        local_world_size: world_size,
        master: "127.0.0.1".into(),
        ports: vec![port],
    };
    let begin = |rank| {
        let new = NewRun::prepare_at(config.clone(), Some(&place(rank))).unwrap();
        let weights = Weights::init(new.graph(), 1, &Device::Cpu).unwrap();
        let mut trainer = new.begin(&folder.path().join("run"), weights).unwrap();
        let calls = trainer.parallel.as_mut().map_or_else(Calls::default, DataParallel::watch);
        body(trainer, calls)
    };
    let is_emulated = emulator::is_active();
    let begin = |rank| if is_emulated { emulated(|| begin(rank)) } else { begin(rank) };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || begin(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn digest(trainer: &Trainer) -> Vec<u8> {
    let average = trainer.ema.as_ref().map(Ema::weights);
    state_digest(trainer.network.weights(), average, trainer.optimizer.state()).unwrap()
}

fn finish(trainer: &mut Trainer) {
    trainer.train(&mut Progress::hidden(), &AtomicBool::new(false)).unwrap();
}

/// The running averages of the network and those in the average of its weights.
fn averages(trainer: &Trainer) -> Vec<f32> {
    let buffers = trainer.network.graph().parameters().into_iter().filter(|p| !p.role.is_trainable());
    let names: Vec<String> = buffers.map(|p| p.name).collect();
    let of = |weights: &Weights| -> Vec<f32> {
        let values = |name: &String| trainer.compute.to_host(weights.get(name)).unwrap();
        names.iter().flat_map(values).collect()
    };
    [of(trainer.network.weights()), of(trainer.ema.as_ref().unwrap().weights())].concat()
}

/// Trains one batch, and gives the running averages.
fn after_a_batch(mut trainer: Trainer) -> Vec<f32> {
    trainer.train(&mut Progress::hidden(), &AtomicBool::new(true)).unwrap();
    averages(&trainer)
}

#[test]
fn no_step_sends_moments_and_ranks_are_equal_after_an_epoch() {
    for processes in [2, 3] {
        let found = ranks(&Config { epochs: 2, ..config(64) }, processes, |mut trainer, calls| {
            let start = averages(&trainer);
            finish(&mut trainer);
            assert_ne!(averages(&trainer), start);
            assert!(trainer.position.steps > 10);
            (digest(&trainer), calls.count("broadcast"))
        });
        for (digest, broadcasts) in &found {
            assert_eq!(*digest, found[0].0, "the same state");
            assert_eq!(*broadcasts, 2, "one an epoch");
        }
    }
}

#[test]
fn where_rank_0_has_no_image_it_takes_the_moments_of_the_first_that_has_one() {
    // Two images a batch: of three processes, the second has what is the first's of two.
    let pair = Config {
        distributed: DistributedConfig { world_size: Some(2), ..DistributedConfig::default() },
        ..config(1)
    };
    let three = ranks(&pair, 3, |trainer, calls| (after_a_batch(trainer), calls.count("broadcast")));
    let two = ranks(&pair, 2, |trainer, calls| (after_a_batch(trainer), calls.count("broadcast")));
    for (averages, broadcasts) in &three {
        assert_eq!((averages, *broadcasts), (&two[0].0, 2), "a message more");
    }
    assert_eq!((&two[1].0, two[1].1), (&two[0].0, 1));
}

/// Every other image is none: shares of a batch have two, one or nothing.
fn half_broken(folder: &Path) -> String {
    partly_broken(folder, 24, |number| number % 2 == 1)
}

/// The losses of all steps that a run has written down.
fn losses(run: &Path) -> Vec<f32> {
    let mut files: Vec<_> =
        std::fs::read_dir(run.join("train")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| is_event_file(path));
    let events = files.iter().flat_map(|path| EventReader::open(path).unwrap().map(Result::unwrap));
    let values = events.flat_map(|event| event.summary.into_iter().flat_map(|summary| summary.value));
    let losses = values.filter(|value| value.tag == "step/loss");
    losses.map(|value| f32::from_le_bytes(value.tensor.unwrap().tensor_content.try_into().unwrap())).collect()
}

#[test]
fn the_loss_written_down_is_the_mean_over_all_images_of_a_step_on_a_gpu_too() {
    let data = tempfile::tempdir().unwrap();
    let config = config(2);
    let config = Config {
        data: half_broken(data.path()),
        accumulate: 3,
        schedule: Schedule { learning_rate: Some(1e-4), ..config.schedule },
        tensorboard: TensorboardConfig { scalar_steps: 1, ..TensorboardConfig::default() },
        ..config
    };
    let run = || {
        ranks(&config, 2, |mut trainer, _| {
            train_batches(&mut trainer);
            trainer.recorder.flush().unwrap();
            if trainer.leads() { losses(trainer.run_dir().path()) } else { vec![] }
        })
        .remove(0)
    };
    let (cpu, gpu) = (run(), emulated(run));
    assert!(cpu.len() > 2 && cpu.len() == gpu.len(), "{cpu:?} {gpu:?}");
    for (cpu, gpu) in cpu.iter().zip(&gpu) {
        assert!((cpu - gpu).abs() < 1e-4 * cpu, "{cpu} on a CPU, {gpu} on a GPU");
    }
}

/// Trains the batches of the first epoch, but leaves out its validation.
fn train_batches(trainer: &mut Trainer) {
    while trainer.position.batch < trainer.train.batches() {
        trainer.train(&mut Progress::hidden(), &AtomicBool::new(true)).unwrap();
    }
}

#[test]
fn gradients_are_summed_once_a_step_however_many_batches_it_has() {
    let data = tempfile::tempdir().unwrap();
    let config = Config {
        data: half_broken(data.path()),
        accumulate: 3,
        schedule: Schedule { learning_rate: Some(1e-3), ..config(1).schedule },
        ..config(1)
    };
    let run = |config: &Config, processes| {
        ranks(config, processes, |mut trainer, calls| {
            let usable = trainer.train.epoch(0, 0).unwrap().map(|batch| batch.unwrap().index);
            let usable: Vec<usize> = usable.collect();
            train_batches(&mut trainer);
            let weights = trainer.network.weights().clone();
            (weights, calls.count("all_reduce") as u64, trainer.position.steps, usable)
        })
    };
    let together = Config {
        distributed: DistributedConfig { sync_batch_norm: true, ..DistributedConfig::default() },
        ..config.clone()
    };
    let alone = run(&Config { batch_size: 2, ..config }, 1).remove(0);
    // Some steps end with a batch of which nobody can use an image.
    let lack_their_last = |usable: &[usize]| {
        let is_last = |batch: &&usize| !usable.contains(batch) && **batch % 3 == 2;
        (0..24).collect::<Vec<_>>().iter().filter(is_last).any(|last| usable.contains(&(last - 1)))
    };
    assert!(lack_their_last(&alone.3), "{:?}", alone.3);
    for (weights, sums, steps, _) in run(&together, 2) {
        assert_eq!((sums, steps), (alone.2, alone.2));
        for ((name, found), (_, expected)) in weights.iter().zip(alone.0.iter()) {
            let largest = |tensor: &Tensor| -> f32 {
                tensor.to_dtype(DType::F32).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
            };
            let difference = largest(&(found - expected).unwrap()) / largest(expected).max(1e-6);
            assert!(difference < 1e-4, "{name}: {difference:e}");
        }
    }
}
