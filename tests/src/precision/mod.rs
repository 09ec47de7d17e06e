//! One network in several kinds of numbers: candle on the CPU and on a GPU, ONNX Runtime on both, tract, in one table.
//! `side` says who computes and runs it, `emulated` runs the kernels for GPUs on the host, `report` is the table.

mod emulated;
mod report;
mod side;

use std::path::{Path, PathBuf};

use tallow_builder::graph::Op;
use tallow_builder::{Graph, Network};

use crate::candle_side;
use crate::error::Error;
use crate::file::OnnxFile;
use crate::images::{Images, sample_shape};
use crate::outputs::compare;
use crate::report::Outcome;
use crate::verify::VerifyOptions;

pub use report::{PrecisionReport, PrecisionRow};
pub use side::{Place, Side};
pub use tallow_cuda::Precision;

/// The largest difference from f32 on the CPU that rounding explains in this network, relative to the largest output.
///
/// In f32 engines differ by the order of their sums, and agree to 1e-5. In fewer bits every weight and every layer's
/// result is rounded. The errors of n roundings are independent and of either sign, so they add up like the steps of
/// a random walk, to about u·√n; twice that is allowed, for the largest of many outputs, and for layers that amplify.
/// TF32 rounds factors alone, so f16's tolerance holds for it. For n = 228, which is ResNet-50, that is 1.5e-2 in TF32
/// and f16, and 1.2e-1 in bf16.
pub fn tolerance(precision: Precision, graph: &Graph) -> f64 {
    match precision {
        Precision::F32 => 1e-5,
        _ => 2.0 * precision.unit() * (roundings(graph) as f64).sqrt(),
    }
}

/// How often a number is rounded on its way through a network: a layer's weight and its result.
fn roundings(graph: &Graph) -> usize {
    let of = |op: &Op| match op {
        Op::Input | Op::Flatten | Op::Dropout { .. } | Op::StochasticDepth { .. } => 0,
        Op::Conv2d(_) | Op::Linear(_) => 2,
        _ => 1,
    };
    graph.nodes().iter().map(|node| of(&node.op)).sum()
}

/// What to compare, and on which images.
#[derive(Clone, Debug, Default)]
pub struct PrecisionOptions {
    /// The rows besides the reference, which is candle on the CPU in f32.
    pub sides: Vec<Side>,
    /// The file's float16 export, for the engines that run it.
    pub half: Option<PathBuf>,
    /// Images and engines. A tolerance given here takes the place of every precision's own.
    pub verify: VerifyOptions,
}

/// Runs `network`, or the file that was exported from it, wherever `options` say, and compares the first output with
/// candle's on the CPU in f32.
///
/// # Errors
/// Where the file cannot be read, `network` is another one, or does not run on the CPU. What else does not run is in
/// the report.
pub fn verify_precisions(
    path: &Path,
    network: &Network,
    options: &PrecisionOptions,
) -> Result<PrecisionReport, Error> {
    let verify = &options.verify;
    if verify.batches.is_empty() || verify.batches.contains(&0) {
        return Err(Error::Option("batches must hold at least one image each, and there must be one"));
    }
    let file = OnnxFile::read(path)?;
    let sample = sample_shape(&file.info, verify.size)?;
    candle_side::check(&file, sample, network)?;
    let network = candle_side::as_trained(&file, network)?;
    let images = Images::random(&file.info, verify.seed, &verify.batches, sample);
    let reference = side::in_candle(&network, &images, Place::Cpu, Precision::F32)
        .map_err(tallow_exporter::Error::from)?;
    let sources = side::Sources { path, half: options.half.as_deref(), network: &network, images: &images };
    let rows = options.sides.iter().map(|side| {
        let precision = side.precision();
        let tolerance = verify.tolerance.unwrap_or_else(|| tolerance(precision, network.graph()));
        let (outputs, note) = side.run(&sources, &verify.engines);
        let outcome = match outputs.map(|outputs| compare(&reference, &outputs)) {
            Err(outcome) => outcome,
            Ok(Err(reason)) => Outcome::Failed { reason },
            Ok(Ok(d)) => Outcome::Compared {
                max_abs: d.max_abs,
                max_rel: d.max_rel,
                top1: d.top1,
                within: d.max_rel <= tolerance,
            },
        };
        PrecisionRow { engine: side.engine(), on: side.on(verify), precision, tolerance, outcome, note }
    });
    let rows = rows.collect();
    Ok(PrecisionReport::new(file.info.file.clone(), verify, rows))
}

#[cfg(test)]
mod tests {
    use tallow_models::Options;

    use super::*;

    #[test]
    fn tolerances_are_those_that_the_documentation_tells() {
        let graph = tallow_models::build("resnet50", &Options::new(1000, 224)).unwrap();
        assert_eq!(roundings(&graph), 228);
        let shown = |precision: Precision| format!("{:.1e}", tolerance(precision, &graph));
        assert_eq!(Precision::ALL.map(shown), ["1.0e-5", "1.5e-2", "1.5e-2", "1.2e-1"]);
        let shallow = tallow_models::build("plain_cnn", &Options::new(10, 32)).unwrap();
        assert!(tolerance(Precision::Bf16, &shallow) < tolerance(Precision::Bf16, &graph) / 2.0);
    }
}
