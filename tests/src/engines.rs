//! The engines under test, each with a model in it: ONNX Runtime, tract and candle-onnx behind one function.

use std::path::Path;

use candle_onnx::onnx::ModelProto;
use ndarray::ArrayD;
use tallow_runtime::{EngineChoice, EngineKind, EngineOptions, GpuOptions, ModelInfo, Network, RuntimeError};

use crate::candle_onnx_engine::CandleOnnx;
use crate::images::Images;
use crate::report::Outcome;
use crate::verify::VerifyOptions;

/// The version that `Cargo.lock` has of candle and candle-onnx.
pub(crate) const CANDLE_VERSION: &str = "0.11.1";

/// Where ONNX Runtime and tract load a model from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    File(&'a Path),
    Bytes(&'a [u8]),
}

type Run = Box<dyn Fn(&Images) -> Result<Vec<ArrayD<f32>>, Outcome>>;

/// An engine that has loaded a model, or the reason why not.
pub(crate) struct Engine {
    pub(crate) name: &'static str,
    /// Library and version.
    pub(crate) version: Option<String>,
    /// More of it: the library's place, or what was done to make the model run.
    pub(crate) note: Option<String>,
    run: Result<Run, Outcome>,
}

impl Engine {
    /// The float32 outputs for a batch, in the order of [`ModelInfo::outputs`].
    pub(crate) fn run(&self, images: &Images) -> Result<Vec<ArrayD<f32>>, Outcome> {
        self.run.as_ref().map_err(Clone::clone)?(images)
    }
}

/// The engines in the order in which they are preferred as a reference; one is loaded when it is asked for.
pub(crate) fn engines<'a>(
    source: Source<'a>,
    info: &'a ModelInfo,
    model: &'a ModelProto,
    options: &'a VerifyOptions,
) -> impl Iterator<Item = Engine> + 'a {
    let served = options.served.iter().map(move |&kind| serving(source, kind, &options.engines));
    served.chain(std::iter::once_with(move || evaluator(info, model)))
}

pub(crate) fn serving(source: Source<'_>, kind: EngineKind, options: &EngineOptions) -> Engine {
    let choice = EngineChoice::Named(kind);
    let options = &EngineOptions {
        binding: options.binding.filter(|_| kind != EngineKind::Tract),
        gpu: if kind.is_gpu() { options.gpu.clone() } else { GpuOptions::default() },
        ..options.clone()
    };
    let network = match source {
        Source::File(path) => Network::open(path, choice, options),
        Source::Bytes(bytes) => Network::from_bytes(bytes.to_vec(), choice, options),
    };
    let name = match kind {
        EngineKind::OrtCuda => "ort-cuda",
        EngineKind::OrtTensorrt => "ort-tensorrt",
        EngineKind::Ort => "ort",
        EngineKind::Tract => "tract",
    };
    match network {
        Ok(network) => Engine {
            name,
            version: Some(network.selection().version.clone()),
            note: Some(network.selection().description.clone()),
            run: Ok(Box::new(move |images| {
                let outputs = match &images.pixels {
                    Some(pixels) => network.run(pixels.view()),
                    None => network.run(images.floats.view()),
                };
                outputs.map_err(outcome)
            })),
        },
        Err(error) => Engine { name, version: None, note: None, run: Err(outcome(error)) },
    }
}

fn evaluator(info: &ModelInfo, model: &ModelProto) -> Engine {
    let (run, note): (Result<Run, Outcome>, _) = match CandleOnnx::new(info, model) {
        Ok(evaluator) => {
            let note = evaluator.rewritten();
            (Ok(Box::new(move |images| evaluator.run(&images.floats))), note)
        }
        Err(missing) => (Err(Outcome::NotRunnable { missing }), None),
    };
    Engine { name: "candle-onnx", version: Some(format!("candle-onnx {CANDLE_VERSION}")), note, run }
}

fn outcome(error: RuntimeError) -> Outcome {
    match error {
        RuntimeError::Unavailable { reason, remedy, .. } => {
            Outcome::NotRun { reason: format!("{reason}; {remedy}") }
        }
        error => Outcome::Failed { reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_told_is_the_version_locked() {
        let lock = include_str!("../../Cargo.lock");
        for name in ["candle-core", "candle-onnx"] {
            let entry =
                lock.split("[[package]]").find(|p| p.contains(&format!("name = \"{name}\"\n"))).unwrap();
            assert!(entry.contains(&format!("version = \"{}\"", super::CANDLE_VERSION)), "{entry}");
        }
    }
}
