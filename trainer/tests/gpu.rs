//! Training by the kernels for GPUs, on the host where there is none: the CPU's course within rounding, in every precision,
//! and to the bit after an interruption.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

#[allow(dead_code)] // Each test of whole runs needs some of it.
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use tallow_builder::weights::read_safetensors;
use tallow_cuda::DeviceSpec;
use tallow_cuda::emulator::emulated;
use tallow_cuda::testing;
use tallow_trainer::augment::{Augment, Mix};
use tallow_trainer::compute::{ComputeConfig, Precision};
use tallow_trainer::config::InputConfig;
use tallow_trainer::network::NetworkConfig;
use tallow_trainer::optim::Decay;
use tallow_trainer::schedule::{RateDecay, Schedule};
use tallow_trainer::{Config, Trainer};

use support::{contents, train_until};

const BATCHES: usize = 5;

fn config(compute: ComputeConfig) -> Config {
    Config {
        model: "plain_cnn".into(),
        data: "digits".into(),
        batch_size: 12,
        accumulate: 1,
        dropout: Some(0.2),
        clip_norm: Some(1.0),
        input: InputConfig { size: Some(8), ..InputConfig::default() },
        network: NetworkConfig { widen: 0.25, ..NetworkConfig::default() },
        schedule: Schedule {
            learning_rate: Some(0.02),
            warmup_epochs: 0.0,
            decay: RateDecay::Cosine { floor: 0.0 },
        },
        ema: Some(Decay { decay: 0.9, warm_up: true }),
        compute,
        ..Config::default()
    }
}

/// On the CPU, or where it is emulated.
fn compute(precision: Precision) -> ComputeConfig {
    ComputeConfig { device: DeviceSpec::Cpu, precision, ..ComputeConfig::default() }
}

/// Trains by the kernels for GPUs: emulated, and on a GPU where there is one.
fn on_gpus(config: impl Fn(ComputeConfig) -> Config, precision: Precision) -> Vec<State> {
    let mut found = vec![];
    // bf16 takes a matrix product that candle's CPU back end, which stands in for cuBLAS, has not.
    if precision != Precision::Bf16 {
        found.push(emulated(|| train(config(compute(precision)))));
    }
    if testing::gpu("training").is_some() {
        let on_gpu = ComputeConfig { device: DeviceSpec::Cuda(0), ..compute(precision) };
        found.push(train(config(on_gpu)));
    }
    found
}

/// The last checkpoint's tensors of a file, by name.
fn tensors(run: &Path, file: &str) -> BTreeMap<String, Tensor> {
    read_safetensors(&run.join("checkpoints/last").join(file), &Device::Cpu).unwrap()
}

/// The state of a run after some batches: loss and top-1, weights, average.
struct State {
    loss: f64,
    top1: f64,
    start: BTreeMap<String, Tensor>,
    weights: BTreeMap<String, Tensor>,
    average: BTreeMap<String, Tensor>,
}

