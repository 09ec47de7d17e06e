//! What patterns and numbers mean for the networks of the zoo.

use tallow_builder::Graph;
use tallow_models::{Options, build};

use super::*;

fn network(name: &str) -> Graph {
    build(name, &Options::new(6, 64)).unwrap()
}

fn tuning(name: &str, settings: &FineTune) -> Tuning {
    Tuning::new(settings, &network(name)).unwrap()
}

fn freeze(patterns: &[&str]) -> FineTune {
    FineTune { freeze: patterns.iter().map(|&pattern| pattern.into()).collect(), ..FineTune::default() }
}

#[test]
fn a_pattern_freezes_what_it_names_and_the_moments_in_it() {
    let tuning = tuning("resnet18", &freeze(&["conv1", "bn1", "layer[1-3]*"]));
    for name in ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer3.1.bn2.weight"] {
        assert!(!tuning.trains(100, name) && !tuning.moves(100, name), "{name}");
    }
    for name in ["layer4.0.conv1.weight", "layer4.1.bn2.bias", "fc.weight", "fc.bias"] {
        assert!(tuning.trains(0, name) && tuning.moves(0, name), "{name}");
    }
    assert!(tuning.freezes_moments(0, "layer3.0.downsample.1") && !tuning.freezes_moments(0, "layer4.0.bn1"));
    assert!(!tuning.moves(0, "bn1.running_mean") && tuning.moves(0, "layer4.0.bn1.running_var"));
}

#[test]
fn a_module_stands_for_all_that_is_in_it_and_a_parameter_for_itself() {
    let tuning = tuning(
        "efficientnet_lite0",
        &freeze(&["features.3", "*.2.0.block.1.1.bias", "features.4.0.block.0.0.weight"]),
    );
    assert!(!tuning.trains(0, "features.3.0.block.0.0.weight"));
    assert!(
        !tuning.trains(0, "features.2.0.block.1.1.bias") && tuning.trains(0, "features.2.0.block.1.1.weight")
    );
    assert!(!tuning.trains(0, "features.4.0.block.0.0.weight"));
    assert!(tuning.trains(0, "features.4.0.block.1.0.weight"));
}

#[test]
fn frozen_batch_norms_are_still_scaled() {
    let tuning = tuning("resnet18", &FineTune { freeze_batch_norm: true, ..FineTune::default() });
    assert!(tuning.trains(0, "bn1.weight") && tuning.freezes_moments(0, "bn1"));
    assert!(!tuning.moves(0, "bn1.running_mean"));
}

#[test]
fn a_pattern_that_fits_nothing_is_told_what_is_near() {
    let text = |pattern| Tuning::new(&freeze(&[pattern]), &network("resnet18")).unwrap_err().to_string();
    let error = text("layr[1-3]*");
    assert!(
        error.contains("freeze `layr[1-3]*` fits no layer") && error.contains("layer1, layer2"),
        "{error}"
    );
    let error = text("layer3.2*");
    assert!(error.contains("near are layer3"), "{error}");
    let settings = FineTune {
        rates: vec![RateFactor { pattern: "features*".into(), multiplier: 0.5 }],
        ..FineTune::default()
    };
    let error = Tuning::new(&settings, &network("resnet18")).unwrap_err().to_string();
    assert!(error.contains("fine_tune.rates `features*`") && error.contains("fc"), "{error}");
    let error = text("*");
    assert!(error.contains("leaves nothing to train"), "{error}");
}

#[test]
fn rates_fall_from_the_head_to_the_stem_by_stages() {
    let settings = FineTune {
        layer_decay: Some(0.5),
        rates: vec![
            RateFactor { pattern: "layer2".into(), multiplier: 0.1 },
            RateFactor { pattern: "*.conv1.weight".into(), multiplier: 3.0 },
        ],
        ..FineTune::default()
    };
    let tuning = tuning("resnet18", &settings);
    for (name, depth, factor) in [
        ("fc.bias", 0, 1.0),
        ("layer4.1.bn2.weight", 1, 1.0),
        ("layer4.1.conv1.weight", 1, 3.0),
        ("layer2.0.bn1.bias", 3, 0.1),
        ("layer2.0.conv1.weight", 3, 0.1 * 3.0),
        ("bn1.weight", 5, 1.0),
    ] {
        let expected = 0.5f64.powi(depth) * factor;
        assert!((tuning.factor(name) - expected).abs() < 1e-15, "{name}: {}", tuning.factor(name));
    }
}

#[test]
fn stages_thaw_from_the_top_down() {
    let first = |head_epochs, unfreeze_every, name: &str| {
        let settings = FineTune { head_epochs, unfreeze_every, ..FineTune::default() };
        let tuning = tuning("resnet18", &settings);
        (0..100).find(|&epoch| tuning.trains(epoch, name)).unwrap()
    };
    let names = ["fc.weight", "layer4.0.conv1.weight", "layer3.0.bn1.weight", "conv1.weight"];
    for (head, every, expected) in
        [(0, 0, [0, 0, 0, 0]), (3, 0, [0, 3, 3, 3]), (0, 2, [0, 2, 4, 10]), (5, 1, [0, 5, 6, 9])]
    {
        assert_eq!(names.map(|name| first(head, every, name)), expected, "{head} {every}");
    }
}

#[test]
fn numbers_that_give_no_rate_are_refused() {
    let error = FineTune { layer_decay: Some(0.0), ..FineTune::default() }.validate().unwrap_err();
    assert!(error.to_string().contains("layer_decay = 0: choose"));
    let rates = vec![RateFactor { pattern: "fc".into(), multiplier: -1.0 }];
    assert!(FineTune { rates, ..FineTune::default() }.validate().unwrap_err().to_string().contains("-1"));
}
