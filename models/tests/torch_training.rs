//! A training pass gives what PyTorch gives: loss, gradient of every parameter, running moments.

mod torch;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::Deserialize;
use tallow_builder::Rng;
use tallow_models::Options;
use torch::{Setup, cases, values};

#[derive(Deserialize)]
struct TrainStep {
    #[serde(flatten)]
    setup: Setup,
    targets: Vec<usize>,
    label_smoothing: f64,
    dropout: f64,
    stochastic_depth: f64,
    loss: f64,
    gradient_norm: f64,
    gradients: BTreeMap<String, Summary>,
    running: BTreeMap<String, Summary>,
}

/// Of all elements of a tensor.
#[derive(Deserialize)]
struct Summary {
    sum: f64,
    norm: f64,
    first: f64,
}

impl Summary {
    fn of(tensor: &Tensor) -> Self {
        let v = values(tensor);
        Self { sum: v.iter().sum(), norm: v.iter().map(|x| x * x).sum::<f64>().sqrt(), first: v[0] }
    }

    /// The largest difference; a sum of n elements may err by √n times what one may.
    fn difference(&self, other: &Self, elements: usize) -> f64 {
        let sum = (self.sum - other.sum).abs() / (elements as f64).sqrt();
        sum.max((self.norm - other.norm).abs()).max((self.first - other.first).abs())
    }
}

/// Cross-entropy with label smoothing (Szegedy et al. 2016, section 7), the batch's mean, and its gradient, in f64.
fn cross_entropy(logits: &[f64], targets: &[usize], smoothing: f64) -> (f64, Vec<f64>) {
    let (batch, classes) = (targets.len(), logits.len() / targets.len());
    let (mut loss, mut gradient) = (0.0, vec![]);
    for (row, &target) in logits.chunks(classes).zip(targets) {
        let largest = row.iter().copied().fold(f64::MIN, f64::max);
        let log_total = largest + row.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
        for (class, x) in row.iter().enumerate() {
            let wanted = smoothing / classes as f64 + if class == target { 1.0 - smoothing } else { 0.0 };
            loss -= wanted * (x - log_total) / batch as f64;
            gradient.push(((x - log_total).exp() - wanted) / batch as f64);
        }
    }
    (loss, gradient)
}

#[test]
fn loss_gradients_and_running_moments_are_pytorchs() {
    for case in cases::<TrainStep>(include_str!("../../tests/parity/fixtures/train_step.json")) {
        let model = &case.setup.model;
        let options = Options {
            dropout: Some(case.dropout),
            stochastic_depth: Some(case.stochastic_depth),
            ..Options::default()
        };
        let mut network = case.setup.network(options);
        let tape = network.record(&case.setup.images(), &mut Rng::new(0)).unwrap();
        let logits = tape.value(network.graph().output()).clone();
        let (loss, gradient) = cross_entropy(&values(&logits), &case.targets, case.label_smoothing);
        assert!((loss / case.loss - 1.0).abs() < 1e-5, "{model}: loss {loss}, PyTorch {}", case.loss);

        let gradient: Vec<f32> = gradient.iter().map(|&g| g as f32).collect();
        let gradient = Tensor::from_vec(gradient, logits.dims(), &Device::Cpu).unwrap();
        let statistics = tape.statistics(&network);
        let gradients = tape.backward(&network, &gradient, |_| true).unwrap();
        assert!(
            gradients.keys().eq(case.gradients.keys()),
            "{model}: not the same parameters have gradients"
        );
        // Relative to the whole gradient; PyTorch's own f32 gradients are up to 8e-5 away from its f64 ones.
        let mut worst = (0.0, "");
        for (name, expected) in &case.gradients {
            let ours = &gradients[name];
            let error = Summary::of(ours).difference(expected, ours.elem_count()) / case.gradient_norm;
            if error > worst.0 {
                worst = (error, name);
            }
        }
        println!("{model}: gradients differ by {:.1e} of their norm, at {}", worst.0, worst.1);
        assert!(worst.0 < 1e-4, "{model}: {} differs by {:e} of the gradient's norm", worst.1, worst.0);

        network.track(&statistics).unwrap();
        for (name, expected) in &case.running {
            let ours = network.weights().get(name);
            let error = Summary::of(ours).difference(expected, ours.elem_count()) / expected.norm;
            assert!(error < 1e-5, "{model}: {name} differs by {error:e}");
        }
    }
}
