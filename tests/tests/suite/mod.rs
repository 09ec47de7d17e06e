//! What the integration tests share: export a network with random weights, verify the file, demand agreement.
//! With `TALLOW_REQUIRE_ORT=1` a missing ONNX Runtime fails; without it, it is reported as not run.

use std::path::Path;

use candle_core::{Device, Tensor};
use tallow_builder::{Graph, Network, Weights};
use tallow_conformance::{Outcome, Report, VerifyOptions, randomised, verify};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};

/// Exports `graph` with random weights and compares all engines on it. Prints the table; panics with it where they
/// do not agree, or where candle-onnx lacks another operator than `missing`.
pub fn check(graph: &Graph, options: &OnnxOptions, missing: Option<&str>) -> Report {
    let folder = tempfile::tempdir().unwrap();
    check_in(folder.path(), graph, options, &VerifyOptions::default(), missing)
}

/// As [`check`], with options for the comparison.
pub fn check_in(
    folder: &Path,
    graph: &Graph,
    options: &OnnxOptions,
    verify_options: &VerifyOptions,
    missing: Option<&str>,
) -> Report {
    check_weights(folder, graph, randomised(graph, 1).unwrap(), options, verify_options, missing)
}

/// As [`check_in`], with weights that something is to be shown of.
pub fn check_weights(
    folder: &Path,
    graph: &Graph,
    weights: Weights,
    options: &OnnxOptions,
    verify_options: &VerifyOptions,
    missing: Option<&str>,
) -> Report {
    let path = folder.join(format!("{}.onnx", graph.name()));
    write_onnx(&path, graph, &weights, None, options, Existing::Replace).unwrap();
    let network = Network::new(graph.clone(), weights);
    let spread = spread(&network);
    // Far above the tolerance, so that an error in what the image contributes cannot hide below it.
    assert!(
        spread > 0.03,
        "the output hardly depends on the image ({spread:e}), so agreement proves nothing"
    );
    let report = verify(&path, Some(&network), verify_options).unwrap();
    println!("{report}\n");
    assert!(report.agrees, "{options:?}\n{report}");

    assert!(matches!(report.row("tract").unwrap().outcome, Outcome::Compared { .. }), "{report}");
    let ort = &report.row("ort").unwrap().outcome;
    if std::env::var_os("TALLOW_REQUIRE_ORT").is_some_and(|value| value == "1") {
        assert!(matches!(ort, Outcome::Compared { .. }), "ONNX Runtime is required\n{report}");
    }
    let lacks = match &report.row("candle-onnx").unwrap().outcome {
        Outcome::Compared { .. } => None,
        Outcome::NotRunnable { missing } => Some(missing.as_str()),
        other => panic!("candle-onnx: {other:?}\n{report}"),
    };
    assert_eq!(lacks, missing, "what candle-onnx lacks\n{report}");
    report
}

/// How far the outputs of two flat images, one dark and one bright, are apart, relative to the largest output.
fn spread(network: &Network) -> f32 {
    let shape = network.graph().input_shape();
    let values = [-1f32, 1.0].iter().flat_map(|&v| vec![v; shape.elements()]).collect();
    let images = Tensor::from_vec(values, shape.with_batch(2), &Device::Cpu).unwrap();
    let rows = network.forward(&images).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0f32, |m, v| m.max(v.abs()));
    let difference = largest(&mut rows[0].iter().zip(&rows[1]).map(|(a, b)| a - b));
    difference / largest(&mut rows.iter().flatten().copied())
}
