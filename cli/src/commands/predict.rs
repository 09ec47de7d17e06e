//! `tallow predict`: labels for images.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tallow_exporter::{OnnxOptions, export_onnx};
use tallow_runtime::{Classifier, ClassifierBuilder, EngineChoice, EngineOptions, Prediction};
use tallow_trainer::data::folder::EXTENSIONS;

use crate::failure::usage;
use crate::model::{Trained, names_weights, onnx_file, weights_flags};
use crate::output::{json, note, percent, say};
use crate::{foreign, pretrained, tta};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// An .onnx file, or a run or SavedModel that holds one (not with --weights); then images (JPEG, PNG, WebP or BMP),
    /// or folders of them
    #[arg(required = true, value_name = "MODEL or IMAGE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    pretrained: pretrained::Args,
    /// The engine: auto, ort-cuda, ort or tract
    #[arg(long, default_value_t = EngineChoice::Auto)]
    engine: EngineChoice,
    /// Labels to show for each image
    #[arg(short = 'k', long, default_value_t = 5)]
    top_k: usize,
    #[command(flatten)]
    tta: tta::Args,
    #[command(flatten)]
    foreign: foreign::Args,
    /// CUDA device for ort-cuda
    #[arg(long, default_value_t = 0, value_name = "ID")]
    cuda_device: i32,
    /// The most memory that ort-cuda may take, in MB
    #[arg(long, value_name = "MB")]
    cuda_memory: Option<usize>,
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
    let images = self::images(images)?;
    let classifier = open(args, model.map(PathBuf::as_path), threads)?;
    note!("{}", classifier.selection());
    args.tta.warn(classifier.preprocess());
    let mut failed = 0;
    let mut results = vec![];
    for path in &images {
        let name = path.display().to_string();
        match classifier.classify_file(path, args.top_k) {
            Ok(predictions) if args.json => {
                results.push(json!({ "image": name, "predictions": predictions }))
            }
            Ok(predictions) => print(&name, &predictions, images.len() > 1)?,
            // One bad image does not keep the others from being labelled, but the command fails.
            Err(error) => {
                failed += 1;
                note!("error: {error}");
                results.push(json!({ "image": name, "error": error.to_string() }));
            }
        }
    }
    if args.json {
        json(&results)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open(args: &Args, model: Option<&Path>, threads: Option<usize>) -> Result<Classifier> {
    let options = EngineOptions {
        threads,
        cuda_device: args.cuda_device,
        cuda_memory_limit: args.cuda_memory.map(|megabytes| megabytes.saturating_mul(1 << 20)),
        ..EngineOptions::default()
    };
    let builder = Classifier::builder().engine(args.engine).options(options).views(args.tta.views());
    let Some(model) = model else { return open_weights(args, builder) };
    Ok(args.foreign.apply(builder)?.open(onnx_file(model)?)?)
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

/// The images that are named, and those in the folders that are named.
fn images(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut images = vec![];
    for path in named {
        let unreadable = || format!("cannot read {}", path.display());
        if !std::fs::metadata(path).with_context(unreadable)?.is_dir() {
            images.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(unreadable)?;
        let entries: Vec<PathBuf> = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<_>>()
            .with_context(unreadable)?;
        let mut found: Vec<PathBuf> = entries.into_iter().filter(|file| is_image(file)).collect();
        if found.is_empty() {
            bail!(
                "no images in the folder {}: it should hold {} files",
                path.display(),
                EXTENSIONS.join(", ")
            );
        }
        found.sort();
        images.append(&mut found);
    }
    Ok(images)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| EXTENSIONS.contains(&ending.as_str()))
}

fn print(name: &str, predictions: &[Prediction], several: bool) -> Result<()> {
    if several {
        say!("{name}")?;
    }
    for prediction in predictions {
        say!("{:>9}  {}", percent(f64::from(prediction.probability)), prediction.label)?;
    }
    Ok(())
}
