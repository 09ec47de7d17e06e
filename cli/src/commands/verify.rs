//! `tallow verify`: the same numbers in every engine, or exit code 1.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;
use tallow_builder::Network;
use tallow_conformance::{
    Certifier, LayerOptions, LayerReport, Outcome, PrecisionReport, Report, VerifyOptions, verify,
    verify_layers,
};
use tallow_exporter::onnx::read_card;
use tallow_input::ModelCard;
use tallow_runtime::{EngineChoice, EngineKind, runtime_report};

use crate::failure::usage;
use crate::image_size::ImageSize;
use crate::model::{Trained, onnx_file, open_trained, origin_of};
use crate::output::{json, note, say};
use crate::pretrained::{self, Said};
use crate::{gpu, precision};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// An .onnx file, or a run or model directory that holds one
    file: PathBuf,
    /// The run or model directory that candle takes the network from [default: the one the file lies in]
    #[arg(long, conflicts_with = "weights")]
    from: Option<PathBuf>,
    #[command(flatten)]
    pretrained: pretrained::Args,
    /// The largest difference allowed, relative to the largest logit [default: 1e-5; 2e-2 for a float16 file]
    #[arg(long)]
    tolerance: Option<f64>,
    /// Engines to compare with candle and candle-onnx, separated by commas: ort-cuda, ort-tensorrt, ort, tract
    /// [default: those of ort,tract that are there]
    #[arg(long, value_delimiter = ',')]
    engine: Option<Vec<EngineChoice>>,
    #[command(flatten)]
    gpu: gpu::Args,
    #[command(flatten)]
    precision: precision::Args,
    /// Batches to run one after another, such as 1,3,8 [default: 1,3; 1 with --layers]
    #[arg(long, value_delimiter = ',')]
    batches: Option<Vec<usize>>,
    /// Seed of the random images
    #[arg(long, default_value_t = VerifyOptions::default().seed)]
    seed: u64,
    /// Also compute the network in f64 and show each engine's distance to it: what rounding alone does
    #[arg(long)]
    noise: bool,
    /// Also compare every intermediate value, and name the first layer that differs
    #[arg(long)]
    layers: bool,
    /// Show so many layers, those that differ most
    #[arg(long, default_value_t = 10, value_name = "N", requires = "layers")]
    worst: usize,
    /// Show all layers in order
    #[arg(long, requires = "layers", conflicts_with = "worst")]
    all_layers: bool,
    /// Write the values of all engines as NumPy's .npy files into this new folder
    #[arg(long, value_name = "FOLDER", requires = "layers")]
    keep_tensors: Option<PathBuf>,
    /// Write the result into the file's metadata, with a digest of the rest of the file
    #[arg(long)]
    certify: bool,
    /// Side of the square images, pixels, or HEIGHTxWIDTH, for an .onnx file that leaves it free
    #[arg(long, value_name = "PIXELS", visible_alias = "resolution")]
    size: Option<ImageSize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Comparison<'a> {
    #[serde(flatten)]
    outputs: &'a Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<&'a LayerReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precisions: Option<&'a PrecisionReport>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(tolerance) = args.tolerance.filter(|tolerance| tolerance.is_nan() || *tolerance < 0.0) {
        return Err(usage(format!("--tolerance {tolerance} is no tolerance: choose 0 or more")));
    }
    let served = served(args)?;
    args.gpu.check(&served)?;
    let kept = LayerOptions { keep_tensors: args.keep_tensors.clone() };
    let sides = args.precision.sides()?;
    let file = onnx_file(&args.file)?;
    if args.layers {
        kept.check(&file)?;
    }
    check_named(args, &served)?;
    let mut options = VerifyOptions {
        seed: args.seed,
        tolerance: args.tolerance,
        size: args.size.map(|ImageSize { height, width }| [height as usize, width as usize]),
        noise: args.noise,
        served,
        engines: args.gpu.options(None),
        ..VerifyOptions::default()
    };
    if let Some(batches) = &args.batches {
        options.batches = batches.clone();
    }
    let said = if args.pretrained.is_some() { said(args, &file)? } else { Said::default() };
    let network = match args.pretrained.open(said)? {
        Some(trained) => Some(same_network(&file, trained, "the network of --weights")?),
        None => network(&file, args.from.clone().or_else(|| origin_of(&file)))?,
    };
    if args.noise && network.is_none() {
        bail!(
            "--noise computes the layer graph in f64, and there is none beside {}: name its run or model directory \
             with --from, or its weights with --weights",
            file.display()
        );
    }
    let certifier = if args.certify { Some(Certifier::new(&file)?) } else { None };
    let report = verify(&file, network.as_ref(), &options)?;
    if args.engine.is_some() {
        refuse_not_run(&report, &options.served)?;
    }
    if !args.json {
        say!("{report}")?;
        if report.is_beyond_rounding() && !args.layers {
            say!("With --layers, verify finds the layer that differs.")?;
        }
    }
    let precisions = precision::compare(&file, network.as_ref(), sides, &options)?;
    if let Some(precisions) = precisions.as_ref().filter(|_| !args.json) {
        say!("\n{precisions}")?;
    }
    let layers = match args.layers {
        true => {
            // Where outputs differ, whether a layer rounds that much is the first question.
            options.noise |= !report.agrees;
            Some(compare_layers(args, &file, network.as_ref(), options, &kept)?)
        }
        false => None,
    };
    if args.json {
        json(&Comparison { outputs: &report, layers: layers.as_ref(), precisions: precisions.as_ref() })?;
    }
    let fault = layers.as_ref().and_then(LayerReport::fault);
    if let Some(fault) = fault.filter(|_| report.agrees) {
        note!(
            "layer `{}` differs, though the outputs agree on these images: they hardly depend on it",
            fault.row.layer
        );
    }
    if let Some(certifier) = certifier {
        // Outputs that differ are the certifier's to refuse.
        if fault.is_some() && report.agrees {
            bail!("{}: is not certified, for one of its layers differs", file.display());
        }
        let certificate = certifier.certify(&file, &report)?;
        if !args.json {
            say!("Certified: SHA-256 of {} without the certificate: {}", file.display(), certificate.sha256)?;
        }
    }
    let sound = report.agrees && fault.is_none() && precisions.is_none_or(|precisions| precisions.agrees);
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The engines that are named; each runs on its own, so that `auto` names none.
fn served(args: &Args) -> Result<Vec<EngineKind>> {
    let Some(choices) = &args.engine else { return Ok(VerifyOptions::default().served) };
    let kind = |choice: &EngineChoice| match choice {
        EngineChoice::Named(kind) => Ok(*kind),
        EngineChoice::Auto => {
            Err(usage("--engine auto compares nothing: name engines, such as ort-cuda,ort,tract"))
        }
    };
    choices.iter().map(kind).collect()
}

