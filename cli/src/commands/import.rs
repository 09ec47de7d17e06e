//! `tallow import`: weights from PyTorch, TensorFlow or safetensors, as a safetensors file that every command takes.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use candle_core::Device;
use serde_json::json;
use tallow_builder::Graph;
use tallow_exporter::tensorflow::SavedModel;
use tallow_exporter::{Head, Imported, read_weights};
use tallow_models::Options;

use crate::failure::usage;
use crate::output::{json, note, say, thousands};

/// Names shown of what was left out.
const SHOWN: usize = 5;

#[derive(clap::Args)]
pub struct Args {
    /// A .pth or .pt file of PyTorch's, a safetensors file, a checkpoint of TensorFlow's (its prefix, its .index file or
    /// its directory), or a SavedModel
    file: PathBuf,
    /// The network of the zoo that the weights are of [default: that of a SavedModel of Tallow's]
    #[arg(long)]
    model: Option<String>,
    /// Classes of the network
    #[arg(long, requires = "model")]
    classes: Option<usize>,
    /// Side of its square images, pixels: only of networks whose weights depend on it
    #[arg(long, value_name = "PIXELS", requires = "model")]
    size: Option<usize>,
    /// Where the state dict is in a checkpoint of PyTorch's [default: state_dict, model_state_dict, model or weights]
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
    if args.output.exists() && !args.force {
        bail!(
            "{}: already exists; choose another path, or pass --force to replace it",
            args.output.display()
        );
    }
    let graph = network(args)?;
    let Imported { weights, left_out, .. } =
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
    say!("{}  {} with {} parameters", args.output.display(), graph.name(), thousands(parameters as u64))
}

fn network(args: &Args) -> Result<Graph> {
    let Some(model) = &args.model else {
        return of_saved_model(&args.file);
    };
    let options =
        Options { classes: args.classes, width: args.size, height: args.size, ..Options::default() };
    Ok(tallow_models::build(model, &options)?)
}

fn of_saved_model(path: &Path) -> Result<Graph> {
    if !SavedModel::is_at(path) {
        return Err(usage("say with --model which network the weights are of; `tallow summary` lists them"));
    }
    Ok(SavedModel::open(path)?.graph().clone())
}
