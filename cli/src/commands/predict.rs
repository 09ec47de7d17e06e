//! `tallow predict`: labels for images.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tallow_runtime::{Classifier, EngineChoice, EngineOptions, OutputKind, Prediction, Preprocess};

use crate::model::onnx_file;
use crate::output::{json, percent};

#[derive(clap::Args)]
pub struct Args {
    /// An .onnx file, or a run or model directory that holds one
    model: PathBuf,
    /// Images: JPEG, PNG, WebP or BMP
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// The engine: auto, ort-cuda, ort or tract
    #[arg(long, default_value_t = EngineChoice::Auto)]
    engine: EngineChoice,
    /// Labels to show for each image
    #[arg(short = 'k', long, default_value_t = 5)]
    top_k: usize,
    /// A text file with one class name a line, for a file that others made
    #[arg(long)]
    labels: Option<PathBuf>,
    /// Side of the square input, for a file that others made: ImageNet's mean and standard deviation are assumed
    #[arg(long)]
    size: Option<u32>,
    /// The file's output is probabilities already, for a file that others made
    #[arg(long)]
    probabilities: bool,
    /// CUDA device for ort-cuda
    #[arg(long, default_value_t = 0)]
    cuda_device: i32,
    /// The most memory that ort-cuda may take, in MB
    #[arg(long)]
    cuda_memory: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    if args.top_k == 0 {
        bail!("--top-k 0 shows nothing: choose at least 1");
    }
    let classifier = open(args, threads)?;
    eprintln!("{}", classifier.selection());
    let mut failed = 0;
    let mut results = vec![];
    for path in &args.images {
        match classifier.classify_file(path, args.top_k) {
            Ok(predictions) if args.json => results.push(json!({ "image": path, "predictions": predictions })),
            Ok(predictions) => print(path, &predictions, args.images.len() > 1),
            // One bad image does not keep the others from being labelled, but the command fails.
            Err(error) => {
                failed += 1;
                eprintln!("error: {error}");
                results.push(json!({ "image": path, "error": error.to_string() }));
            }
        }
    }
    if args.json {
        json(&results)?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn open(args: &Args, threads: Option<usize>) -> Result<Classifier> {
    let options = EngineOptions {
        threads,
        cuda_device: args.cuda_device,
        cuda_memory_limit: args.cuda_memory.map(|megabytes| megabytes << 20),
        ..EngineOptions::default()
    };
    let mut builder = Classifier::builder().engine(args.engine).options(options);
    if let Some(path) = &args.labels {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        builder = builder.labels(text.lines().map(str::to_owned).collect());
    }
    if let Some(size) = args.size {
        builder = builder.preprocess(Preprocess::imagenet(size, size));
    }
    if args.probabilities {
        builder = builder.output(OutputKind::Probabilities);
    }
    Ok(builder.open(onnx_file(&args.model)?)?)
}

fn print(path: &std::path::Path, predictions: &[Prediction], several: bool) {
    if several {
        println!("{}", path.display());
    }
    for prediction in predictions {
        println!("{:>9}  {}", percent(f64::from(prediction.probability)), prediction.label);
    }
}
