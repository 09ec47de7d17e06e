//! Optimisers, clipping, averaging and the loss against trajectories computed by PyTorch and timm in f64.

use candle_core::{Device, Tensor};
use serde_json::Value;
use tallow_builder::graph::{ConvSpec, GraphBuilder, Linear, Shape};
use tallow_builder::kernels::CrossEntropy;

use tallow_cuda::emulator::emulated;

use super::*;

fn fixture() -> Value {
    let text = include_str!("../../../tests/parity/fixtures/optimisers.json");
    serde_json::from_str(text).unwrap()
}

fn cases(name: &str) -> Vec<Value> {
    let all = fixture();
    let cases = all["cases"].as_array().unwrap().iter();
    let found: Vec<Value> = cases.filter(|case| case["name"] == name).cloned().collect();
    assert!(!found.is_empty(), "the fixture has no case `{name}`");
    found
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn tensor(value: &Value) -> Tensor {
    let values: Vec<f32> = numbers(value).iter().map(|&v| v as f32).collect();
    Tensor::from_vec(values.clone(), (1, values.len()), &Device::Cpu).unwrap()
}

fn assert_close(name: &str, step: usize, actual: &Tensor, expected: &Value) {
    let actual = actual.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (a, e) in actual.iter().zip(numbers(expected)) {
        let error = (f64::from(*a) - e).abs() / e.abs().max(0.1);
        assert!(error < 2e-6, "{name}, step {step}: {a} should be {e}");
    }
}

/// A network whose only trainable tensor is a weight of shape [1, 6].
fn six_weights() -> (Graph, Weights) {
    let mut g = GraphBuilder::new("six", Shape::map(6, 1, 1));
    let x = g.input();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear { bias: false, ..Linear::uniform(1, 1.0) }).unwrap();
    let graph = g.finish(x).unwrap();
    let weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();
    (graph, weights)
}

fn check_trajectory(name: &str, kind: OptimizerKind) {
    check_trajectory_here(name, kind);
    emulated(|| check_trajectory_here(name, kind));
}

fn check_trajectory_here(name: &str, kind: OptimizerKind) {
    for case in cases(name) {
        let (graph, mut weights) = six_weights();
        weights.set("fc.weight", tensor(&case["start"]));
        let mut optimizer = Optimizer::new(kind, &graph, &weights).unwrap();
        for (step, rate) in numbers(&case["rates"]).into_iter().enumerate() {
            // A factor that undoes a doubling: clipping must not change what comes of a gradient.
            let doubled = (tensor(&case["gradients"][step]) * 2.0).unwrap();
            let gradients = Gradients::from([("fc.weight".to_owned(), doubled)]);
            optimizer.step(&mut weights, &gradients, |_| rate, 0.5).unwrap();
            assert_close(name, step, weights.get("fc.weight"), &case["values"][step]);
        }
        assert_eq!(optimizer.steps(), 5);
    }
}

#[test]
fn sgd_matches_pytorch() {
    let sgd = |momentum, nesterov| OptimizerKind::Sgd { momentum, nesterov, weight_decay: 0.01 };
    check_trajectory("sgd", sgd(0.0, false));
    check_trajectory("sgd_momentum", sgd(0.9, false));
    check_trajectory("sgd_nesterov", sgd(0.9, true));
}

#[test]
fn adamw_matches_pytorch() {
    check_trajectory(
        "adamw",
        OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05 },
    );
}

#[test]
fn rmsprop_matches_timms_tensorflow_form() {
    let rms =
        |decay, momentum, weight_decay| OptimizerKind::RmsProp { decay, momentum, eps: 1e-3, weight_decay };
    check_trajectory("rmsprop_tf", rms(0.9, 0.9, 1e-5));
    check_trajectory("rmsprop_tf_no_momentum", rms(0.95, 0.0, 0.0));
}

#[test]
fn the_average_of_the_weights_matches_timm() {
    for case in cases("ema") {
        let (graph, mut weights) = six_weights();
        weights.set("fc.weight", tensor(&case["start"]));
        let decay = Decay { decay: case["decay"].as_f64().unwrap(), warm_up: false };
        let mut ema = Ema::new(decay, &graph, weights.clone());
        for (step, parameters) in case["parameters"].as_array().unwrap().iter().enumerate() {
            weights.set("fc.weight", tensor(parameters));
            ema.update(&weights, step as u64 + 1, |_| true).unwrap();
            assert_close("ema", step, ema.weights().get("fc.weight"), &case["values"][step]);
        }
    }
}

