//! `tallow export`: from a run, a SavedModel or bare weights to files that engines run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use tallow_exporter::tensorflow::{SavedModel, SavedModelOptions, Step, write_checkpoint};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};
use tallow_input::Dtype;

use crate::failure::usage;
use crate::image_size::ImageSize;
use crate::model::{Trained, open_trained};
use crate::output::{json, say};
use crate::pretrained::{self, Said};

#[derive(clap::Args)]
pub struct Args {
    /// A run directory (its best checkpoint is exported) or a SavedModel of Tallow's
    #[arg(required_unless_present = "weights", conflicts_with = "weights")]
    from: Option<PathBuf>,
    #[command(flatten)]
    pretrained: pretrained::Args,
    /// Side of the square images for --weights, pixels, or HEIGHTxWIDTH [default: what the weights were trained with]
    #[arg(long, value_name = "PIXELS", requires = "weights", visible_alias = "resolution")]
    size: Option<ImageSize>,
    /// A text file with one class name a line, for --weights [default: theirs, or ImageNet's for 1000 classes]
    #[arg(long, requires = "weights", value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    format: Format,
    /// Where to [default: model.onnx, model.f16.onnx for --dtype f16, saved_model/ or tf_checkpoint/ in the run directory]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Version of ONNX's operator set, 15 to 21 [default: 17]
    #[arg(long)]
    opset: Option<u32>,
    /// End in softmax: the .onnx file's output is `probabilities` instead of `logits`; a SavedModel has both
    #[arg(long)]
    softmax: bool,
    /// Add class activation maps as a second output, `cam`: where in the image the network sees each class
    #[arg(long)]
    cam: bool,
    /// Put the normalisation into the .onnx graph: it takes uint8 pixels [N, H, W, 3] at the network's size and gives
    /// probabilities
    #[arg(long)]
    embed_preprocessing: bool,
    /// What the .onnx file computes in: f16 halves it and is fast on GPUs; inputs and outputs are float32 in any case
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    dtype: Precision,
    /// Fix the number of images a run takes
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Keep batch normalisation as layers of its own in the .onnx file
    #[arg(long, conflicts_with = "fold")]
    no_fold: bool,
    /// Fold batch normalisation in TensorFlow's graph, which keeps it by default so that it can be trained there
    #[arg(long)]
    fold: bool,
    /// Version of the SavedModel: the directory in it [default: 1]
    // Servers read it as a signed number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    model_version: Option<u64>,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    /// 32-bit floats
    #[value(aliases = ["fp32", "float32"])]
    F32,
    /// 16-bit floats; normalisation of bytes, batch normalisation that is not folded, and softmax stay in 32
    #[value(aliases = ["fp16", "float16"])]
    F16,
}

impl From<Precision> for Dtype {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One self-describing .onnx file
    Onnx,
    /// TensorFlow's SavedModel: graph, variables and assets, with the .onnx file in assets.extra/
    SavedModel,
    /// A checkpoint of TensorFlow 1: model.ckpt-<step>.meta, .index and .data
    TfCheckpoint,
}

pub fn run(args: &Args) -> Result<()> {
    check(args)?;
    let trained = trained(args)?;
    let onnx = OnnxOptions {
        opset: args.opset.unwrap_or(OnnxOptions::default().opset),
        fold: !args.no_fold,
        softmax: args.softmax,
        cam: args.cam,
        embed_preprocessing: args.embed_preprocessing,
        batch: args.batch,
        dtype: args.dtype.into(),
    };
    let options = SavedModelOptions { version: args.model_version.unwrap_or(1), fold: args.fold, onnx };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let output = match (&args.output, &args.from, args.format) {
        (Some(path), ..) => path.clone(),
        // Beside a float32 file, whose name other commands look for.
        (None, Some(run), Format::Onnx) if args.dtype == Precision::F16 => run.join("model.f16.onnx"),
        (None, Some(run), Format::Onnx) => run.join("model.onnx"),
        (None, Some(run), Format::SavedModel) => run.join("saved_model"),
        (None, Some(run), Format::TfCheckpoint) => run.join("tf_checkpoint"),
        (None, None, _) => return Err(usage("say where to write with --output FILE")),
    };
    let written = write(&trained, &output, args.format, &options, existing)?;
    if args.json { json(&written) } else { say!("{written}") }
}

