//! Runs one `.onnx` file in every engine on the same images and compares its outputs.
//! candle runs the layer graph the file was made from, so that the export itself is under test.

use std::path::Path;

use candle_core::Tensor;
use ndarray::ArrayD;
use tallow_builder::Network;
use tallow_builder::cam::class_activation_maps;
use tallow_exporter::onnx::CAM;
use tallow_input::Dtype;
use tallow_runtime::{EngineKind, EngineOptions};

use crate::engines::{CANDLE_VERSION, Source, engines};
use crate::error::Error;
use crate::file::OnnxFile;
use crate::images::{Images, sample_shape};
use crate::outputs::{Distance, Outputs, compare};
use crate::report::{Outcome, OutputRow, Report, Row};
use crate::tensors::{to_array, to_tensor};
use crate::{candle_side, double};

/// What to verify with.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Seed of the random images.
    pub seed: u64,
    /// Images a batch; the batches run one after another in one session.
    pub batches: Vec<usize>,
    /// The largest difference allowed, relative to the reference's largest output; `None` takes that of the file's
    /// numbers, [`tolerance`].
    pub tolerance: Option<f64>,
    /// Rows and columns of the images, for a file that leaves them free.
    pub size: Option<[usize; 2]>,
    /// Also computes the network in f64 and reports each engine's distance to it. That is done unasked where an
    /// engine differs.
    pub noise: bool,
    /// The engines of the runtime to compare, besides candle and candle-onnx.
    pub served: Vec<EngineKind>,
    /// Where libonnxruntime is, and so on. What is for GPUs goes to the engines on GPUs alone.
    pub engines: EngineOptions,
}

impl VerifyOptions {
    /// The tolerance for a file of such numbers.
    pub(crate) fn tolerance(&self, dtype: Dtype) -> f64 {
        self.tolerance.unwrap_or(tolerance(dtype))
    }
}

/// The largest difference allowed by default, relative to the reference's largest output.
///
/// In float32 engines add in different orders, and agree to 1e-5. A float16 file is compared with the float32 network that
/// it was made from, so the difference is all of what float16 costs: numbers of 11 bits (2⁻¹¹ = 4.9e-4). Engines on a CPU
/// round the weights alone and compute in float32: the zoo with random weights differs by 3e-4 (ResNet-32) to 9e-3
/// (EfficientNet-Lite4). On a GPU each layer's result is rounded as well; 25 networks with that rounding put into their
/// float32 graphs differed by 6e-4 (ResNet-18 of CIFAR) to 9e-3 (EfficientNet-Lite2). Twice that is allowed.
pub fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-5,
        Dtype::F16 => 2e-2,
    }
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            batches: vec![1, 3],
            tolerance: None,
            size: None,
            noise: false,
            served: vec![EngineKind::Ort, EngineKind::Tract],
            engines: EngineOptions::default(),
        }
    }
}

/// Runs the file in ONNX Runtime, tract and candle-onnx, and `network`, the layer graph it was exported from, in
/// candle. The first that runs is the reference: candle where there is a network.
///
/// # Errors
/// Where the file cannot be read, or `network` is another one. What an engine refuses is in the report.
pub fn verify(path: &Path, network: Option<&Network>, options: &VerifyOptions) -> Result<Report, Error> {
    if options.batches.is_empty() || options.batches.contains(&0) {
        return Err(Error::Option("batches must hold at least one image each, and there must be one"));
    }
    let file = OnnxFile::read(path)?;
    let sample = sample_shape(&file.info, options.size)?;
    let images = Images::random(&file.info, options.seed, &options.batches, sample);
    let network = match network {
        Some(network) => {
            candle_side::check(&file, sample, network)?;
            Some(candle_side::as_trained(&file, network)?)
        }
        None => None,
    };

    let mut runs = vec![in_candle(&file, network.as_ref(), &images)];
    for engine in engines(Source::File(path), &file.info, &file.model, options) {
        let outputs: Result<Vec<_>, _> = images.iter().map(|batch| engine.run(batch)).collect();
        runs.push(Run {
            engine: engine.name,
            result: outputs.map(|batches| by_name(&file, batches)),
            version: engine.version,
            note: engine.note,
        });
    }
    let mut rows = compare_all(&runs, options.tolerance(file.info.dtype));
    let differs = rows.iter().any(|row| matches!(row.outcome, Outcome::Compared { within: false, .. }));
    if let Some(network) = network.as_ref().filter(|_| options.noise || differs) {
        let exact = in_double(network, &images)?;
        for (row, run) in rows.iter_mut().zip(&runs) {
            row.noise = run.result.as_ref().ok().and_then(|outputs| noise(&exact, outputs));
        }
    }
    let left_out = file.other_outputs();
    Ok(Report::new(file.info, sample, options, rows, left_out))
}

/// An engine and what came of it.
struct Run {
    engine: &'static str,
    result: Result<Outputs, Outcome>,
    version: Option<String>,
    note: Option<String>,
}