#[test]
fn the_norm_that_clips_matches_pytorch() {
    for case in cases("clip_grad_norm") {
        let gradients: Gradients = match &case["gradients"] {
            Value::Array(list) => list.iter().enumerate().map(|(i, g)| (i.to_string(), tensor(g))).collect(),
            Value::Object(map) => map.iter().map(|(name, g)| (name.clone(), tensor(g))).collect(),
            other => panic!("gradients are a list or a map, not {other}"),
        };
        let norm = case["norm"].as_f64().unwrap();
        assert!((global_norm(&gradients).unwrap() - norm).abs() < 1e-6 * norm);
    }
}

#[test]
fn cross_entropy_with_label_smoothing_matches_pytorch() {
    for case in cases("cross_entropy") {
        let rows: Vec<Tensor> = case["logits"].as_array().unwrap().iter().map(tensor).collect();
        let logits = Tensor::cat(&rows, 0).unwrap();
        let labels: Vec<u32> = numbers(&case["targets"]).iter().map(|&v| v as u32).collect();
        let loss = CrossEntropy { smoothing: case["label_smoothing"].as_f64().unwrap() };
        let (value, gradient) = loss.loss_and_gradient(&logits, &labels).unwrap();
        let expected = case["loss"].as_f64().unwrap();
        assert!((value - expected).abs() < 1e-6 * expected.abs().max(1.0), "{value} should be {expected}");
        for (i, row) in case["gradient"].as_array().unwrap().iter().enumerate() {
            let actual = gradient.get(i).unwrap().to_vec1::<f32>().unwrap();
            for (a, e) in actual.iter().zip(numbers(row)) {
                assert!((f64::from(*a) - e).abs() < 1e-7, "{a} should be {e}");
            }
        }
    }
}

#[test]
fn weight_decay_spares_biases_and_batch_normalisation() {
    let mut g = GraphBuilder::new("decay", Shape::map(2, 3, 3));
    let x = g.input();
    let x = g.conv2d("conv", x, ConvSpec::new(2, 3).bias()).unwrap();
    let x = g.batch_norm("bn", x, Default::default()).unwrap();
    let graph = g.finish(x).unwrap();
    for kind in [
        OptimizerKind::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.5 },
        OptimizerKind::RmsProp { decay: 0.9, momentum: 0.9, eps: 1e-3, weight_decay: 0.5 },
        OptimizerKind::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.5 },
    ] {
        let mut weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        weights.set("conv.bias", Tensor::new(&[1f32, -1.0], &Device::Cpu).unwrap());
        let before = weights.clone();
        let zeros = |name: &str| (name.to_owned(), before.get(name).zeros_like().unwrap());
        let gradients: Gradients = ["conv.weight", "conv.bias", "bn.weight", "bn.bias"].map(zeros).into();
        let mut optimizer = Optimizer::new(kind, &graph, &weights).unwrap();
        optimizer.step(&mut weights, &gradients, |_| 0.1, 1.0).unwrap();
        let sum = |w: &Weights, name: &str| {
            w.get(name).abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()
        };
        assert!(sum(&weights, "conv.weight") < sum(&before, "conv.weight"), "{kind:?}");
        for spared in ["conv.bias", "bn.weight", "bn.bias"] {
            assert_eq!(sum(&weights, spared), sum(&before, spared), "{spared} with {kind:?}");
        }
    }
}

