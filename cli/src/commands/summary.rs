//! `tallow summary`: what a network is made of.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use tallow_builder::Graph;
use tallow_builder::graph::{LayerCost, Totals};
use tallow_exporter::tensorflow::SavedModel;
use tallow_models::Options;
use tallow_trainer::RunDir;

use crate::failure::usage;
use crate::model::is_run;
use crate::output::{json, say, table, thousands};
use crate::zoo;

#[derive(clap::Args)]
pub struct Args {
    /// A network's name, a run directory or a model directory; without it, all networks are listed
    network: Option<PathBuf>,
    #[command(flatten)]
    zoo: zoo::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Summary {
    network: String,
    input: Vec<usize>,
    layers: Vec<LayerCost>,
    totals: Totals,
}

pub fn run(args: &Args) -> Result<()> {
    let graph = match &args.network {
        Some(network) => open(network, &args.zoo)?,
        None if args.zoo.config().is_some() => of_zoo(None, &args.zoo)?,
        None if args.zoo.is_some() => return Err(usage("name the network that the flags are for")),
        None => return list(args.json),
    };
    let summary = Summary {
        network: graph.name().to_owned(),
        input: graph.input_shape().dims(),
        layers: graph.costs(),
        totals: graph.totals(),
    };
    if args.json { json(&summary) } else { print(&graph, &summary) }
}

fn of_zoo(name: Option<&str>, zoo: &zoo::Args) -> Result<Graph> {
    let (architecture, options) = zoo.resolve(name)?;
    Ok(architecture.build(&options)?)
}

fn open(network: &Path, zoo: &zoo::Args) -> Result<Graph> {
    let is_path = network.components().count() > 1 || network.exists();
    match network.to_str().filter(|name| !is_path || tallow_models::find(name).is_ok()) {
        Some(name) => of_zoo(Some(name), zoo),
        None if zoo.is_some() => Err(usage(
            "--config, --classes, --size, --width and --depth are for a network of the zoo; a trained one has its own",
        )),
        None if is_run(network) => Ok(RunDir::open(network)?.graph()?),
        None if SavedModel::is_at(network) => Ok(SavedModel::open(network)?.graph().clone()),
        None => bail!(
            "{} is neither a network of the zoo nor a run directory or SavedModel: `tallow summary` lists the networks",
            network.display()
        ),
    }
}

fn print(graph: &Graph, summary: &Summary) -> Result<()> {
    let window = |layer: &LayerCost| match (layer.kernel, layer.stride) {
        (Some([kh, kw]), Some([sh, sw])) if sh == sw => format!("{kh}×{kw} /{sh}"),
        (Some([kh, kw]), Some([sh, sw])) => format!("{kh}×{kw} /{sh}×{sw}"),
        _ => String::new(),
    };
    let count = |n: u64| if n == 0 { String::new() } else { thousands(n) };
    let dims = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let row = |layer: &LayerCost| {
        vec![
            layer.name.clone(),
            layer.op.to_owned(),
            dims(&layer.output),
            window(layer),
            count(layer.parameters as u64),
            count(layer.macs),
        ]
    };
    let rows: Vec<Vec<String>> = summary.layers.iter().map(row).collect();
    table(&["layer", "op", "output", "kernel", "parameters", "MACs"], &rows)?;
    let totals = &summary.totals;
    say!("")?;
    say!("{}, input {}, output {}", graph.name(), dims(&summary.input), graph.output_shape())?;
    say!("parameters   {:>16}", thousands(totals.parameters as u64))?;
    say!("buffers      {:>16}", thousands(totals.buffers as u64))?;
    say!("MACs         {:>16}  for one image; twice as many FLOPs", thousands(totals.macs))?;
    say!("activations  {:>16}  bytes for one image in training", thousands(totals.activation_bytes as u64))
}

fn list(as_json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Entry {
        name: &'static str,
        size: usize,
        classes: usize,
        parameters: usize,
        macs: u64,
        source: &'static str,
    }
    let mut entries = vec![];
    for network in tallow_models::architectures().iter().chain(tallow_models::timm_architectures()) {
        let Totals { parameters, macs, .. } = network.build(&Options::default())?.totals();
        let (name, size, classes, source) = (network.name, network.native, network.classes, network.source);
        entries.push(Entry { name, size, classes, parameters, macs, source });
    }
    if as_json {
        return json(&entries);
    }
    let row = |e: &Entry| {
        let numbers = [thousands(e.parameters as u64), format!("{:.3}", e.macs as f64 / 1e9)];
        let [parameters, gmacs] = numbers;
        vec![e.name.into(), e.size.to_string(), e.classes.to_string(), parameters, gmacs, e.source.into()]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    table(&["network", "size", "classes", "parameters", "GMACs", "source"], &rows)?;
    say!("")?;
    say!(
        "timm/… are timm's networks, with timm's padding, eps and preprocessing: name them for weights that are timm's"
    )
}
