//! Runs one `.onnx` file in every engine on the same images.
//! candle runs the layer graph the file was made from, so that the export itself is under test.

use std::path::Path;

use candle_core::Tensor;
use ndarray::{Array4, ArrayD};
use tallow_builder::Network;
use tallow_builder::graph::Shape;
use tallow_exporter::onnx::PROBABILITIES;
use tallow_exporter::passes::append_softmax;
use tallow_runtime::{Dim, EngineChoice, EngineKind, EngineOptions, ModelInfo, RuntimeError};

use crate::candle_onnx_engine;
use crate::error::Error;
use crate::outputs::{Outputs, compare, random_images};
use crate::report::{Outcome, Report, Row};

/// What to verify with.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Seed of the random images.
    pub seed: u64,
    /// Images a batch; the batches run one after another in one session.
    pub batches: Vec<usize>,
    /// The largest difference allowed, relative to the reference's largest output.
    pub tolerance: f64,
    /// Where libonnxruntime is, and so on.
    pub engines: EngineOptions,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { seed: 1, batches: vec![1, 3], tolerance: 1e-5, engines: EngineOptions::default() }
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
    let info = ModelInfo::read(path)?;
    let sample = sample_shape(&info)?;
    let images = random_images(options.seed, &options.batches, sample);

    let mut runs =
        vec![Run { engine: "candle", result: in_candle(&info, sample, network, &images)?, note: None }];
    for kind in [EngineKind::Ort, EngineKind::Tract] {
        runs.push(in_engine(path, kind, &images, options));
    }
    let (result, note) = candle_onnx_engine::run(path, &images);
    runs.push(Run { engine: "candle-onnx", result, note });

    let first = runs.iter().find_map(|run| Some((run.engine, run.result.as_ref().ok()?)));
    let (reference, expected) = match first {
        Some((engine, outputs)) => (engine, outputs.clone()),
        None => ("none", vec![]),
    };
    let row = |run: Run| {
        let outcome = match run.result {
            Err(outcome) => outcome,
            Ok(_) if run.engine == reference => Outcome::Reference,
            Ok(outputs) => match compare(&expected, &outputs) {
                Ok(d) => Outcome::Compared {
                    max_abs: d.max_abs,
                    max_rel: d.max_rel,
                    top1: d.top1,
                    within: d.max_rel <= options.tolerance,
                },
                Err(reason) => Outcome::Failed { reason },
            },
        };
        Row { engine: run.engine.into(), outcome, note: run.note }
    };
    let rows = runs.into_iter().map(row).collect();
    let batches = options.batches.clone();
    Ok(Report::new(info.file, reference.into(), options.tolerance, batches, options.seed, rows))
}

/// An engine and what came of it.
struct Run {
    engine: &'static str,
    result: Result<Outputs, Outcome>,
    note: Option<String>,
}

fn sample_shape(info: &ModelInfo) -> Result<[usize; 3], Error> {
    match info.input.dims.as_deref() {
        Some([_, Dim::Fixed(channels), Dim::Fixed(height), Dim::Fixed(width)]) => {
            Ok([*channels, *height, *width])
        }
        _ => Err(Error::FreeSize {
            file: info.file.clone(),
            input: info.input.name.clone(),
            shape: info.input.shape_text(),
        }),
    }
}

fn in_candle(
    info: &ModelInfo,
    sample: [usize; 3],
    network: Option<&Network>,
    images: &[Array4<f32>],
) -> Result<Result<Outputs, Outcome>, Error> {
    let Some(network) = network else {
        let reason = "there is no layer graph beside the file; name its model or run directory".into();
        return Ok(Err(Outcome::NotRun { reason }));
    };
    let takes = Shape::map(sample[0], sample[1], sample[2]);
    if takes != network.graph().input_shape() {
        return Err(Error::OtherNetwork {
            file: info.file.clone(),
            file_takes: takes.to_string(),
            network: network.graph().name().to_owned(),
            network_takes: network.graph().input_shape().to_string(),
        });
    }
    let with_softmax;
    let network = if info.outputs.first().is_some_and(|output| output.name == PROBABILITIES) {
        let (graph, weights) = append_softmax(network.graph(), network.weights())?;
        with_softmax = Network::new(graph, weights);
        &with_softmax
    } else {
        network
    };
    let forward = |batch| -> Result<_, Box<tallow_builder::Error>> {
        let images = to_tensor(batch).map_err(tallow_builder::Error::from)?;
        Ok(to_array(&network.forward(&images)?).map_err(tallow_builder::Error::from)?)
    };
    let outputs: Result<Outputs, _> = images.iter().map(forward).collect();
    Ok(outputs.map_err(|e| Outcome::Failed { reason: e.to_string() }))
}

fn in_engine(path: &Path, kind: EngineKind, images: &[Array4<f32>], options: &VerifyOptions) -> Run {
    let engine = match kind {
        EngineKind::OrtCuda => "ort-cuda",
        EngineKind::Ort => "ort",
        EngineKind::Tract => "tract",
    };
    let mut note = None;
    let mut run = || -> Result<Outputs, RuntimeError> {
        let network = tallow_runtime::Network::open(path, EngineChoice::Named(kind), &options.engines)?;
        note = Some(network.selection().description.clone());
        images.iter().map(|batch| Ok(network.run(batch.view())?.swap_remove(0))).collect()
    };
    let result = run().map_err(|e| match e {
        RuntimeError::Unavailable { reason, remedy, .. } => {
            Outcome::NotRun { reason: format!("{reason}; {remedy}") }
        }
        e => Outcome::Failed { reason: e.to_string() },
    });
    Run { engine, result, note }
}

pub(crate) fn to_tensor(images: &Array4<f32>) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = images.iter().copied().collect();
    Tensor::from_vec(values, images.dim(), &candle_core::Device::Cpu)
}

pub(crate) fn to_array(tensor: &Tensor) -> candle_core::Result<ArrayD<f32>> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    ArrayD::from_shape_vec(tensor.dims(), values).map_err(candle_core::Error::wrap)
}
