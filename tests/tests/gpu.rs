//! The zoo in every precision, on the CPU, on a GPU, and in the engines that serve it: one table a network, with a
//! tolerance for each kind of numbers. A row that cannot run says why; with `TALLOW_REQUIRE_CUDA=1` that fails.
//! Where there is no GPU its kernels run on the host, on the smallest networks.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use tallow_builder::Network;
use tallow_conformance::{
    Outcome, Precision, PrecisionOptions, PrecisionReport, Side, VerifyOptions, randomised, verify_precisions,
};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};
use tallow_input::Dtype;
use tallow_models::Options;

/// Compares a network of the zoo with random weights, and its float16 export, on some sides, and prints the table.
fn table(name: &str, size: usize, sides: Vec<Side>) -> PrecisionReport {
    let graph = tallow_models::build(name, &Options::new(7, size)).unwrap();
    let weights = randomised(&graph, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let export = |suffix: &str, dtype| {
        let path = folder.path().join(format!("{name}{suffix}.onnx"));
        let options = OnnxOptions { dtype, ..OnnxOptions::default() };
        write_onnx(&path, &graph, &weights, None, &options, Existing::Keep).unwrap();
        path
    };
    let (single, half) = (export("", Dtype::F32), export("_f16", Dtype::F16));
    let network = Network::new(graph, weights);
    let options = PrecisionOptions { sides, half: Some(half), verify: VerifyOptions::default() };
    let report = verify_precisions(&single, &network, &options).unwrap();
    println!("{report}\n");
    report
}

/// The tables of some networks: all of them, before any is judged.
fn tables(networks: &[(&str, usize)], sides: &[Side]) -> Vec<PrecisionReport> {
    let reports: Vec<_> = networks.iter().map(|(name, size)| table(name, *size, sides.to_vec())).collect();
    reports.iter().for_each(check);
    reports
}

fn check(report: &PrecisionReport) {
    assert!(report.agrees, "{report}");
    let required = |variable: &str| std::env::var_os(variable).is_some_and(|value| value == "1");
    for row in &report.rows {
        let Outcome::Compared { top1, .. } = row.outcome else {
            let needs: &[&str] = match (row.on.starts_with("cuda"), row.engine.starts_with("ort")) {
                (true, true) => &["TALLOW_REQUIRE_CUDA", "TALLOW_REQUIRE_ORT"],
                (true, false) => &["TALLOW_REQUIRE_CUDA"],
                (false, true) => &["TALLOW_REQUIRE_ORT"],
                (false, false) => panic!("{} needs nothing that can be missing\n{report}", row.engine),
            };
            assert!(!needs.iter().all(|&variable| required(variable)), "required: {needs:?}\n{report}");
            continue;
        };
        // In eight bits two classes may change places, in more they are further apart than that.
        assert!(top1 == 1.0 || row.precision == Precision::Bf16, "{report}");
    }
}

#[test]
fn resnets_agree_in_every_precision() {
    let networks =
        [("plain_cnn", 32), ("resnet20", 32), ("resnet18_cifar", 32), ("resnet18", 64), ("resnet50", 64)];
    tables(&networks, &Side::all(0));
}

#[test]
fn efficientnets_agree_in_every_precision() {
    tables(&[("efficientnet_b0", 64), ("efficientnet_lite0", 64)], &Side::all(0));
}

#[test]
fn the_kernels_for_gpus_agree_on_the_host() {
    let networks = [("plain_cnn", 32), ("resnet20", 16), ("efficientnet_b0", 32)];
    for report in tables(&networks, &Side::emulated()) {
        let distance = |precision| match report.row("candle", "emulated", precision).unwrap().outcome {
            Outcome::Compared { max_rel, .. } => max_rel,
            ref other => panic!("{other:?}"),
        };
        // Each did compute in fewer bits than the one before it.
        let [single, half, brain] = [Precision::F32, Precision::F16, Precision::Bf16].map(distance);
        assert!(single < half && half < brain, "{report}");
    }
}
