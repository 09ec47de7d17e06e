//! Every family and variant of the zoo, at a small image size: candle, ONNX Runtime, tract and candle-onnx agree.
//! Batches of 1 and 3 in one session, random weights and batch-norm statistics.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod suite;

use tallow_exporter::OnnxOptions;
use tallow_models::{Options, PaddingStyle};

/// Rows and columns differ, and are odd somewhere, so that a swapped axis or pad shows.
fn agree(name: &str, height: usize, width: usize) {
    let options = Options { height: Some(height), width: Some(width), ..Options::new(7, height) };
    let graph = tallow_models::build(name, &options).unwrap();
    suite::check(&graph, &OnnxOptions::default(), None);
}

#[test]
fn plain_cnn_agrees() {
    agree("plain_cnn", 32, 32);
    agree("plain_cnn", 33, 40);
}

#[test]
fn resnets_agree() {
    agree("resnet18", 64, 64);
    agree("resnet18", 65, 47);
    agree("resnet34", 48, 64);
    agree("resnet50", 64, 49);
    agree("resnet101", 33, 64);
    agree("resnet152", 40, 40);
}

#[test]
fn cifar_resnets_agree() {
    for name in tallow_models::names().filter(|name| name.ends_with("_cifar")) {
        agree(name, 16, 17);
    }
    for name in ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"] {
        agree(name, 32, 31);
    }
}

#[test]
fn efficientnets_agree() {
    for name in
        ["efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"]
    {
        agree(name, 64, 63);
    }
}

#[test]
fn large_efficientnets_agree() {
    for name in ["efficientnet_b5", "efficientnet_b6", "efficientnet_b7"] {
        agree(name, 33, 48);
    }
}

#[test]
fn efficientnet_lites_agree() {
    for name in tallow_models::names().filter(|name| name.starts_with("efficientnet_lite")) {
        agree(name, 64, 49);
    }
}

#[test]
fn tensorflow_padding_agrees() {
    for (name, size) in [("resnet18", 64), ("resnet18", 65), ("efficientnet_b0", 64), ("efficientnet_b0", 65)]
    {
        let options = Options { padding: Some(PaddingStyle::Same), ..Options::new(5, size) };
        let graph = tallow_models::build(name, &options).unwrap();
        suite::check(&graph, &OnnxOptions::default(), None);
    }
}

#[test]
fn the_tests_above_name_every_network() {
    let here = include_str!("zoo.rs");
    let pattern = |name: &str| name.ends_with("_cifar") || name.starts_with("efficientnet_lite");
    for name in tallow_models::names() {
        assert!(pattern(name) || here.contains(&format!("\"{name}\"")), "{name} is not verified here");
    }
}
