//! `tallow search`: networks found by training candidates.

mod architecture;
mod scaling;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use tallow_builder::files::write_atomically;
use tallow_cuda::{DeviceSpec, device};
use tallow_search::{Basis, Candidate, Ended, Journal, Measured, Plan, Results, Workers, drive};
use tallow_trainer::Config;
use tallow_trainer::plot::{self, Trial};

use super::train::settings::Settings;
use crate::failure::{INTERRUPTED, usage};
use crate::interrupt;
use crate::output::{json, millions, note, percent, say};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Find the coefficients of compound scaling: train a network for each α, β, γ of a grid with α·β²·γ² ≈ 2
    Scaling(scaling::Args),
    /// Find an architecture: evolve kernels, expansions, gates, depths and widths of MBConv stages
    Architecture(architecture::Args),
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    match &args.command {
        Command::Scaling(args) => scaling::run(args, threads),
        Command::Architecture(args) => architecture::run(args, threads),
    }
}

/// What every search takes besides the settings of its trainings.
#[derive(clap::Args)]
struct Common {
    /// Passes over the training set, for each candidate [default: 5, or what the settings file says]
    #[arg(short, long)]
    epochs: Option<u64>,
    /// Where the search goes; the same command goes on with what is there [default: runs/search-<kind>-<model>-<data>]
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Candidates that train at once, each in a process of its own with its share of --threads; where there are several
    /// GPUs and --device names none, they take them in turn
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Epochs of a candidate where nothing is said.
const EPOCHS: u64 = 5;
/// The network that a search starts from where nothing is said.
const MODEL: &str = "efficientnet_b0";

impl Common {
    /// The settings and the data.
    fn basis(&self) -> Result<Basis> {
        if !self.settings.name_data() {
            return Err(usage("say what to train on: --data FOLDER or --data digits"));
        }
        let no_weights = || usage("--weights fit one network, and a search trains many: leave them out");
        if self.settings.name_weights() {
            return Err(no_weights());
        }
        let epochs = self.epochs.or((!self.settings.have_file()).then_some(EPOCHS));
        let (config, start) = self.settings.resolve_for(epochs, MODEL)?;
        if start.is_some() {
            return Err(no_weights());
        }
        self.settings.refuse_idle_split(&config)?;
        Ok(Basis::open(config)?)
    }

    fn folder(&self, kind: &str, config: &Config) -> PathBuf {
        let name = config.data_name();
        let data = Path::new(&name).file_name().map_or("data".into(), |name| name.to_string_lossy());
        let usual = || Path::new("runs").join(format!("search-{kind}-{}-{data}", config.model));
        self.output.clone().unwrap_or_else(usual)
    }

    /// Trains until all candidates are done or Ctrl-C.
    fn drive(
        &self,
        plan: &mut dyn Plan,
        journal: &mut Journal,
        config: &Config,
        threads: Option<usize>,
    ) -> Result<Ended> {
        let all = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let workers = Workers {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            jobs: self.jobs.into(),
            threads: (all / usize::from(self.jobs)).max(1),
            gpus: if config.compute.device == DeviceSpec::Auto { device::count() } else { 0 },
        };
        if workers.gpus > 1 && workers.jobs > 1 {
            note!("candidates take {} GPUs in turn", workers.gpus);
        }
        let stop = interrupt::listen("stopping after these batches; Ctrl-C again stops at once")?;
        let of = plan.len();
        let mut done = journal.results().len();
        if done > 0 {
            let are = if done == 1 { "is" } else { "are" };
            note!("{done} of {of} candidates {are} trained already");
        }
        let mut watch = |candidate: &Candidate, found: &Measured| {
            done += 1;
            note!("{done}/{of}  {}", described(candidate, found));
        };
        Ok(drive(plan, journal, &workers, stop, &mut watch)?)
    }
}

fn described(candidate: &Candidate, found: &Measured) -> String {
    let macs = millions(found.macs);
    let size = candidate.config.input.size.unwrap_or_default();
    match &found.diverged {
        None => format!(
            "candidate {} at {size} pixels, {macs} MMACs: top-1 {} in epoch {}, {:.0} s",
            candidate.index,
            percent(found.top1),
            found.epoch,
            found.seconds
        ),
        Some(reason) => format!("candidate {} at {size} pixels, {macs} MMACs: {reason}", candidate.index),
    }
}

/// Writes the picture and the winner's settings into the search's folder.
fn keep(
    journal: &Journal,
    title: &str,
    trials: &[Trial],
    level: &[(f64, f64)],
    best: Option<&Config>,
) -> Result<()> {
    plot::save(&plot::pareto(title, trials, level)?, &journal.folder().join("pareto.png"))?;
    if let Some(config) = best {
        let text = format!("# {title}: the best.\n{}", config.to_toml());
        write_atomically(&journal.folder().join("best.toml"), text.as_bytes())?;
    }
    Ok(())
}

/// Says how to go on.
fn close(args: &Common, journal: &Journal, ended: Ended, report: &impl Serialize) -> Result<ExitCode> {
    let folder = journal.folder().display();
    if args.json {
        json(report)?;
    } else if ended == Ended::Done {
        say!("pareto.png, best.toml and the candidates' runs are in {folder}")?;
        say!("next: tallow train --config {folder}/best.toml --epochs 30")?;
    } else {
        say!("stopped; the same command goes on")?;
    }
    Ok(if ended == Ended::Done { ExitCode::SUCCESS } else { ExitCode::from(INTERRUPTED) })
}

/// A share as a percentage, once it is known; what diverged has none.
fn top1(value: Option<f64>) -> String {
    match value {
        None => "…".into(),
        Some(0.0) => "-".into(),
        Some(value) => percent(value),
    }
}

/// Seconds of all trainings together.
fn seconds(results: &Results) -> f64 {
    results.values().map(|found| found.seconds).sum()
}
