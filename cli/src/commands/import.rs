//! `tallow import`: weights from PyTorch, TensorFlow or safetensors, as a safetensors file that every command takes.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Device;
use serde_json::json;
use tallow_builder::Graph;
use tallow_exporter::tensorflow::SavedModel;
use tallow_exporter::{Existing, Head, Imported, read_weights};
use tallow_models::{Options, Scaling};
use tallow_trainer::RunDir;

use crate::factors::Factors;
use crate::failure::usage;
use crate::image_size::ImageSize;
use crate::model::is_run;
use crate::output::{json, note, say, thousands};

/// Names shown of what was left out.
const SHOWN: usize = 5;

#[derive(clap::Args)]
pub struct Args {
    /// A .pth or .pt file of PyTorch's, a safetensors file, a checkpoint of TensorFlow's (its prefix, one of its files or
    /// its directory), or a SavedModel
    file: PathBuf,
    /// The network of the zoo that the weights are of [default: that of a SavedModel of Tallow's]
    #[arg(long)]
    model: Option<String>,
    /// Classes of the network
    #[arg(long, requires = "model")]
    classes: Option<usize>,
    /// Side of its square images, pixels, or HEIGHTxWIDTH: only of networks whose weights depend on it
    #[arg(long, value_name = "PIXELS", requires = "model", visible_alias = "resolution")]
    size: Option<ImageSize>,
    #[command(flatten)]
    factors: Factors,
    /// Where the state dict is in a checkpoint of PyTorch's, such as ema or model.state_dict [default: state_dict,
    /// model_state_dict, model or weights]
    #[arg(long)]
    key: Option<String>,
    /// The safetensors file to write
    #[arg(short, long)]
    output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if !args.file.exists() && tallow_exporter::tensorflow::bundle_at(&args.file).is_none() {
        bail!("{} does not exist: name a file, a checkpoint's prefix or a directory", args.file.display());
    }
    if is_run(&args.file) {
        let weights = RunDir::open(&args.file)?.best().join("weights.safetensors");
        bail!("{} is a run, whose weights need no import: give {}", args.file.display(), weights.display());
    }
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    existing.check_file(&args.output)?;
    let graph = network(args)?;
    let Imported { weights, left_out, source, .. } =
        read_weights(&graph, &args.file, args.key.as_deref(), Head::Kept, &Device::Cpu)?;
    weights.save(&args.output)?;
    let parameters = graph.totals().parameters;
    if args.json {
        let network = graph.name();
        let output = args.output.display().to_string();
        return json(
            &json!({ "path": output, "network": network, "parameters": parameters, "left_out": left_out }),
        );
    }
    if !left_out.is_empty() {
        let shown = left_out.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if left_out.len() > SHOWN { ", …" } else { "" };
        note!(
            "left out, as part of the training and not of the network: {shown}{more} ({} in all)",
            left_out.len()
        );
    }
    if source != args.file {
        note!("read from {}", source.display());
    }
    say!("{}  {} with {} parameters", args.output.display(), graph.name(), thousands(parameters as u64))
}

fn network(args: &Args) -> Result<Graph> {
    let Some(model) = &args.model else {
        if args.factors.is_some() {
            return Err(usage("--width and --depth are for a network that --model names"));
        }
        return of_saved_model(&args.file);
    };
    // A SavedModel of Tallow's says how many classes it has.
    let own = || SavedModel::open(&args.file).ok().map(|model| model.graph().output_shape().elements());
    let options = Options {
        classes: args.classes.or_else(own),
        width: args.size.map(|size| size.width as usize),
        height: args.size.map(|size| size.height as usize),
        scaling: args.factors.over(Scaling::NONE),
        ..Options::default()
    };
    Ok(tallow_models::build(model, &options)?)
}

fn of_saved_model(path: &Path) -> Result<Graph> {
    if !SavedModel::is_at(path) {
        return Err(usage("say with --model which network the weights are of; `tallow summary` lists them"));
    }
    let model = SavedModel::open(path)?;
    let graph = model.graph();
    let Ok(architecture) = tallow_models::find(graph.name()) else { return Ok(graph.clone()) };
    // What the zoo makes is what the file has to fit: a SavedModel's own graph may have lost its batch norms by --fold.
    let [_, height, width] = graph.input_shape().dims()[..] else { return Ok(graph.clone()) };
    let options = Options {
        classes: Some(graph.output_shape().elements()),
        width: Some(width),
        height: Some(height),
        ..Options::default()
    };
    Ok(architecture.build(&options)?)
}
