//! The tape's gradients against finite differences, and what else a training pass gives.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use candle_core::{DType, Device, Tensor};
use tallow_builder::exec::{Gradients, Keep};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Shape};
use tallow_builder::{Graph, GraphBuilder, Network, Rng, Weights};
use tallow_cuda::emulator::emulated;
use tallow_cuda::testing;

/// Smooth everywhere, so that finite differences mean something, with a branch, a gate and every kind of sum.
fn smooth() -> Graph {
    let mut g = GraphBuilder::new("smooth", Shape::map(3, 7, 6));
    let x = g.input();
    let x = g.conv2d("stem", x, ConvSpec::new(6, 3).padding(1).bias()).unwrap();
    let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
    let x = g.activation("tanh", x, Activation::Tanh).unwrap();
    let y = g.conv2d("depthwise", x, ConvSpec::new(6, 3).padding(1).groups(6)).unwrap();
    let y = g.activation("silu", y, Activation::Silu).unwrap();
    let s = g.global_avg_pool("squeeze", y).unwrap();
    let s = g.conv2d("excite", s, ConvSpec::new(6, 1).bias()).unwrap();
    let s = g.activation("gate", s, Activation::SIGMOID).unwrap();
    let y = g.scale("scale", y, s).unwrap();
    let y = g.stochastic_depth("drop", y, 0.3).unwrap();
    let x = g.sum("add", x, y).unwrap();
    let x = g.avg_pool("pool", x, 2, 2, 1).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.dropout("dropout", x, 0.2).unwrap();
    let x = g.linear("fc", x, Linear::uniform(3, 0.3)).unwrap();
    let x = g.add("softmax", tallow_builder::graph::Op::Softmax, &[x]).unwrap();
    g.finish(x).unwrap()
}

