//! `tallow search architecture`: regularised evolution.

use std::process::ExitCode;

use anyhow::Result;
use tallow_models::{Stage, Table};
use tallow_search::Journal;
use tallow_search::architecture::{Report, Row, Search, Settings};

use super::{Common, close, keep, seconds, top1};
use crate::output::{count, millions, note, percent, say, table, thousands};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// Candidates to train in all; with more than before, a search that is done goes on
    #[arg(long, value_name = "N", default_value_t = Settings::default().candidates)]
    candidates: usize,
    /// Candidates that are alive at a time; each new one replaces the oldest [default: 10, or all where they are fewer]
    #[arg(long, value_name = "N")]
    population: Option<usize>,
    /// Candidates that compete to be a parent [default: 4, or the population]
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// A parent is chosen among candidates at least so many earlier: as many can train at once, with the same result
    /// [default: 4, or the population]
    #[arg(long, value_name = "N")]
    lag: Option<usize>,
    /// T, the MACs for one image of a network whose objective is its accuracy [default: those of the start]
    #[arg(long, value_name = "MACS")]
    target: Option<f64>,
    /// w in the objective ACC·(MACs/T)^w
    #[arg(long, value_name = "W", default_value_t = Settings::default().exponent)]
    exponent: f64,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    let basis = args.common.basis()?;
    let config = basis.config.clone();
    let usual = Settings::default();
    let population = args.population.unwrap_or(usual.population.min(args.candidates));
    let settings = Settings {
        candidates: args.candidates,
        population,
        sample: args.sample.unwrap_or(usual.sample.min(population)),
        lag: args.lag.unwrap_or(usual.lag.min(population)),
        target: args.target,
        exponent: args.exponent,
        seed: config.seed,
    };
    let mut search = Search::new(basis, settings)?;
    let mut journal = Journal::open(&args.common.folder("architecture", &config), &search.header())?;
    let title = format!("Architectures around {} on {}", config.model, config.data_name());
    note!(
        "{title}: {}, {} each, {} images to validate; T = {} MMACs; in {}",
        count(args.candidates, "candidate"),
        count(config.epochs as usize, "epoch"),
        thousands(search.validation_images() as u64),
        millions(search.target() as u64),
        journal.folder().display()
    );
    let ended = args.common.drive(&mut search, &mut journal, &config, threads)?;
    let report = search.report(journal.results());
    keep(&journal, &title, &report.trials(), &report.level(), report.best_config.as_ref())?;
    if !args.common.json {
        print(&report)?;
        if let (Some(best), Some(stages)) = (&report.best, &report.best_table) {
            say!("")?;
            say!(
                "best: candidate {}, top-1 {} with {} MMACs, objective {:.4}; {:.0} s of training",
                best.candidate,
                percent(best.top1.unwrap_or_default()),
                millions(best.macs),
                best.objective.unwrap_or_default(),
                seconds(journal.results())
            )?;
            print_stages(stages)?;
            let widen = config.network.widen;
            if widen != 1.0 {
                say!("channels are those before --width {widen}, which multiplies and rounds them")?;
            }
        }
    }
    close(&args.common, &journal, ended, &report)
}

fn print(report: &Report) -> Result<()> {
    let row = |row: &Row| {
        vec![
            row.candidate.to_string(),
            row.parent.map_or("-".into(), |parent| parent.to_string()),
            thousands(row.parameters as u64),
            millions(row.macs),
            top1(row.top1),
            row.objective.map_or("…".into(), |objective| format!("{objective:.4}")),
            if row.on_front { "yes".into() } else { String::new() },
            match (row.candidate, row.parent) {
                (0, _) => "the start".into(),
                (_, None) => "at random".into(),
                _ => row.change.clone(),
            },
        ]
    };
    let header = ["candidate", "parent", "parameters", "MMACs", "top-1", "objective", "front", "change"];
    table(&header, &report.rows.iter().map(row).collect::<Vec<_>>())?;
    say!(
        "objective: ACC·(MACs/T)^w, T = {} MMACs, w = {}; MACs are multiply-accumulates, FLOPs are twice as many",
        millions(report.target as u64),
        report.exponent
    )
}

/// The best as the papers print networks.
fn print_stages(found: &Table) -> Result<()> {
    let row = |(stage, nth): (&Stage, usize)| {
        let gate = stage.se.filter(|se| *se > 0.0).map_or("-".into(), |se| se.to_string());
        let numbers = [stage.kernel, stage.stride, stage.expand, stage.channels, stage.repeats];
        let mut cells = vec![nth.to_string()];
        cells.extend(numbers.map(|n| n.to_string()));
        cells.push(gate);
        cells
    };
    let rows: Vec<Vec<String>> = found.stages.iter().zip(1..).map(row).collect();
    table(&["stage", "kernel", "stride", "expand", "channels", "repeats", "se"], &rows)
}
