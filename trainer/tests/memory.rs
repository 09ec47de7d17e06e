//! The memory that a training pass takes, against what is said of it in advance: the tensors are counted where GPUs are
//! emulated, because there they are the host's.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor};
use tallow_builder::exec::Keep;
use tallow_builder::{Network, Rng, Weights};
use tallow_cuda::emulator::emulated;
use tallow_models::Options;

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

/// Bytes at the peak of a pass over so many images, beyond those before it.
fn peak(network: &Network, images: usize, keep: Keep) -> usize {
    let shape = network.graph().input_shape().with_batch(images);
    let images = Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let classes = network.graph().output_shape().elements();
    let upstream = Tensor::ones((images.dim(0).unwrap(), classes), images.dtype(), &Device::Cpu).unwrap();
    emulated(|| {
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let tape = network.record_keeping(&images, &mut Rng::new(1), &|_| false, keep, None).unwrap();
        tape.backward(network, &upstream, |_| true).unwrap();
        PEAK.load(Ordering::Relaxed) - before
    })
}

#[test]
fn a_pass_takes_the_memory_that_is_said() {
    for (name, size, images) in [("resnet20", 16, [16, 64]), ("efficientnet_b0", 32, [8, 24])] {
        let graph = tallow_models::build(name, &Options::new(10, size)).unwrap();
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        let network = Network::new(graph, weights);
        for keep in [Keep::Needed, Keep::Checkpoints] {
            // What does not grow with the batch, such as gradients of parameters, drops out of the difference.
            let [few, many] = images.map(|images| peak(&network, images, keep));
            let each = (many - few) as f64 / (images[1] - images[0]) as f64;
            let said = Network::training_bytes(network.graph(), keep, 4) as f64;
            println!("{name} {keep:?}: {each:.0} bytes an image, {:.2} times what is said", each / said);
            // Kernels of the CPU stand in for cuDNN's and work with copies of their own.
            assert!((0.9..1.2).contains(&(each / said)), "{name} {keep:?}: {each} instead of {said}");
        }
    }
}
