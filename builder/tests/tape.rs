//! The tape's gradients against finite differences, and what else a training pass gives.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use candle_core::{Device, Tensor};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Shape};
use tallow_builder::{Graph, GraphBuilder, Network, Rng, Weights};

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