#[test]
fn a_parameter_that_was_frozen_at_first_steps_as_if_it_began_then() {
    let (graph, start) = six_weights();
    let gradient = Tensor::new(&[[0.3f32, -0.1, 0.7, 2.0, -1.5, 0.01]], &Device::Cpu).unwrap();
    let gradients = Gradients::from([("fc.weight".to_owned(), gradient)]);
    let run = |frozen: usize, restore: bool| {
        let mut weights = start.clone();
        let mut optimizer = Optimizer::new(crate::recipe::ADAMW, &graph, &weights).unwrap();
        for _ in 0..frozen {
            optimizer.step(&mut weights, &Gradients::new(), |_| 0.1, 1.0).unwrap();
        }
        assert_eq!(weights.get("fc.weight").to_string(), start.get("fc.weight").to_string());
        if restore {
            let (state, steps) = (optimizer.state_on_host().unwrap(), optimizer.steps());
            optimizer = Optimizer::new(crate::recipe::ADAMW, &graph, &weights).unwrap();
            optimizer.restore(state, steps).unwrap();
        }
        for _ in 0..3 {
            optimizer.step(&mut weights, &gradients, |_| 0.1, 1.0).unwrap();
        }
        weights.get("fc.weight").to_vec2::<f32>().unwrap()
    };
    let expected = run(0, false);
    assert_eq!(run(7, false), expected);
    assert_eq!(run(7, true), expected);
    for (frozen, restore) in [(0, false), (7, false), (7, true)] {
        for (found, expected) in emulated(|| run(frozen, restore)).concat().iter().zip(expected.concat()) {
            assert!((found - expected).abs() < 1e-6, "on a GPU, after {frozen} frozen steps");
        }
    }
}

#[test]
fn a_step_that_the_device_skipped_was_never_taken() {
    let (graph, start, gradients) = several();
    let broken: Gradients = gradients.iter().map(|(n, g)| (n.clone(), (g * f64::NAN).unwrap())).collect();
    let run = |batches: &[&Gradients], stop_after: usize| {
        emulated(|| {
            let skipped = Tensor::zeros(1, candle_core::DType::F64, &Device::Cpu).unwrap();
            let mut weights = start.clone();
            let mut optimizer = Optimizer::new(crate::recipe::ADAMW, &graph, &weights).unwrap();
            for (i, gradients) in batches.iter().enumerate() {
                if i == stop_after {
                    let (state, steps) = (optimizer.state_on_host().unwrap(), optimizer.steps());
                    optimizer = Optimizer::new(crate::recipe::ADAMW, &graph, &weights).unwrap();
                    optimizer.restore(state, steps).unwrap();
                }
                let control = Control::of(gradients, None, None, &skipped).unwrap();
                optimizer.step_on_gpu(&mut weights, gradients, |_| 0.01, &control).unwrap();
            }
            let value = |name: &str| weights.get(name).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            (value("conv.weight"), value("bn.bias"), optimizer.steps())
        })
    };
    let expected = run(&[&gradients; 3], 9);
    for stop_after in [9, 1, 2, 3] {
        let found = run(&[&gradients, &broken, &gradients, &broken, &gradients], stop_after);
        assert_eq!((&found.0, &found.1), (&expected.0, &expected.1), "resumed after {stop_after}");
        assert_eq!(found.2, 5);
    }
}

