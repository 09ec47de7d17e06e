use std::sync::Arc;

use candle_core::Device;
use tallow_builder::graph::{GraphBuilder, Linear, Shape};
use tallow_cuda::emulator::emulated;
use tallow_input::Preprocess;

use super::*;
use crate::augment::EvalTransform;
use crate::data::LoaderOptions;
use crate::data::digits::Digits;

/// Batch normalisation of the images themselves, then their mean colours.
fn graph() -> Graph {
    let mut g = GraphBuilder::new("colours", Shape::map(3, 8, 8));
    let x = g.input();
    let x = g.batch_norm("bn", x, Default::default()).unwrap();
    let x = g.global_avg_pool("pool", x).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(10, 1.0)).unwrap();
    g.finish(x).unwrap()
}

fn values(weights: &Weights, name: &str) -> Vec<f32> {
    weights.get(name).flatten_all().unwrap().to_vec1().unwrap()
}

/// Weights whose every number is `value`.
fn constant(graph: &Graph, value: f64) -> Weights {
    let mut weights = Weights::init(graph, 0, &Device::Cpu).unwrap();
    for parameter in graph.parameters().iter().filter(|p| p.role != Role::BatchesTracked) {
        let tensor = (weights.get(&parameter.name).ones_like().unwrap() * value).unwrap();
        weights.set(&parameter.name, tensor);
    }
    weights
}

#[test]
fn a_uniform_soup_is_the_mean_of_every_number() {
    let graph = graph();
    let ingredients: Vec<Weights> =
        (0..5).map(|seed| Weights::init(&graph, seed, &Device::Cpu).unwrap()).collect();
    let mean = average(&graph, &ingredients.iter().collect::<Vec<_>>()).unwrap();
    for parameter in graph.parameters().iter().filter(|p| p.role != Role::BatchesTracked) {
        let all: Vec<Vec<f32>> = ingredients.iter().map(|w| values(w, &parameter.name)).collect();
        for (i, found) in values(&mean, &parameter.name).into_iter().enumerate() {
            let expected = all.iter().map(|w| f64::from(w[i])).sum::<f64>() / 5.0;
            assert_eq!(found, expected as f32, "{}", parameter.name);
        }
    }
    let one = average(&graph, &[&ingredients[0]]).unwrap();
    assert_eq!(values(&one, "fc.weight"), values(&ingredients[0], "fc.weight"));
}

#[test]
fn a_greedy_soup_takes_what_does_not_lower_its_score() {
    let graph = graph();
    // The nearer the mean is to 2, the better.
    let numbers = [10.0, 1.0, 3.0, -3.0, 2.5];
    let ingredients: Vec<Weights> = numbers.iter().map(|&n| constant(&graph, n)).collect();
    let score = |weights: &Weights| -f64::from((values(weights, "fc.weight")[0] - 2.0).abs());
    let scores: Vec<f64> = ingredients.iter().map(score).collect();
    let mut tried = 0;
    let soup = greedy(&graph, &ingredients, &scores, |weights| {
        tried += 1;
        let score = score(&weights);
        Ok::<_, crate::Error>((weights, score))
    })
    .unwrap();
    // 2.5, with 1.0: 1.75, with 3.0: 2.1667; −3 would give 0.875 and 10 would give 4.125.
    assert_eq!(soup.taken, [4, 1, 2]);
    assert_eq!(tried, 4);
    assert!((soup.score + 1.0 / 6.0).abs() < 1e-6);
    assert!((values(&soup.weights, "bn.weight")[0] - 6.5 / 3.0).abs() < 1e-6);
}

#[test]
fn recalibrated_moments_are_the_mean_of_the_batches_moments() {
    let graph = graph();
    let options =
        LoaderOptions { batch_size: 100, shuffle: true, drop_last: true, ..LoaderOptions::default() };
    let preprocess = Preprocess { mean: [0.1, 0.2, 0.3], std: [0.5, 0.7, 0.9], ..Preprocess::imagenet(8, 8) };
    let loader = |bytes| {
        let transform = Arc::new(EvalTransform::new(preprocess).unwrap());
        Loader::new(Arc::new(Digits::new()), transform, options).unwrap().as_bytes(bytes)
    };
    let (loader, loader_of_bytes) = (loader(false), loader(true));
    let mut network = Network::new(graph.clone(), constant(&graph, 7.0));
    let (cpu, mut hidden) = (Compute::cpu(), Progress::hidden());
    let stop = AtomicBool::new(false);
    assert!(recalibrate(&mut network, &cpu, &loader, &mut hidden, &stop).unwrap());

    let (mut means, mut variances) = ([0.0; 3], [0.0; 3]);
    let batches: Vec<_> = loader.epoch(0, 0).unwrap().map(Result::unwrap).collect();
    for batch in &batches {
        for channel in 0..3 {
            let images = batch.floats();
            let of_channel = images.chunks(64).skip(channel).step_by(3).flatten();
            let pixels: Vec<f64> = of_channel.map(|v| f64::from(*v)).collect();
            let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
            let squares = pixels.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
            means[channel] += mean / batches.len() as f64;
            variances[channel] += squares / (pixels.len() - 1) as f64 / batches.len() as f64;
        }
    }
    for (name, expected) in [("bn.running_mean", means), ("bn.running_var", variances)] {
        for (found, expected) in values(network.weights(), name).iter().zip(expected) {
            let error = (f64::from(*found) - expected).abs() / expected.abs();
            assert!(error < 1e-5, "{name}: {found} should be {expected}");
        }
    }
    let tracked = network.weights().get("bn.num_batches_tracked").to_scalar::<i64>().unwrap();
    assert_eq!(tracked, batches.len() as i64);
    assert_eq!(values(network.weights(), "fc.weight")[0], 7.0, "weights stay");
    let stop = AtomicBool::new(true);
    assert!(!recalibrate(&mut network, &cpu, &loader, &mut hidden, &stop).unwrap());

    // By the kernels for GPUs, which get bytes.
    let mut there = Network::new(graph.clone(), constant(&graph, 7.0));
    let stop = AtomicBool::new(false);
    assert!(emulated(|| recalibrate(&mut there, &cpu, &loader_of_bytes, &mut hidden, &stop)).unwrap());
    for name in ["bn.running_mean", "bn.running_var"] {
        for (found, expected) in values(there.weights(), name).iter().zip(values(network.weights(), name)) {
            assert!((found - expected).abs() < 1e-5 * expected.abs(), "{name}: {found}, {expected}");
        }
    }
}
