//! `tallow export`: from a run, a model directory or bare weights to files that engines run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::ValueEnum;
use tallow_builder::Weights;
use tallow_exporter::{Existing, ModelDir, OnnxOptions, write_onnx};
use tallow_input::ModelCard;
use tallow_models::Options;

use crate::model::{Trained, open_trained};

#[derive(clap::Args)]
pub struct Args {
    /// A run directory (its best checkpoint is exported) or a model directory
    #[arg(required_unless_present = "model", conflicts_with = "model")]
    from: Option<PathBuf>,
    /// A network of the zoo, with --weights instead of a run
    #[arg(long, requires = "weights")]
    model: Option<String>,
    /// A safetensors file that fits --model exactly
    #[arg(long, requires = "model")]
    weights: Option<PathBuf>,
    /// Classes of --model
    #[arg(long, requires = "model")]
    classes: Option<usize>,
    /// Side of --model's square images, pixels
    #[arg(long, requires = "model")]
    size: Option<usize>,
    /// A text file with one class name a line, for --model
    #[arg(long, requires = "model")]
    labels: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    format: Format,
    /// Where to [default: model.onnx, or model/, in the run directory]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Version of ONNX's operator set, 15 to 21
    #[arg(long, default_value_t = 17)]
    opset: u32,
    /// End in softmax: the output is `probabilities` instead of `logits`
    #[arg(long)]
    softmax: bool,
    /// Fix the number of images a run takes
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Keep batch normalisation as layers of its own
    #[arg(long)]
    no_fold: bool,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One self-describing .onnx file
    Onnx,
    /// A directory with model.onnx, network.json, variables/ and assets/
    ModelDir,
}

pub fn run(args: &Args) -> Result<()> {
    let trained = trained(args)?;
    let options =
        OnnxOptions { opset: args.opset, fold: !args.no_fold, softmax: args.softmax, batch: args.batch };
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    let output = match (&args.output, &args.from, args.format) {
        (Some(path), ..) => path.clone(),
        (None, Some(run), Format::Onnx) => run.join("model.onnx"),
        (None, Some(run), Format::ModelDir) => run.join("model"),
        (None, None, _) => bail!("say where to write with --output"),
    };
    write(&trained, &output, args.format, &options, existing)
}

/// Writes and says what was written.
pub fn write(
    trained: &Trained,
    output: &Path,
    format: Format,
    options: &OnnxOptions,
    existing: Existing,
) -> Result<()> {
    let Trained { graph, weights, card } = trained;
    let start = Instant::now();
    let onnx = match format {
        Format::Onnx => {
            write_onnx(output, graph, weights, Some(card), options, existing)?;
            output.to_owned()
        }
        Format::ModelDir => ModelDir::write(output, graph, weights, card, options, existing)?.onnx_path(),
    };
    let seconds = start.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(&onnx).with_context(|| onnx.display().to_string())?.len();
    println!("{}  {:.1} MB, opset {}, {seconds:.2} s", output.display(), bytes as f64 / 1e6, options.opset);
    Ok(())
}

fn trained(args: &Args) -> Result<Trained> {
    let (Some(model), Some(file)) = (&args.model, &args.weights) else {
        return open_trained(args.from.as_deref().expect("clap requires it where --model is absent"));
    };
    let network = tallow_models::find(model)?;
    let size = args.size.unwrap_or(network.native);
    let graph = network.build(&Options::new(args.classes.unwrap_or(network.classes), size))?;
    let weights = Weights::load(&graph, file, &Device::Cpu)?;
    let classes = graph.output_shape().elements();
    let labels = match &args.labels {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            text.lines().map(str::to_owned).collect()
        }
        None => (0..classes).map(|class| format!("class {class}")).collect::<Vec<_>>(),
    };
    if labels.len() != classes {
        let given = args.labels.as_deref().unwrap_or(Path::new("--labels"));
        bail!("{} names {} classes, the network has {classes}", given.display(), labels.len());
    }
    let card = ModelCard::new(model, labels, network.preprocess(size as u32, size as u32));
    Ok(Trained { graph, weights, card })
}
