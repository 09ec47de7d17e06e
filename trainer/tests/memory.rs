//! The memory that a training pass takes, against what is said of it in advance: the tensors are counted where GPUs are
//! emulated, because there they are the host's.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};
use tallow_builder::exec::Keep;
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Shape};
use tallow_builder::{Graph, GraphBuilder, Network, Rng, Weights};
use tallow_cuda::emulator::emulated;
use tallow_models::Options;
use tallow_trainer::compute::ComputeConfig;
use tallow_trainer::config::InputConfig;
use tallow_trainer::progress::Progress;
use tallow_trainer::tensorboard::TensorboardConfig;
use tallow_trainer::{Config, Trainer};

/// Counts the bytes that are allocated.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is the system's; only sizes are noted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Lets one test at a time go on, for what all threads allocate is counted.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes at the peak of what `body` does, beyond those before it.
fn measured(body: impl FnOnce()) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    body();
    PEAK.load(Ordering::Relaxed) - before
}

/// Bytes at the peak of a pass over so many images, beyond those before it.
fn peak(network: &Network, images: usize, keep: Keep) -> usize {
    let shape = network.graph().input_shape().with_batch(images);
    let images = Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let classes = network.graph().output_shape().elements();
    let upstream = Tensor::ones((images.dim(0).unwrap(), classes), images.dtype(), &Device::Cpu).unwrap();
    let pass = || {
        let tape = network.record_keeping(&images, &mut Rng::new(1), &|_| false, keep, None).unwrap();
        tape.backward(network, &upstream, |_| true).unwrap();
    };
    measured(|| emulated(pass))
}

/// Blocks of EfficientNet's kind, all of one size.
fn gated(blocks: usize) -> Graph {
    let mut g = GraphBuilder::new("gated", Shape::map(8, 24, 24));
    let mut x = g.input();
    for block in 0..blocks {
        let name = |layer: &str| format!("{block}.{layer}");
        let y = g.conv2d(&name("expand"), x, ConvSpec::new(32, 1)).unwrap();
        let y = g.batch_norm(&name("bn1"), y, BatchNorm::default()).unwrap();
        let y = g.activation(&name("silu1"), y, Activation::Silu).unwrap();
        let y = g.conv2d(&name("depthwise"), y, ConvSpec::new(32, 3).padding(1).groups(32)).unwrap();
        let y = g.batch_norm(&name("bn2"), y, BatchNorm::default()).unwrap();
        let y = g.activation(&name("silu2"), y, Activation::Silu).unwrap();
        let s = g.global_avg_pool(&name("squeeze"), y).unwrap();
        let s = g.conv2d(&name("excite"), s, ConvSpec::new(32, 1).bias()).unwrap();
        let s = g.activation(&name("gate"), s, Activation::SIGMOID).unwrap();
        let y = g.scale(&name("scale"), y, s).unwrap();
        let y = g.conv2d(&name("project"), y, ConvSpec::new(8, 1)).unwrap();
        let y = g.batch_norm(&name("bn3"), y, BatchNorm::default()).unwrap();
        x = g.sum(&name("add"), y, x).unwrap();
    }
    let x = g.global_avg_pool("pool", x).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(8, 0.3)).unwrap();
    g.finish(x).unwrap()
}

#[test]
fn a_pass_takes_the_memory_that_is_said() {
    let _alone = alone();
    let resnet = tallow_models::build("resnet20", &Options::new(10, 32)).unwrap();
    for (graph, images) in [(resnet, 16), (gated(6), 16)] {
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        let network = Network::new(graph, weights);
        let name = network.graph().name();
        for keep in [Keep::Needed, Keep::Checkpoints] {
            // Kernels are compiled in the first.
            peak(&network, 1, keep);
            let found = peak(&network, images, keep) as f64;
            let said = (Network::training_bytes(network.graph(), keep, 4) * images) as f64;
            println!("{name} {keep:?}: {found:.2e} bytes, {:.2} times what is said", found / said);
            // Gradients of parameters come on top, and what the CPU's convolutions, which stand in for cuDNN's, copy.
            assert!((0.95..1.3).contains(&(found / said)), "{name} {keep:?}: {found} instead of {said}");
        }
    }
}

#[test]
fn a_step_that_is_looked_at_takes_no_more_memory_than_others() {
    let _alone = alone();
    let peak = |looked_at: bool| {
        let config = Config {
            model: "resnet20".into(),
            data: "digits".into(),
            batch_size: 64,
            workers: 1,
            input: InputConfig { size: Some(16), ..InputConfig::default() },
            // Histograms alone: pictures are the host's.
            tensorboard: TensorboardConfig {
                enabled: looked_at,
                picture_epochs: 0,
                ..TensorboardConfig::default()
            },
            compute: ComputeConfig { checkpoint_activations: true, ..ComputeConfig::default() },
            ..Config::default()
        };
        let folder = tempfile::tempdir().unwrap();
        emulated(|| {
            let mut trainer = Trainer::create(&folder.path().join("run"), config).unwrap();
            // The first step of the epoch, which is the one to be looked at, and no more.
            measured(|| drop(trainer.train(&mut Progress::hidden(), &AtomicBool::new(true)).unwrap()))
        })
    };
    peak(false); // The emulation's threads are made in the first.
    let (others, looked_at) = (peak(false), peak(true));
    println!("{others:.2e} bytes, looked at {looked_at:.2e}");
    // A pass that kept everything would take twice as much.
    assert!((looked_at as f64) < 1.2 * others as f64, "{looked_at} bytes instead of {others}");
}