/// Σ output·upstream of a training pass, in f64, with the same random masks every time.
fn loss(network: &Network, images: &Tensor, upstream: &[f32]) -> f64 {
    let tape = network.record(images, &mut Rng::new(5)).unwrap();
    let output: Vec<f32> = tape.value(network.graph().output()).flatten_all().unwrap().to_vec1().unwrap();
    output.iter().zip(upstream).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn gradients_of_a_whole_network_match_finite_differences() {
    let graph = smooth();
    let weights = Weights::init(&graph, 7, &Device::Cpu).unwrap();
    let mut network = Network::new(graph, weights);
    let mut rng = Rng::new(1);
    let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let images = Tensor::from_vec(random(5 * 3 * 7 * 6), (5, 3, 7, 6), &Device::Cpu).unwrap();
    let upstream = random(15);
    let grad = Tensor::from_slice(&upstream, (5, 3), &Device::Cpu).unwrap();
    let tape = network.record(&images, &mut Rng::new(5)).unwrap();
    let gradients = tape.backward(&network, &grad, |_| true).unwrap();

    for parameter in network.graph().parameters() {
        if !parameter.role.is_trainable() {
            assert!(!gradients.contains_key(&parameter.name));
            continue;
        }
        let gradient: Vec<f32> = gradients[&parameter.name].flatten_all().unwrap().to_vec1().unwrap();
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        // A step along the gradient changes the loss by its norm, unless it vanishes: a bias before a batch norm.
        if norm < 1e-5 {
            assert_eq!(parameter.name, "stem.bias");
            continue;
        }
        let original = network.weights().get(&parameter.name).clone();
        let step = 1e-2 / norm;
        let mut at = |factor: f64| {
            let moved = (&original + (&gradients[&parameter.name] * (factor * step)).unwrap()).unwrap();
            network.weights_mut().set(&parameter.name, moved);
            loss(&network, &images, &upstream)
        };
        let slope = (at(1.0) - at(-1.0)) / 2e-2;
        network.weights_mut().set(&parameter.name, original);
        assert!((slope - norm).abs() < 5e-3 * norm + 1e-4, "{}: slope {slope}, norm {norm}", parameter.name);
    }
}

#[test]
fn only_wanted_gradients_are_computed() {
    let graph = smooth();
    let weights = Weights::init(&graph, 7, &Device::Cpu).unwrap();
    let network = Network::new(graph, weights);
    let images = Tensor::ones((2, 3, 7, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
    let grad = Tensor::ones((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let tape = network.record(&images, &mut Rng::new(5)).unwrap();
    let gradients = tape.backward(&network, &grad, |name| name.starts_with("fc.")).unwrap();
    assert_eq!(gradients.keys().collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
}

#[test]
fn running_moments_move_as_pytorchs_do() {
    let mut g = GraphBuilder::new("bn", Shape::map(1, 1, 2));
    let x = g.input();
    let x = g.batch_norm("bn", x, BatchNorm { momentum: 0.25, ..BatchNorm::default() }).unwrap();
    let graph = g.finish(x).unwrap();
    let weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();
    let mut network = Network::new(graph, weights);
    let images = Tensor::new(&[[[[1f32, 2.0]]], [[[3.0, 6.0]]]], &Device::Cpu).unwrap();
    let tape = network.record(&images, &mut Rng::new(0)).unwrap();
    let statistics = tape.statistics(&network);
    network.track(&statistics).unwrap();
    let value = |name: &str| network.weights().get(name).to_vec1::<f32>().unwrap()[0];
    // Mean 3; squared deviations 4 + 1 + 0 + 9 = 14, over 3 for the running average.
    assert!((value("bn.running_mean") - 0.25 * 3.0).abs() < 1e-6);
    assert!((value("bn.running_var") - (0.75 + 0.25 * 14.0 / 3.0)).abs() < 1e-6);
    let tracked = network.weights().get("bn.num_batches_tracked");
    assert_eq!(tracked.to_scalar::<i64>().unwrap(), 1);
    assert!(tape.first_non_finite().unwrap().is_none());
}

#[test]
fn the_first_layer_with_nan_is_found() {
    let graph = smooth();
    let mut weights = Weights::init(&graph, 7, &Device::Cpu).unwrap();
    let poisoned = (weights.get("depthwise.weight") * f64::NAN).unwrap();
    weights.set("depthwise.weight", poisoned);
    let network = Network::new(graph, weights);
    let images = Tensor::ones((2, 3, 7, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
    let tape = network.record(&images, &mut Rng::new(5)).unwrap();
    let id = tape.first_non_finite().unwrap().unwrap();
    assert_eq!(network.graph().node(id).name, "depthwise");
}

#[test]
fn gradients_are_the_same_to_the_bit_on_any_number_of_threads() {
    let graph = smooth();
    let weights = Weights::init(&graph, 7, &Device::Cpu).unwrap();
    let network = Network::new(graph, weights);
    let mut rng = Rng::new(2);
    let pixels = (0..9 * 3 * 7 * 6).map(|_| rng.normal() as f32).collect();
    let images = Tensor::from_vec(pixels, (9, 3, 7, 6), &Device::Cpu).unwrap();
    let grad = Tensor::ones((9, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let gradients = pool.install(|| {
            let tape = network.record(&images, &mut Rng::new(5)).unwrap();
            tape.backward(&network, &grad, |_| true).unwrap()
        });
        let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let values: Vec<u32> = gradients.into_values().flat_map(flat).map(f32::to_bits).collect();
        values
    };
    let one = bits(1);
    assert!([2, 3, 5].into_iter().all(|threads| bits(threads) == one));
}

/// A network with every kind of step: normalisations with and without a residual, an activation, both and neither.
fn residual(activations: [Activation; 5]) -> Graph {
    let mut g = GraphBuilder::new("residual", Shape::map(8, 9, 9));
    let mut x = g.input();
    for (block, activation) in activations.into_iter().enumerate() {
        let name = |layer: &str| format!("{block}.{layer}");
        let y = g.conv2d(&name("conv1"), x, ConvSpec::new(16, 1)).unwrap();
        let y = g.batch_norm(&name("bn1"), y, BatchNorm::default()).unwrap();
        let y = g.activation(&name("act1"), y, activation).unwrap();
        let y = g.conv2d(&name("conv2"), y, ConvSpec::new(16, 3).padding(1).groups(16)).unwrap();
        let y = g.batch_norm(&name("bn2"), y, BatchNorm::default()).unwrap();
        let y = g.activation(&name("act2"), y, activation).unwrap();
        let s = g.global_avg_pool(&name("squeeze"), y).unwrap();
        let s = g.conv2d(&name("excite"), s, ConvSpec::new(16, 1).bias()).unwrap();
        let s = g.activation(&name("gate"), s, Activation::SIGMOID).unwrap();
        let y = g.scale(&name("scale"), y, s).unwrap();
        let y = g.conv2d(&name("conv3"), y, ConvSpec::new(8, 1)).unwrap();
        let y = g.batch_norm(&name("bn3"), y, BatchNorm::default()).unwrap();
        let y = if block == 3 { g.stochastic_depth(&name("drop"), y, 0.3).unwrap() } else { y };
        x = g.sum(&name("add"), y, x).unwrap();
        if block % 2 == 0 {
            x = g.activation(&name("act3"), x, activation).unwrap();
        }
    }
    let x = g.avg_pool("pool", x, 3, 2, 1).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.dropout("dropout", x, 0.2).unwrap();
    let x = g.linear("fc", x, Linear::uniform(8, 0.3)).unwrap();
    g.finish(x).unwrap()
}

/// Logits and gradients of a pass, with images and logits' gradient of a type.
fn pass(network: &Network, images: &Tensor, upstream: &Tensor, keep: Keep) -> (Tensor, Gradients) {
    let tape = network.record_keeping(images, &mut Rng::new(5), &|name| name == "1.bn1", keep, None).unwrap();
    let logits = tape.value(network.graph().output()).clone();
    (logits, tape.backward(network, upstream, |_| true).unwrap())
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    let values = |t: &Tensor| -> Vec<f32> {
        t.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let scale = values(b).iter().fold(1e-6f64, |m, v| m.max(f64::from(v.abs())));
    let difference = |(a, b): (f32, f32)| f64::from((a - b).abs()) / scale;
    values(a).into_iter().zip(values(b)).map(difference).fold(0.0, f64::max)
}

const ALL: [Activation; 5] =
    [Activation::Relu, Activation::Silu, Activation::HardSwish, Activation::Relu6, Activation::Relu];
/// Where a derivative jumps, the rounding of one value decides about a whole gradient.
const SMOOTH: [Activation; 5] =
    [Activation::Silu, Activation::Tanh, Activation::SIGMOID, Activation::Silu, Activation::Tanh];

fn start(seed: u64, activations: [Activation; 5]) -> (Network, Tensor, Tensor) {
    let graph = residual(activations);
    let weights = Weights::init(&graph, seed, &Device::Cpu).unwrap();
    let mut rng = Rng::new(seed);
    let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let images = Tensor::from_vec(random(6 * 8 * 81), (6, 8, 9, 9), &Device::Cpu).unwrap();
    let upstream = Tensor::from_vec(random(6 * 8), (6, 8), &Device::Cpu).unwrap();
    (Network::new(graph, weights), images, upstream)
}

#[test]
fn whatever_is_kept_gradients_are_the_same_to_the_bit() {
    let (network, images, upstream) = start(3, ALL);
    let (logits, gradients) = pass(&network, &images, &upstream, Keep::Everything);
    for keep in [Keep::Needed, Keep::Checkpoints] {
        let (other, found) = pass(&network, &images, &upstream, keep);
        assert_eq!(largest_difference(&other, &logits), 0.0);
        assert_eq!(found.len(), gradients.len());
        for (name, gradient) in &gradients {
            assert_eq!(largest_difference(&found[name], gradient), 0.0, "{keep:?} {name}");
        }
    }
}

#[test]
fn moments_are_counted_once_where_values_are_computed_twice() {
    let (network, images, _) = start(4, ALL);
    let layers = |keep| {
        let tape = network.record_keeping(&images, &mut Rng::new(5), &|_| false, keep, None).unwrap();
        tape.statistics(&network).into_iter().map(|s| s.layer).collect::<Vec<_>>()
    };
    assert_eq!(layers(Keep::Checkpoints).len(), 15);
    assert_eq!(layers(Keep::Checkpoints), layers(Keep::Everything));
}

/// A whole training pass by the kernels for GPUs, in every precision, against the CPU's.
#[test]
fn a_training_pass_on_a_gpu_gives_the_cpus_gradients() {
    let (network, images, upstream) = start(3, SMOOTH);
    let (logits, gradients) = pass(&network, &images, &upstream, Keep::Everything);
    let agree = |case: &str, (other, found): (Tensor, Gradients), of_logits: f64, of_gradients: f64| {
        let difference = largest_difference(&other, &logits);
        assert!(difference < of_logits, "{case}: logits differ by {difference:.1e}");
        assert_eq!(found.len(), gradients.len());
        for (name, gradient) in &gradients {
            assert_eq!(found[name].dtype(), DType::F32);
            let scale = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            // The gradient of a bias in front of a normalisation is nothing but rounding.
            let difference = largest_difference(&found[name], gradient);
            assert!(difference < of_gradients || scale < 1e-4, "{case} {name}: {difference:.1e}");
        }
    };
    // Rounding of the activations grows on its way through fifteen normalisations.
    let cases = [(DType::F32, 1e-5, 1e-4), (DType::F16, 1e-2, 6e-2), (DType::BF16, 8e-2, 0.5)];
    let keeps = [Keep::Everything, Keep::Needed, Keep::Checkpoints];
    for (dtype, of_logits, of_gradients) in &cases[..2] {
        for keep in keeps {
            let found = emulated(|| {
                let [images, upstream] = [&images, &upstream].map(|t| t.to_dtype(*dtype).unwrap());
                pass(&network, &images, &upstream, keep)
            });
            assert_eq!(found.0.dtype(), *dtype);
            agree(&format!("emulated {dtype:?} {keep:?}"), found, *of_logits, *of_gradients);
        }
    }
    let Some(gpu) = testing::gpu("a training pass") else { return };
    let there = Network::new(network.graph().clone(), network.weights().to_device(&gpu).unwrap());
    for (dtype, of_logits, of_gradients) in cases {
        for keep in keeps {
            let [images, upstream] =
                [&images, &upstream].map(|t| t.to_dtype(dtype).unwrap().to_device(&gpu).unwrap());
            let (other, found) = pass(&there, &images, &upstream, keep);
            let host = |tensor: &Tensor| tensor.to_device(&Device::Cpu).unwrap();
            let found = found.iter().map(|(name, gradient)| (name.clone(), host(gradient))).collect();
            agree(&format!("{dtype:?} {keep:?}"), (host(&other), found), of_logits, of_gradients);
        }
    }
}