fn train(config: Config) -> State {
    // Whether a GPU may round to TF32 is the process's: trainings there come one after the other.
    static ALONE: Mutex<()> = Mutex::new(());
    let on_gpu = config.compute.device != DeviceSpec::Cpu;
    let _alone = on_gpu.then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut trainer = Trainer::create(&run, config).unwrap();
    let on_host = |tensor: &Tensor| tensor.to_device(&Device::Cpu).unwrap();
    let start = trainer.network().weights().iter().map(|(name, tensor)| (name.to_owned(), on_host(tensor)));
    let start = start.collect();
    train_until(&mut trainer, BATCHES);
    let state = std::fs::read_to_string(run.join("checkpoints/last/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let number = |name: &str| state["running"][name].as_f64().unwrap();
    assert_eq!(number("samples"), (12 * BATCHES) as f64);
    State {
        loss: number("loss") / number("samples"),
        top1: number("top1"),
        start,
        weights: tensors(&run, "weights.safetensors"),
        average: tensors(&run, "ema.safetensors"),
    }
}

/// How far two sets of tensors are apart, as a share of how far the second is from a third: norms over all of them.
fn difference(
    a: &BTreeMap<String, Tensor>,
    b: &BTreeMap<String, Tensor>,
    start: &BTreeMap<String, Tensor>,
) -> f64 {
    assert!(a.keys().eq(b.keys()) && b.keys().eq(start.keys()));
    let distance = |a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>| -> f64 {
        let square = |(a, b): (&Tensor, &Tensor)| {
            let [a, b] = [a, b].map(|t| t.to_dtype(DType::F64).unwrap());
            (a - b).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let floats = a.values().zip(b.values()).filter(|(a, _)| a.dtype() == DType::F32);
        floats.map(square).sum::<f64>().sqrt()
    };
    distance(a, b) / distance(b, start)
}

#[test]
fn a_gpu_takes_the_cpus_course_in_every_precision() {
    let cpu = train(config(compute(Precision::F32)));
    let tolerances = [
        (Precision::F32, 1e-5, 1e-3),
        (Precision::Tf32, 1e-2, 5e-2),
        (Precision::F16, 1e-2, 5e-2),
        (Precision::Bf16, 8e-2, 4e-1),
    ];
    let runs = tolerances.into_iter().flat_map(|(precision, loss, weights)| {
        on_gpus(config, precision).into_iter().map(move |gpu| (precision, loss, weights, gpu))
    });
    for (precision, loss, weights, gpu) in runs {
        assert!((gpu.loss - cpu.loss).abs() < loss * cpu.loss, "{precision}: {} {}", gpu.loss, cpu.loss);
        // A value that rounding moves over the edge of a ReLU changes a gradient by its own size.
        let found = difference(&gpu.weights, &cpu.weights, &cpu.start);
        assert!(found < weights, "{precision}: weights differ by {found:.1e}");
        let found = difference(&gpu.average, &cpu.average, &cpu.start);
        assert!(found < weights, "{precision}: averages differ by {found:.1e}");
        if precision == Precision::F32 {
            assert_eq!(gpu.top1, cpu.top1);
        }
    }
}

#[test]
fn what_a_gpu_does_to_images_takes_the_cpus_course() {
    // Left to itself, a run mirrors no digits.
    let augment = Some(Augment { pad_and_crop: Some(2), ..Augment::cifar() });
    for mix in [None, Some(Mix { mixup: 0.4, cutmix: 1.0, ..Mix::default() })] {
        let config = |compute| Config { augment, mix, ..config(compute) };
        let cpu = train(config(compute(Precision::F32)));
        for gpu in on_gpus(config, Precision::F32) {
            assert!((gpu.loss - cpu.loss).abs() < 1e-5 * cpu.loss, "{} {}", gpu.loss, cpu.loss);
            assert_eq!(gpu.top1, cpu.top1);
            let found = difference(&gpu.weights, &cpu.weights, &cpu.start);
            assert!(found < 1e-3, "weights differ by {found:.1e}");
        }
    }
}

#[test]
fn a_run_on_a_gpu_goes_on_to_the_bit_and_keeps_its_loss_scale() {
    emulated(|| {
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        train_until(&mut Trainer::create(&whole, config(compute(Precision::F16))).unwrap(), BATCHES);
        train_until(&mut Trainer::create(&parts, config(compute(Precision::F16))).unwrap(), 2);
        train_until(&mut Trainer::resume(&parts, None).unwrap(), BATCHES - 2);
        assert!(contents(&parts) == contents(&whole));
        let scale = tensors(&parts, "optimizer.safetensors")["loss_scale"].to_vec1::<f32>().unwrap();
        assert_eq!(scale[1], BATCHES as f32, "steps since the scale changed");
    });
}

#[test]
fn fewer_kept_activations_give_the_same_bits() {
    let checkpointed = ComputeConfig { checkpoint_activations: true, ..ComputeConfig::default() };
    let (kept, computed) = (train(config(ComputeConfig::default())), train(config(checkpointed)));
    assert_eq!(difference(&kept.weights, &computed.weights, &kept.start), 0.0);
    assert_eq!(kept.loss, computed.loss);
}

#[test]
fn what_a_cpu_cannot_do_is_told_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let error = Trainer::create(&run, config(compute(Precision::Bf16))).err().unwrap().to_string();
    assert!(error.contains("bf16") && error.contains("GPU"), "{error}");
    let mut missing = config(compute(Precision::F32));
    missing.compute.device = DeviceSpec::Cuda(4711);
    let error = Trainer::create(&run, missing).err().unwrap().to_string();
    assert!(error.contains("cuda:4711") && error.contains("--device cpu"), "{error}");
    assert!(!run.exists());
}