/// Refuses an engine that was named and is not on this machine, before the others run: they would prove less
/// than was asked for. Of the default engines, those that are not there are left out.
fn check_named(args: &Args, served: &[EngineKind]) -> Result<()> {
    // tract is always there, and to ask for the others loads their libraries.
    if args.engine.is_none() || served.iter().all(|&kind| kind == EngineKind::Tract) {
        return Ok(());
    }
    let report = runtime_report(None, args.gpu.options(None).gpu.device_id());
    for &kind in served {
        report.check(EngineChoice::Named(kind))?;
    }
    Ok(())
}

/// Refuses what [`check_named`] cannot foresee: a provider whose parts are all there may yet not start, which
/// shows only when a file is opened in it.
fn refuse_not_run(report: &Report, named: &[EngineKind]) -> Result<()> {
    for row in &report.engines {
        if let Outcome::NotRun { reason } = &row.outcome
            && named.iter().any(|kind| kind.to_string() == row.engine)
        {
            bail!("the engine {} is not available: {reason}", row.engine);
        }
    }
    Ok(())
}

/// What the file says of its images, for weights that say something else or nothing.
fn said(args: &Args, file: &Path) -> Result<Said> {
    let own = read_card(file)?
        .map(|card| ImageSize { height: card.preprocess.height, width: card.preprocess.width });
    Ok(Said { size: args.size.or(own), ..Said::default() })
}

fn compare_layers(
    args: &Args,
    file: &Path,
    network: Option<&Network>,
    mut options: VerifyOptions,
    kept: &LayerOptions,
) -> Result<LayerReport> {
    // A value a layer is much to hold; one image shows what is wrong with a layer.
    if args.batches.is_none() {
        options.batches = vec![1];
    }
    let layers = verify_layers(file, network, &options, kept)?;
    if !args.json {
        say!("\n{}\n{layers}", layers.table((!args.all_layers).then_some(args.worst)))?;
        if let Some(folder) = &args.keep_tensors {
            say!("The tensors are in {}; its index.csv says which is which.", folder.display())?;
        }
    }
    Ok(layers)
}

/// Compares `file` in every engine, with candle's network from the directory `origin`.
pub fn compare(file: &Path, origin: Option<PathBuf>, options: &VerifyOptions) -> Result<Report> {
    Ok(verify(file, network(file, origin)?.as_ref(), options)?)
}

/// The network in the directory `origin`, which `file` was exported from.
fn network(file: &Path, origin: Option<PathBuf>) -> Result<Option<Network>> {
    let network = |path: PathBuf| same_network(file, open_trained(&path)?, &path.display().to_string());
    origin.map(network).transpose()
}

/// The network, unless the file says that it is another one; `origin` is where it was found.
fn same_network(file: &Path, trained: Trained, origin: &str) -> Result<Network> {
    let card = read_card(file)?;
    if let Some(card) = &card
        && !may_be_the_same(card, &trained.card)
    {
        bail!(
            "{} holds {}, {origin} holds {}: name the run, model directory or weights that the file was exported from",
            file.display(),
            described(card),
            described(&trained.card)
        );
    }
    let exported = card.and_then(|card| card.metrics.get("epoch").copied());
    let best = trained.card.metrics.get("epoch").copied();
    if let (Some(exported), Some(best)) = (exported, best)
        && exported != best
    {
        bail!(
            "{} holds epoch {exported}, the best of {origin} is now epoch {best}: export it again with --force",
            file.display()
        );
    }
    Ok(Network::new(trained.graph, trained.weights))
}

/// Whether two cards can be of the same network. Labels may differ: bare weights are exported without their names.
fn may_be_the_same(a: &ModelCard, b: &ModelCard) -> bool {
    let of_other_data = matches!((dataset(a), dataset(b)), (Some(a), Some(b)) if a != b);
    a.architecture == b.architecture && a.labels.len() == b.labels.len() && !of_other_data
}

/// The data set's name, of a folder its last part.
fn dataset(card: &ModelCard) -> Option<&str> {
    card.dataset.as_deref().and_then(|name| name.rsplit(['/', '\\']).next())
}

/// A network in words: `resnet20 of digits (10 classes)`.
fn described(card: &ModelCard) -> String {
    let of = dataset(card).map_or(String::new(), |name| format!(" of {name}"));
    format!("{}{of} ({} classes)", card.architecture, card.labels.len())
}