/// Five tensors, one of them longer than a chunk and one without a gradient.
fn several() -> (Graph, Weights, Gradients) {
    let mut g = GraphBuilder::new("several", Shape::map(40, 1, 1));
    let x = g.input();
    let x = g.conv2d("conv", x, ConvSpec::new(450, 1)).unwrap();
    let x = g.batch_norm("bn", x, tallow_builder::graph::BatchNorm::default()).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.linear("fc", x, Linear::uniform(3, 1.0)).unwrap();
    let graph = g.finish(x).unwrap();
    let weights = Weights::init(&graph, 3, &Device::Cpu).unwrap();
    let mut rng = tallow_builder::Rng::new(8);
    let trainable = graph.parameters().into_iter().filter(|p| p.role.is_trainable() && p.name != "fc.bias");
    let gradients = trainable.map(|p| {
        let values: Vec<f32> = (0..p.elements()).map(|_| rng.normal() as f32).collect();
        (p.name, Tensor::from_vec(values, p.shape, &Device::Cpu).unwrap())
    });
    let gradients = gradients.collect();
    (graph, weights, gradients)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    let difference = ((a - b).unwrap().abs().unwrap() / (b.abs().unwrap() + 0.1).unwrap()).unwrap();
    difference.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn all_parameters_at_once_move_as_one_by_one() {
    for kind in [crate::recipe::SGD, crate::recipe::RMSPROP, crate::recipe::ADAMW] {
        let (graph, weights, gradients) = several();
        let run = || {
            let mut weights = weights.clone();
            let mut ema = Ema::new(Decay { decay: 0.9, warm_up: false }, &graph, weights.clone());
            let mut optimizer = Optimizer::new(kind, &graph, &weights).unwrap();
            let mut gradients = gradients.clone();
            for step in 1..4 {
                gradients = merged((gradients.clone(), 3), (gradients, 5)).unwrap();
                let rate = |name: &str| if name.starts_with("bn") { 0.01 } else { 0.03 };
                optimizer.step(&mut weights, &gradients, rate, 0.7).unwrap();
                ema.update(&weights, step, |name| name != "fc.weight").unwrap();
            }
            (weights, ema.weights().clone(), optimizer.state_on_host().unwrap())
        };
        let (one_by_one, at_once) = (run(), emulated(run));
        for ((name, a), (_, b)) in
            one_by_one.0.iter().chain(one_by_one.1.iter()).zip(at_once.0.iter().chain(at_once.1.iter()))
        {
            if a.dtype() == candle_core::DType::F32 {
                assert!(largest_difference(b, a) < 2e-6, "{kind:?} {name}");
            }
        }
        assert_eq!(one_by_one.2.len(), at_once.2.len());
        for (name, a) in one_by_one.2.iter().filter(|(_, a)| a.dtype() == candle_core::DType::F32) {
            assert!(largest_difference(&at_once.2[name], a) < 2e-6, "{kind:?} {name}");
        }
        let untouched = weights.get("fc.bias").to_vec1::<f32>().unwrap();
        assert_eq!(at_once.0.get("fc.bias").to_vec1::<f32>().unwrap(), untouched);
    }
}

#[test]
fn the_device_decides_what_the_host_would() {
    let (graph, weights, gradients) = several();
    let norm = global_norm(&gradients).unwrap();
    let skipped = Tensor::zeros(1, candle_core::DType::F64, &Device::Cpu).unwrap();
    let start = weights.get("conv.weight").flatten_all().unwrap().to_vec1::<f32>().unwrap();
    emulated(|| {
        let control = Control::of(&gradients, Some(1.0), None, &skipped).unwrap();
        assert!((control.norm().unwrap() / norm - 1.0).abs() < 1e-6);
        let sgd = OptimizerKind::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
        let step = |gradients: &Gradients, control: &Control| {
            let mut moved = weights.clone();
            let mut optimizer = Optimizer::new(sgd, &graph, &weights).unwrap();
            optimizer.step_on_gpu(&mut moved, gradients, |_| 0.1, control).unwrap();
            moved.get("conv.weight").flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let expected = |i: usize| {
            start[i]
                - 0.1 * gradients["conv.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap()[i]
                    / norm as f32
        };
        let clipped = step(&gradients, &control);
        assert!([0, 17, 17_999].iter().all(|&i| (clipped[i] - expected(i)).abs() < 1e-6));

        // Gradients that are too large by the loss scale give the same step; such as are no numbers give none.
        let scale = LossScale::new(&Device::Cpu).unwrap();
        let scaled: Gradients = gradients.iter().map(|(n, g)| (n.clone(), (g * 65_536.0).unwrap())).collect();
        let control = Control::of(&scaled, Some(1.0), Some(&scale), &skipped).unwrap();
        assert!((control.norm().unwrap() / norm - 1.0).abs() < 1e-6);
        assert!(step(&scaled, &control).iter().zip(&clipped).all(|(a, b)| (a - b).abs() < 1e-6));
        scale.adapt(&control).unwrap();
        assert_eq!(scale.state().to_vec1::<f32>().unwrap(), [65_536.0, 1.0]);
        let mut broken = scaled.clone();
        broken.insert("bn.bias".into(), Tensor::full(f32::INFINITY, 450, &Device::Cpu).unwrap());
        let control = Control::of(&broken, None, Some(&scale), &skipped).unwrap();
        assert_eq!(step(&broken, &control), start);
        scale.adapt(&control).unwrap();
        assert_eq!(scale.state().to_vec1::<f32>().unwrap(), [32_768.0, 0.0]);
        for _ in 0..2000 {
            scale.adapt(&Control::fixed(1.0, &Device::Cpu).unwrap()).unwrap();
        }
        assert_eq!(scale.state().to_vec1::<f32>().unwrap(), [65_536.0, 0.0]);
        assert_eq!(skipped.to_vec1::<f64>().unwrap(), [1.0]);
    });
}