/// The batches' outputs, each output with its batches.
fn by_name(file: &OnnxFile, batches: Vec<Vec<ArrayD<f32>>>) -> Outputs {
    let mut outputs: Outputs = file.output_names().into_iter().map(|name| (name, vec![])).collect();
    for batch in batches {
        outputs.iter_mut().zip(batch).for_each(|((_, series), value)| series.push(value));
    }
    outputs
}

/// Compares every engine's outputs with those of the first engine that has them.
fn compare_all(runs: &[Run], tolerance: f64) -> Vec<Row> {
    let first = runs.iter().position(|run| run.result.is_ok());
    let reference = |at: usize, name: &str| {
        runs[..at].iter().find_map(|run| run.result.as_ref().ok()?.iter().find(|(other, _)| other == name))
    };
    let row = |(at, run): (usize, &Run)| {
        let mut outputs = vec![];
        let outcome = match &run.result {
            Err(outcome) => outcome.clone(),
            Ok(_) if first == Some(at) => Outcome::Reference,
            Ok(values) => 'compared: {
                let mut top1 = None;
                for (name, series) in values {
                    let Some((_, expected)) = reference(at, name) else { continue };
                    match compare(expected, series) {
                        Ok(d) => {
                            top1.get_or_insert(d.top1);
                            let (max_abs, max_rel) = (d.max_abs, d.max_rel);
                            outputs.push(OutputRow { name: name.clone(), max_abs, max_rel });
                        }
                        Err(reason) => {
                            break 'compared Outcome::Failed { reason: format!("`{name}`: {reason}") };
                        }
                    }
                }
                let largest = |value: fn(&OutputRow) -> f64| outputs.iter().map(value).fold(0.0, f64::max);
                let max_rel = largest(|output| output.max_rel);
                Outcome::Compared {
                    max_abs: largest(|output| output.max_abs),
                    max_rel,
                    top1: top1.unwrap_or(1.0),
                    within: max_rel <= tolerance,
                }
            }
        };
        if outputs.len() < 2 {
            outputs.clear(); // The row has said it.
        }
        let values = run.result.iter().flatten().flat_map(|(_, series)| series.iter().flatten());
        let not_finite = values.filter(|value| !value.is_finite()).count();
        let (version, note) = (run.version.clone(), run.note.clone());
        Row { engine: run.engine.into(), outcome, noise: None, outputs, not_finite, version, note }
    };
    runs.iter().enumerate().map(row).collect()
}

fn in_candle(file: &OnnxFile, network: Option<&Network>, images: &[Images]) -> Run {
    let result = match network {
        Some(network) => candle_outputs(file, network, images)
            .map_err(|error| Outcome::Failed { reason: error.to_string() }),
        None => Err(Outcome::NotRun {
            reason: "there is no layer graph beside the file; name its run or model directory with --from, or its weights with \
                     --weights"
                .into(),
        }),
    };
    Run { engine: "candle", result, version: Some(format!("candle {CANDLE_VERSION}")), note: None }
}

/// The output under the file's name, and class activation maps where the file has them.
fn candle_outputs(
    file: &OnnxFile,
    network: &Network,
    images: &[Images],
) -> Result<Outputs, Box<tallow_builder::Error>> {
    let outputs = file.output_names();
    let has_maps = outputs.iter().any(|name| name == CAM);
    let (mut series, mut maps) = (vec![], vec![]);
    for batch in images {
        let images = to_tensor(&batch.floats).map_err(tallow_builder::Error::from)?;
        let array = |tensor: &Tensor| to_array(tensor).map_err(tallow_builder::Error::from);
        series.push(array(&network.forward(&images)?)?);
        if has_maps && let Some((_, of_batch)) = class_activation_maps(network, &images)? {
            maps.push(array(&of_batch)?);
        }
    }
    let maps = (!maps.is_empty()).then(|| (CAM.to_owned(), maps));
    Ok(outputs.into_iter().take(1).map(|name| (name, series.clone())).chain(maps).collect())
}

/// The output in f64 for each batch.
fn in_double(network: &Network, images: &[Images]) -> Result<Vec<ArrayD<f64>>, Error> {
    let mut series = vec![];
    for batch in images {
        double::forward(network, &batch.floats, |id, value| {
            if id == network.graph().output() {
                series.push(value.clone());
            }
        })
        .map_err(tallow_exporter::Error::from)?;
    }
    Ok(series)
}

/// The distance of the first output to f64, relative to its largest; `None` where shapes differ.
fn noise(exact: &[ArrayD<f64>], outputs: &Outputs) -> Option<f64> {
    let (_, series) = outputs.first()?;
    let mut distance = Distance::default();
    for (exact, value) in exact.iter().zip(series) {
        if exact.shape() != value.shape() {
            return None;
        }
        distance.add_all(exact, value);
    }
    Some(distance.max_rel())
}
