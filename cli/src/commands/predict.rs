//! `tallow predict`: labels for images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;
use tallow_exporter::{OnnxOptions, export_onnx};
use tallow_runtime::{Classifier, ClassifierBuilder, EngineChoice, Prediction};

use crate::failure::usage;
use crate::model::{Trained, names_weights, note_if_altered, onnx_file, weights_flags};
use crate::output::{note, percent};
use crate::photos::{self, Answer};
use crate::{foreign, gpu, pretrained, tta};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// An .onnx file, or a run or SavedModel that holds one (not with --weights); then images (JPEG, PNG, WebP or BMP),
    /// or folders of them
    #[arg(required = true, value_name = "MODEL or IMAGE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    pretrained: pretrained::Args,
    /// The engine: auto, ort-cuda, ort-tensorrt, ort or tract
    #[arg(long, default_value_t = EngineChoice::Auto)]
    engine: EngineChoice,
    /// Labels to show for each image
    #[arg(short = 'k', long, default_value_t = 5)]
    top_k: usize,
    #[command(flatten)]
    tta: tta::Args,
    #[command(flatten)]
    foreign: foreign::Args,
    #[command(flatten)]
    gpu: gpu::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    if args.top_k == 0 {
        return Err(usage("--top-k 0 shows nothing: choose at least 1"));
    }
    let (model, images) = match args.paths.split_first() {
        Some((model, images)) if !args.pretrained.is_some() => (Some(model), images),
        _ => (None, args.paths.as_slice()),
    };
    if let Some(weights) = model.filter(|model| names_weights(model)) {
        return Err(usage(format!(
            "{} names weights, not an ONNX model: pass {}, then the images",
            weights.display(),
            weights_flags(weights)
        )));
    }
    if images.is_empty() {
        return Err(usage("name the images after the model, or folders of them"));
    }
    let images = photos::named(images)?;
    let classifier = open(args, model.map(PathBuf::as_path), threads)?;
    note!("{}", classifier.selection());
    args.tta.warn(classifier.preprocess());
    photos::each(&images, args.json, |path| {
        let predictions = classifier.classify_file(path, args.top_k)?;
        let name = path.display().to_string();
        let json = json!({ "image": name, "predictions": predictions });
        let labels = predictions.iter().map(described);
        Ok(Answer { lines: (images.len() > 1).then_some(name).into_iter().chain(labels).collect(), json })
    })
}

fn open(args: &Args, model: Option<&Path>, threads: Option<usize>) -> Result<Classifier> {
    let options = args.gpu.options(threads);
    let builder = Classifier::builder().engine(args.engine).options(options).views(args.tta.views());
    let Some(model) = model else { return open_weights(args, builder) };
    let file = onnx_file(model)?;
    let classifier = args.foreign.apply(builder)?.open(&file)?;
    note_if_altered(&file, classifier.network().info());
    Ok(classifier)
}

/// Published weights, through the .onnx file that `tallow export` would make of them.
fn open_weights(args: &Args, builder: ClassifierBuilder) -> Result<Classifier> {
    if args.foreign.probabilities() {
        return Err(usage("--probabilities is for .onnx files that others made; weights give logits"));
    }
    let trained = args.pretrained.open(args.foreign.said())?.context("no weights are named")?;
    let Trained { graph, weights, card, .. } = &trained;
    Ok(builder.from_bytes(export_onnx(graph, weights, Some(card), &OnnxOptions::default())?)?)
}

fn described(prediction: &Prediction) -> String {
    format!("{:>9}  {}", percent(f64::from(prediction.probability)), prediction.label)
}
