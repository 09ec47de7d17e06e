//! Numbers against a worked example, and verdicts on flows that are known to be good or bad.

use candle_core::{Device, Tensor};
use tallow_builder::graph::{Activation, GraphBuilder, Linear, Shape};
use tallow_builder::{Init, Network, Rng, Weights};

use super::*;

fn activation() -> ActivationStatistics {
    ActivationStatistics { mean: 0.0, variance: 1.0, dead: Some(0.1), saturated: None }
}

/// Layers with these relative gradients.
fn flow(gradients: impl IntoIterator<Item = f64>) -> GradientFlow {
    let layer = |(i, gradient_norm): (usize, f64)| LayerFlow {
        layer: format!("conv{i}"),
        gradient_norm,
        weight_norm: 1.0,
        update_ratio: 1e-3,
        activation: activation(),
    };
    GradientFlow { layers: gradients.into_iter().enumerate().map(layer).collect(), rate_share: 1.0 }
}

/// Layers with sound gradients and these updates.
fn updates<const N: usize>(ratios: [f64; N]) -> GradientFlow {
    let mut flow = flow([0.1; N]);
    flow.layers.iter_mut().zip(ratios).for_each(|(layer, ratio)| layer.update_ratio = ratio);
    flow
}

#[test]
fn verdicts_on_known_flows() {
    let words = |flow: GradientFlow| flow.verdict().words();
    assert_eq!(words(flow([0.02, 0.03, 0.01, 0.05, 0.04])), "healthy");
    assert_eq!(words(flow((0..12).rev().map(|i| 0.1 * 0.25f64.powi(i)))), "vanishing");
    assert_eq!(words(flow((0..12).rev().map(|i| 0.1 * 4f64.powi(i)))), "exploding");
    assert_eq!(words(flow([1e-9; 8])), "vanishing");
    assert_eq!(words(flow([1e4; 8])), "exploding");
    assert!(words(flow([0.1, f64::NAN, 0.1])).starts_with("not finite"));
    let mut dead = flow([0.1; 4]);
    dead.layers[2].activation.dead = Some(0.9);
    let text = dead.verdict().to_string();
    assert!(text.starts_with("dead units: in 1 layer, most of all in `conv2` (90 %)"), "{text}");
    let mut saturated = flow([0.1; 4]);
    saturated.layers[1].activation.saturated = Some(1.0);
    assert_eq!(words(saturated), "saturated");
    assert!(flow([]).verdict().is_healthy());
}

#[test]
fn verdicts_on_the_size_of_steps() {
    let words = |flow: GradientFlow| flow.verdict().words();
    // A last layer of small weights takes larger steps than the others while all learn well.
    assert_eq!(words(updates([2e-3, 5e-4, 1e-3, 0.15])), "healthy");
    assert_eq!(words(updates([1e-3, 1e-3, 1e-3, 40.0])), "steps too large");
    let absurd = updates([6e4, 7e3, 1.5e7, 2e6]).verdict().to_string();
    assert!(
        absurd.starts_with("steps too large: in 4 layers, most of all in `conv2` (1.5e7 times"),
        "{absurd}"
    );
    assert!(absurd.contains("a lower learning rate"), "{absurd}");
    let infinite = updates([1e-3, f64::INFINITY, 1e-3]);
    let text = infinite.verdict().to_string();
    assert!(text.starts_with("no longer finite: the step of layer `conv1` is infinite"), "{text}");
    assert!(!text.contains("initialisation"), "{text}");
    assert_eq!(words(infinite), "not finite, steps too large");
    assert_eq!(words(updates([1e-9; 4])), "steps too small");
    // The first step of a warm-up of 10,000.
    assert_eq!(words(GradientFlow { rate_share: 1e-4, ..updates([1e-7; 4]) }), "healthy");
}

#[test]
fn a_step_of_two_layers_in_numbers() {
    let mut g = GraphBuilder::new("tiny", Shape::map(1, 1, 2));
    let x = g.input();
    let x = g.flatten("flatten", x).unwrap();
    let linear =
        |out| Linear { out_features: out, bias: false, weight_init: Init::Zeros, bias_init: Init::Zeros };
    let x = g.linear("a", x, linear(2)).unwrap();
    let x = g.activation("relu", x, Activation::Relu).unwrap();
    let x = g.linear("b", x, linear(1)).unwrap();
    let x = g.activation("tanh", x, Activation::Tanh).unwrap();
    let graph = g.finish(x).unwrap();
    let mut weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();
    let tensor =
        |values: &[f32], shape: (usize, usize)| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    // The second unit of `a` is dead for both images.
    weights.set("a.weight", tensor(&[1.0, 1.0, -1.0, -1.0], (2, 2)));
    weights.set("b.weight", tensor(&[3.0, 4.0], (1, 2)));
    let images = Tensor::from_slice(&[1f32, 0.0, 0.0, 0.1], (2, 1, 1, 2), &Device::Cpu).unwrap();
    let network = Network::new(graph, weights);
    let tape = network.record(&images, &mut Rng::new(0)).unwrap();
    let activations = Activations::of_pass(network.graph(), &tape).unwrap();
    let gradients = tape.backward(&network, &tensor(&[1.0, 1.0], (2, 1)), |_| true).unwrap();
    let mut after = network.weights().clone();
    after.set("b.weight", tensor(&[3.0, 4.5], (1, 2)));
    let flow =
        GradientFlow::measure(network.graph(), &activations, &gradients, network.weights(), &after).unwrap();

    let [a, b] = &flow.layers[..] else { panic!("{flow}") };
    assert_eq!((a.layer.as_str(), a.weight_norm, a.update_ratio), ("a", 2.0, 0.0));
    assert_eq!((b.weight_norm, b.update_ratio), (5.0, 0.1));
    assert_eq!((a.activation.dead, a.activation.saturated), (Some(0.5), None));
    assert!((a.activation.mean - 0.275).abs() < 1e-7);
    // tanh(3) is near its limit, tanh(0.3) is not.
    assert_eq!((b.activation.dead, b.activation.saturated), (None, Some(0.5)));
    let slope = |x: f64| 1.0 - x.tanh().powi(2);
    assert!((b.gradient_norm - (slope(3.0) + 0.1 * slope(0.3))).abs() < 1e-6);
    let histograms: Vec<_> = activations.histograms().map(|(layer, h)| (layer, h.total())).collect();
    assert_eq!(histograms, [("a", 4), ("b", 2)]);
    let table = flow.to_string();
    assert_eq!(table.lines().count(), 3);
    assert!(table.lines().all(|line| line.chars().count() == table.lines().next().unwrap().chars().count()));
}