/// Refuses flags that the format, or what is exported, has no use for.
fn check(args: &Args) -> Result<()> {
    let of_weights = args.size.is_some() || args.labels.is_some();
    if args.from.is_some() && (of_weights || args.pretrained.says_anything()) {
        return Err(usage(
            "a run or SavedModel says itself what it is: --model, --classes, --key, --size, --width, --depth and \
             --labels are for --weights",
        ));
    }
    let of_onnx = args.no_fold
        || args.softmax
        || args.cam
        || args.embed_preprocessing
        || args.batch.is_some()
        || args.opset.is_some();
    match args.format {
        Format::Onnx if args.fold => Err(usage("an .onnx file is folded unless --no-fold says otherwise")),
        Format::Onnx if args.model_version.is_some() => {
            Err(usage("--model-version is for --format saved-model"))
        }
        Format::SavedModel if args.embed_preprocessing => {
            Err(usage("a SavedModel takes normalised images: --embed-preprocessing is for --format onnx"))
        }
        Format::SavedModel | Format::TfCheckpoint if args.dtype != Precision::F32 => {
            Err(usage("TensorFlow's formats hold float32 weights: --dtype f16 is for --format onnx"))
        }
        Format::SavedModel if args.softmax => Err(usage(
            "a SavedModel gives logits, probabilities and classes in any case: --softmax is for --format onnx",
        )),
        Format::TfCheckpoint if of_onnx || args.fold || args.model_version.is_some() => Err(usage(
            "a checkpoint holds the weights as they are: --opset, --fold, --no-fold, --softmax, --cam, \
             --embed-preprocessing, --batch and --model-version are not for it",
        )),
        _ => Ok(()),
    }
}

/// What was written.
#[derive(Serialize)]
pub struct Written {
    path: String,
    bytes: u64,
    /// Of the .onnx file, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    opset: Option<u32>,
    seconds: f64,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, bytes, opset, seconds } = self;
        let opset = opset.map(|opset| format!("opset {opset}, ")).unwrap_or_default();
        write!(f, "{path}  {:.1} MB, {opset}{seconds:.2} s", *bytes as f64 / 1e6)
    }
}

/// Writes an .onnx file, a SavedModel or a checkpoint.
pub fn write(
    trained: &Trained,
    output: &Path,
    format: Format,
    options: &SavedModelOptions,
    existing: Existing,
) -> Result<Written> {
    let Trained { graph, weights, card, steps } = trained;
    let start = Instant::now();
    let files: Vec<PathBuf> = match format {
        Format::Onnx => {
            write_onnx(output, graph, weights, Some(card), &options.onnx, existing)?;
            vec![output.to_owned()]
        }
        Format::SavedModel => {
            SavedModel::write(output, graph, weights, card, options, existing)?.files().into()
        }
        Format::TfCheckpoint => {
            write_checkpoint(output, graph, weights, Step(*steps), existing)?.files().into()
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let mut bytes = 0;
    for file in &files {
        bytes += std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    }
    let opset = (format != Format::TfCheckpoint).then_some(options.onnx.opset);
    Ok(Written { path: output.display().to_string(), bytes, opset, seconds })
}

fn trained(args: &Args) -> Result<Trained> {
    let said = Said { labels: args.labels.clone(), size: args.size, ..Said::default() };
    match args.pretrained.open(said)? {
        Some(trained) => Ok(trained),
        None => open_trained(args.from.as_deref().expect("clap requires it where --weights is absent")),
    }
}
