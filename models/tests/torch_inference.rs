//! Inference gives what PyTorch gives for the same weights: torchvision's networks, timm's for TensorFlow's padding.

mod torch;

use serde::Deserialize;
use tallow_models::Options;
use torch::{Setup, cases, values};

/// Relative to the largest magnitude of what is compared.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Logits {
    #[serde(flatten)]
    setup: Setup,
    logits_f64: Vec<Vec<f64>>,
}

#[test]
fn logits_are_pytorchs() {
    for case in cases::<Logits>(include_str!("../../tests/parity/fixtures/logits.json")) {
        let Setup { model, height, width, .. } = &case.setup;
        let logits = case.setup.network(Options::default()).forward(&case.setup.images()).unwrap();
        assert_eq!(logits.dims(), [case.setup.batch, case.setup.classes]);
        let expected = case.logits_f64.concat();
        let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        let difference = values(&logits).iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        let relative = difference / largest;
        println!("{model} {height}×{width}: {relative:.1e}");
        assert!(relative <= TOLERANCE, "{model} at {height}×{width}: {relative:e}");
    }
}

#[derive(Deserialize)]
struct LayerStatistics {
    #[serde(flatten)]
    setup: Setup,
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    shape: Vec<usize>,
    mean: f64,
    std: f64,
    abs_max: f64,
}

#[test]
fn every_layers_output_has_pytorchs_statistics() {
    for case in cases::<LayerStatistics>(include_str!("../../tests/parity/fixtures/layer_statistics.json")) {
        let network = case.setup.network(Options::default());
        let nodes = network.graph().nodes();
        // A module of several layers gives what its last layer gives.
        let place = |module: &str| {
            let inside = format!("{module}.");
            nodes.iter().rposition(|node| node.name == module || node.name.starts_with(&inside))
        };
        let expected: Vec<(usize, &Layer)> =
            case.layers.iter().map(|layer| (place(&layer.name).expect(&layer.name), layer)).collect();
        let mut compared = 0;
        network
            .forward_watched(&case.setup.images(), |id, output| {
                for (_, layer) in expected.iter().filter(|(place, _)| *place == id.index()) {
                    let v = values(output);
                    assert_eq!(output.dims(), layer.shape, "{} {}", case.setup.model, layer.name);
                    let mean = v.iter().sum::<f64>() / v.len() as f64;
                    let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
                    let abs_max = v.iter().fold(0f64, |m, x| m.max(x.abs()));
                    for (what, ours, theirs) in [
                        ("mean", mean, layer.mean),
                        ("std", var.sqrt(), layer.std),
                        ("max", abs_max, layer.abs_max),
                    ] {
                        let relative = (ours - theirs).abs() / layer.abs_max;
                        assert!(
                            relative <= TOLERANCE,
                            "{} {} {what}: {relative:e}",
                            case.setup.model,
                            layer.name
                        );
                    }
                    compared += 1;
                }
            })
            .unwrap();
        assert_eq!(compared, case.layers.len());
    }
}
