//! `tallow search scaling`: the grid search for α, β and γ.

use std::process::ExitCode;

use anyhow::Result;
use tallow_search::scaling::{Grid, Report, Row, Search, Settings};
use tallow_search::{Ended, Journal};

use super::{Common, close, keep, seconds, top1};
use crate::output::{count, millions, note, percent, say, table, thousands};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// The compound coefficient at which candidates are compared
    #[arg(long, default_value_t = 1.0)]
    phi: f64,
    /// Distance of the grid's neighbours along α, β and γ, which begin at 1
    #[arg(long, default_value_t = 0.1)]
    step: f64,
    /// How far α·β²·γ² may be from 2
    #[arg(long, default_value_t = 0.1)]
    tolerance: f64,
    /// Round resolutions to multiples of this
    #[arg(long, value_name = "PIXELS", default_value_t = 1)]
    multiple: usize,
    #[command(flatten)]
    common: Common,
}

/// Points whose costs differ by more than this factor are hardly of one cost.
const UNEVEN: f64 = 1.25;

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    let grid = Grid { step: args.step, tolerance: args.tolerance };
    let basis = args.common.basis()?;
    let config = basis.config.clone();
    let mut search = Search::new(basis, Settings { phi: args.phi, grid, multiple: args.multiple })?;
    let mut journal = Journal::open(&args.common.folder("scaling", &config), &search.header())?;
    let title = format!("Scaling {} on {}, φ = {}", config.model, config.data_name(), args.phi);
    let first = search.report(journal.results());
    note!(
        "{title}: {} of the grid, {} each, {} images to validate; in {}",
        count(first.rows.len(), "point"),
        count(config.epochs as usize, "epoch"),
        thousands(search.validation_images() as u64),
        journal.folder().display()
    );
    if let [_] = &first.rows[..] {
        note!("one point is no grid: lessen --step or raise --tolerance");
    }
    let ratios = first.rows.iter().map(|row| row.macs_ratio);
    let (least, most) =
        ratios.fold((f64::INFINITY, 0f64), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
    if most > UNEVEN * least {
        note!(
            "note: rounded to whole blocks, multiples of 8 channels and of {} pixels, the points cost {least:.2} to \
             {most:.2} times the start's MACs: the most accurate may only be the most expensive, so mind the column \
             `front`, or begin with a wider and larger network (--width, --size), which rounds less",
            args.multiple
        );
    }
    let ended = args.common.drive(&mut search, &mut journal, &config, threads)?;
    let report = search.report(journal.results());
    keep(&journal, &title, &report.trials(), &[], report.best_config.as_ref())?;
    if !args.common.json {
        print(&report)?;
        if let (Some(best), Ended::Done) = (&report.best, ended) {
            let Row { alpha, beta, gamma, .. } = best;
            say!("")?;
            say!(
                "best: α = {alpha}, β = {beta}, γ = {gamma} (α·β²·γ² = {:.3}), top-1 {} with {} MMACs; {:.0} s of training",
                best.growth,
                percent(best.top1.unwrap_or_default()),
                millions(best.macs),
                seconds(journal.results())
            )?;
            if best.top1 <= report.start.top1 {
                say!("the start itself is as good: longer trainings (--epochs) or more images tell more")?;
            }
            let start = journal.run(0).join("config.toml");
            say!(
                "larger ones: tallow scale --config {} --alpha {alpha} --beta {beta} --gamma {gamma}",
                start.display()
            )?;
        }
    }
    close(&args.common, &journal, ended, &report)
}

fn print(report: &Report) -> Result<()> {
    let row = |row: &Row| {
        vec![
            if row.candidate == 0 { "start".into() } else { row.candidate.to_string() },
            row.alpha.to_string(),
            row.beta.to_string(),
            row.gamma.to_string(),
            format!("{:.3}", row.growth),
            row.resolution.to_string(),
            thousands(row.parameters as u64),
            millions(row.macs),
            format!("{:.2}", row.macs_ratio),
            top1(row.top1),
            if row.on_front { "yes".into() } else { String::new() },
        ]
    };
    let header = [
        "candidate",
        "α",
        "β",
        "γ",
        "α·β²·γ²",
        "resolution",
        "parameters",
        "MMACs",
        "× start",
        "top-1",
        "front",
    ];
    let rows = std::iter::once(&report.start).chain(&report.rows).map(row);
    table(&header, &rows.collect::<Vec<_>>())?;
    say!(
        "MACs are multiply-accumulates for one image; FLOPs are twice as many. Points that round to one network share it."
    )
}
