//! `tallow verify`: the same numbers in every engine, or exit code 1.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tallow_builder::Network;
use tallow_conformance::{Report, VerifyOptions, verify};
use tallow_exporter::onnx::read_card;
use tallow_input::ModelCard;

use crate::failure::usage;
use crate::model::{onnx_file, open_trained, origin_of};
use crate::output::{json, say};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// An .onnx file, or a run or model directory that holds one
    model: PathBuf,
    /// The run or model directory that candle takes the network from [default: the one the file lies in]
    #[arg(long)]
    from: Option<PathBuf>,
    /// The largest difference allowed, relative to the largest logit
    #[arg(long, default_value_t = VerifyOptions::default().tolerance)]
    tolerance: f64,
    /// Batches to run one after another, such as 1,3,8
    #[arg(long, value_delimiter = ',', default_values_t = VerifyOptions::default().batches)]
    batches: Vec<usize>,
    /// Seed of the random images
    #[arg(long, default_value_t = VerifyOptions::default().seed)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.tolerance.is_nan() || args.tolerance < 0.0 {
        return Err(usage(format!("--tolerance {} is no tolerance: choose 0 or more", args.tolerance)));
    }
    let file = onnx_file(&args.model)?;
    let origin = args.from.clone().or_else(|| origin_of(&file));
    let options = VerifyOptions {
        seed: args.seed,
        batches: args.batches.clone(),
        tolerance: args.tolerance,
        ..VerifyOptions::default()
    };
    let report = compare(&file, origin, &options)?;
    if args.json {
        json(&report)?;
    } else {
        say!("{report}")?;
    }
    Ok(if report.agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares `file` in every engine, with candle's network from the directory `origin`.
pub fn compare(file: &std::path::Path, origin: Option<PathBuf>, options: &VerifyOptions) -> Result<Report> {
    let network = match origin {
        Some(path) => {
            let trained = open_trained(&path)?;
            let card = read_card(file)?;
            if let Some(card) = &card
                && !may_be_the_same(card, &trained.card)
            {
                bail!(
                    "{} holds {}, {} holds {}: name the run or model directory that the file was exported from",
                    file.display(),
                    described(card),
                    path.display(),
                    described(&trained.card)
                );
            }
            let exported = card.and_then(|card| card.metrics.get("epoch").copied());
            let best = trained.card.metrics.get("epoch").copied();
            if let (Some(exported), Some(best)) = (exported, best)
                && exported != best
            {
                bail!(
                    "{} holds epoch {exported}, the best of {} is now epoch {best}: export it again with --force",
                    file.display(),
                    path.display()
                );
            }
            Some(Network::new(trained.graph, trained.weights))
        }
        None => None,
    };
    Ok(verify(file, network.as_ref(), options)?)
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
