//! Runs one `.onnx` file in every engine on the same images and compares its outputs.
//! candle runs the layer graph the file was made from, so that the export itself is under test.

use std::path::Path;

use ndarray::{Array4, ArrayD};
use tallow_builder::{Network, NodeId};
use tallow_runtime::{Dim, EngineOptions, ModelInfo};

use crate::engines::{CANDLE_VERSION, Source, engines};
use crate::error::Error;
use crate::file::OnnxFile;
use crate::outputs::{Distance, Outputs, compare, random_images};
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
    /// The largest difference allowed, relative to the reference's largest output.
    pub tolerance: f64,
    /// Rows and columns of the images, for a file that leaves them free.
    pub size: Option<[usize; 2]>,
    /// Also computes the network in f64 and reports each engine's distance to it. That is done unasked where an
    /// engine differs.
    pub noise: bool,
    /// Where libonnxruntime is, and so on.
    pub engines: EngineOptions,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            batches: vec![1, 3],
            tolerance: 1e-5,
            size: None,
            noise: false,
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
    let images = random_images(options.seed, &options.batches, sample);
    let network = match network {
        Some(network) => {
            candle_side::check(&file, sample, network)?;
            Some(candle_side::as_trained(&file, network)?)
        }
        None => None,
    };

    let mut runs = vec![in_candle(&file, network.as_ref(), &images)];
    for engine in engines(Source::File(path), &file.info, &file.model, &options.engines) {
        let outputs: Result<Vec<_>, _> = images.iter().map(|batch| engine.run(batch)).collect();
        runs.push(Run {
            engine: engine.name,
            result: outputs.map(|batches| by_name(&file, batches)),
            version: engine.version,
            note: engine.note,
        });
    }
    let mut rows = compare_all(&runs, options.tolerance);
    let differs = rows.iter().any(|row| matches!(row.outcome, Outcome::Compared { within: false, .. }));
    if let Some(network) = network.as_ref().filter(|_| options.noise || differs) {
        let exact = in_double(&file, network, &images)?;
        for (row, run) in rows.iter_mut().zip(&runs) {
            row.noise = run.result.as_ref().ok().and_then(|outputs| noise(&exact, outputs));
        }
    }
    Ok(Report::new(file.info.file, sample, options, rows))
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
        let (version, note) = (run.version.clone(), run.note.clone());
        Row { engine: run.engine.into(), outcome, noise: None, outputs, version, note }
    };
    runs.iter().enumerate().map(row).collect()
}

/// Channels, rows and columns of the images that a file takes; three channels where it does not say.
pub(crate) fn sample_shape(info: &ModelInfo, said: Option<[usize; 2]>) -> Result<[usize; 3], Error> {
    let dims = info.input.dims.as_deref();
    let fixed = |axis: usize| dims.and_then(|dims| dims.get(axis)).and_then(Dim::fixed);
    let side = |axis: usize, said: Option<usize>| match (fixed(axis), said) {
        (Some(fixed), Some(said)) if fixed != said => Err(Error::OtherSize {
            file: info.file.clone(),
            input: info.input.name.clone(),
            shape: info.input.shape_text(),
        }),
        (fixed, said) => fixed.or(said).filter(|&length| length > 0).ok_or_else(|| Error::FreeSize {
            file: info.file.clone(),
            input: info.input.name.clone(),
            shape: info.input.shape_text(),
        }),
    };
    let rows = side(2, said.map(|[rows, _]| rows))?;
    let columns = side(3, said.map(|[_, columns]| columns))?;
    Ok([fixed(1).unwrap_or(3), rows, columns])
}

fn in_candle(file: &OnnxFile, network: Option<&Network>, images: &[Array4<f32>]) -> Run {
    let result = match network {
        Some(network) => candle_outputs(file, network, images)
            .map_err(|error| Outcome::Failed { reason: error.to_string() }),
        None => Err(Outcome::NotRun {
            reason: "there is no layer graph beside the file; name its run or model directory by --from"
                .into(),
        }),
    };
    Run { engine: "candle", result, version: Some(format!("candle {CANDLE_VERSION}")), note: None }
}

fn candle_outputs(
    file: &OnnxFile,
    network: &Network,
    images: &[Array4<f32>],
) -> Result<Outputs, Box<tallow_builder::Error>> {
    let (ids, mut outputs) = slots(file, network);
    for batch in images {
        let images = to_tensor(batch).map_err(tallow_builder::Error::from)?;
        let mut problem = None;
        network.forward_watched(&images, |id, value| {
            for (slot, _) in outputs.iter_mut().zip(&ids).filter(|(_, wanted)| **wanted == id) {
                match to_array(value) {
                    Ok(value) => slot.1.push(value),
                    Err(error) => problem = Some(error),
                }
            }
        })?;
        if let Some(error) = problem {
            return Err(Box::new(error.into()));
        }
    }
    Ok(outputs)
}

/// The layers whose values are outputs, and a place for each under the file's name.
fn slots<T>(file: &OnnxFile, network: &Network) -> (Vec<NodeId>, Vec<(String, Vec<T>)>) {
    candle_side::outputs(file, network).into_iter().map(|(id, name)| (id, (name, vec![]))).unzip()
}

/// The outputs in f64.
type Exact = Vec<(String, Vec<ArrayD<f64>>)>;

fn in_double(file: &OnnxFile, network: &Network, images: &[Array4<f32>]) -> Result<Exact, Error> {
    let (ids, mut outputs) = slots(file, network);
    for batch in images {
        double::forward(network, batch, |id, value| {
            for (slot, _) in outputs.iter_mut().zip(&ids).filter(|(_, wanted)| **wanted == id) {
                slot.1.push(value.clone());
            }
        })
        .map_err(tallow_exporter::Error::from)?;
    }
    Ok(outputs)
}

/// The distance to the outputs in f64, relative to their largest; `None` where there is nothing to compare.
fn noise(exact: &Exact, outputs: &Outputs) -> Option<f64> {
    let mut largest = None;
    for (name, exact) in exact {
        let (_, series) = outputs.iter().find(|(other, _)| other == name)?;
        let mut distance = Distance::default();
        for (exact, value) in exact.iter().zip(series) {
            if exact.shape() != value.shape() {
                return None;
            }
            distance.add_all(exact, value);
        }
        largest = Some(distance.max_rel().max(largest.unwrap_or(0.0)));
    }
    largest
}
