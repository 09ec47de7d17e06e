//! `tallow scale`: what compound scaling makes of a network.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use tallow_models::{Architecture, Compound, Options, PUBLISHED, Published, Scaled, Scaling, StageCost};
use tallow_trainer::plot;

use crate::failure::usage;
use crate::output::{json, millions, say, table, thousands};
use crate::zoo;

/// The paper's φ.
const PHI: [f64; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
/// Beyond this, nothing can be built.
const MOST_PHI: f64 = 16.0;

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// The network at φ = 0 [default: efficientnet_b0]
    network: Option<String>,
    /// The compound coefficients, such as 0,0.5,1; with a single one, its stages are listed [default: 0 to 7]
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    phi: Vec<f64>,
    #[command(flatten)]
    law: Law,
    #[command(flatten)]
    zoo: zoo::Args,
    /// Round resolutions to multiples of this
    #[arg(long, value_name = "PIXELS", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    multiple: u16,
    /// Draw the MACs over φ beside the law as a PNG
    #[arg(long, value_name = "PNG")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The three factors (Tan & Le 2019, equation 3).
#[derive(Clone, Copy, clap::Args)]
pub struct Law {
    /// Factor on depth at φ = 1
    #[arg(long, value_name = "FACTOR", default_value_t = Compound::PAPER.alpha)]
    alpha: f64,
    /// Factor on width at φ = 1
    #[arg(long, value_name = "FACTOR", default_value_t = Compound::PAPER.beta)]
    beta: f64,
    /// Factor on resolution at φ = 1
    #[arg(long, value_name = "FACTOR", default_value_t = Compound::PAPER.gamma)]
    gamma: f64,
}

impl Law {
    /// Refuses what is no growth.
    fn checked(self) -> Result<Compound> {
        let Self { alpha, beta, gamma } = self;
        for (name, factor) in [("alpha", alpha), ("beta", beta), ("gamma", gamma)] {
            if !(1.0..=4.0).contains(&factor) {
                return Err(usage(format!("--{name} must lie in 1 to 4, is {factor:?}")));
            }
        }
        Ok(Compound { alpha, beta, gamma })
    }
}

/// What is printed for machines.
#[derive(Serialize)]
struct Report<'a> {
    network: &'a str,
    alpha: f64,
    beta: f64,
    gamma: f64,
    growth: f64,
    scaled: &'a [Scaled],
    published: &'a [PublishedCost],
}

/// A network of the paper with its cost, and the φ that each of its sizes would be of.
#[derive(Serialize)]
struct PublishedCost {
    #[serde(flatten)]
    published: Published,
    phi_by_depth: f64,
    phi_by_width: f64,
    phi_by_resolution: f64,
    phi_by_macs: f64,
    parameters: usize,
    macs: u64,
    macs_ratio: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let law = args.law.checked()?;
    let phis = if args.phi.is_empty() { PHI.to_vec() } else { args.phi.clone() };
    if let Some(phi) = phis.iter().find(|phi| !(-MOST_PHI..=MOST_PHI).contains(*phi)) {
        return Err(usage(format!("--phi must lie in -{MOST_PHI} to {MOST_PHI}, is {phi:?}")));
    }
    let usual = args.zoo.config().is_none().then_some(PUBLISHED[0].name);
    let (network, options) = args.zoo.resolve(args.network.as_deref().or(usual))?;
    if options.width != options.height {
        return Err(usage("compound scaling has one resolution: choose square images, with --size PIXELS"));
    }
    let scaled: Vec<Scaled> = phis
        .iter()
        .map(|phi| law.scaled(network, &options, *phi, args.multiple.into()))
        .collect::<Result<_, _>>()?;
    let is_b0 =
        network.name == PUBLISHED[0].name && options.scaling == Scaling::NONE && options.table.is_none();
    let published = if is_b0 { published(law, network, options.classes)? } else { vec![] };
    if let Some(path) = &args.plot {
        let Compound { alpha, beta, gamma } = law;
        let heading = format!("{}: α = {alpha}, β = {beta}, γ = {gamma}", network.name);
        plot::save(&plot::scaling(&heading, &points(&scaled), &published_points(&published))?, path)?;
    }
    if args.json {
        let Compound { alpha, beta, gamma } = law;
        let growth = law.growth();
        let (scaled, published) = (&scaled[..], &published[..]);
        return json(&Report { network: network.name, alpha, beta, gamma, growth, scaled, published });
    }
    say!("{}", title(network, law))?;
    say!("")?;
    print(&scaled)?;
    if let [one] = &scaled[..] {
        say!("")?;
        print_stages(&one.stages)?;
    } else if !published.is_empty() {
        say!("")?;
        say!("published coefficients (Tan & Le 2019, the paper's code): rounded, and of no single φ")?;
        print_published(&published)?;
    }
    say!("")?;
    say!("MACs are multiply-accumulates for one image; FLOPs are twice as many, the ratios are the same.")?;
    say!(
        "The law: MACs grow by 2^φ where α·β²·γ² = 2. Repeats are rounded up, channels to multiples of 8, resolutions"
    )?;
    match &scaled[..] {
        [Scaled { resolution, width, depth, .. }] => say!(
            "to multiples of {} pixels; tallow train … --size {resolution} --width {width} --depth {depth} builds this one.",
            args.multiple
        ),
        _ => say!(
            "to multiples of {} pixels; --size, --width and --depth of `tallow train` take what stands in a row.",
            args.multiple
        ),
    }
}

fn title(network: &Architecture, Compound { alpha, beta, gamma }: Compound) -> String {
    let growth = Compound { alpha, beta, gamma }.growth();
    format!(
        "{}: depth α = {alpha}, width β = {beta}, resolution γ = {gamma}; α·β²·γ² = {growth:.3}",
        network.name
    )
}

/// What the stages have, joined by dashes; the classifier apart.
fn joined(scaled: &Scaled, value: impl Fn(&StageCost) -> usize) -> String {
    let convolutional = scaled.stages.iter().filter(|stage| stage.output.len() == 3);
    convolutional.map(|stage| value(stage).to_string()).collect::<Vec<_>>().join("-")
}

fn print(scaled: &[Scaled]) -> Result<()> {
    let row = |s: &Scaled| {
        let resolution = match s.exact_resolution {
            exact if exact == s.resolution as f64 => s.resolution.to_string(),
            exact => format!("{exact:.1} → {}", s.resolution),
        };
        vec![
            s.phi.to_string(),
            format!("{:.3}", s.depth),
            format!("{:.3}", s.width),
            resolution,
            joined(s, |stage| stage.blocks),
            joined(s, |stage| stage.output[0]),
            thousands(s.parameters as u64),
            millions(s.macs),
            format!("{:.2}", s.macs_ratio),
            format!("{:.2}", s.predicted_ratio),
            format!("{:.2}", s.law),
        ]
    };
    let header = [
        "φ",
        "depth",
        "width",
        "resolution",
        "blocks",
        "channels",
        "parameters",
        "MMACs",
        "× φ=0",
        "(αβ²γ²)^φ",
        "2^φ",
    ];
    table(&header, &scaled.iter().map(row).collect::<Vec<_>>())
}

fn print_stages(stages: &[StageCost]) -> Result<()> {
    let row = |stage: &StageCost| {
        let output = stage.output.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        vec![
            stage.name.clone(),
            stage.blocks.to_string(),
            stage.layers.to_string(),
            output,
            thousands(stage.parameters as u64),
            thousands(stage.macs),
        ]
    };
    let header = ["stage", "blocks", "layers", "output", "parameters", "MACs"];
    table(&header, &stages.iter().map(row).collect::<Vec<_>>())
}

fn published(law: Compound, base: &Architecture, classes: Option<usize>) -> Result<Vec<PublishedCost>> {
    let mut costs: Vec<PublishedCost> = vec![];
    for published in PUBLISHED {
        let scaling = Scaling { width: published.width, depth: published.depth };
        let side = Some(published.resolution);
        let options = Options { classes, width: side, height: side, scaling, ..Options::default() };
        let totals = base.build(&options)?.totals();
        let macs_ratio = totals.macs as f64 / costs.first().map_or(totals.macs, |first| first.macs) as f64;
        let [phi_by_depth, phi_by_width, phi_by_resolution] = law.phi_of(&published);
        costs.push(PublishedCost {
            published,
            phi_by_depth,
            phi_by_width,
            phi_by_resolution,
            phi_by_macs: macs_ratio.log2(),
            parameters: totals.parameters,
            macs: totals.macs,
            macs_ratio,
        });
    }
    Ok(costs)
}

fn print_published(published: &[PublishedCost]) -> Result<()> {
    let phi = |phi: f64| if phi.is_finite() { format!("{phi:.2}") } else { "-".into() };
    let row = |cost: &PublishedCost| {
        let Published { name, width, depth, resolution } = cost.published;
        vec![
            name.to_owned(),
            depth.to_string(),
            width.to_string(),
            resolution.to_string(),
            phi(cost.phi_by_depth),
            phi(cost.phi_by_width),
            phi(cost.phi_by_resolution),
            phi(cost.phi_by_macs),
            thousands(cost.parameters as u64),
            millions(cost.macs),
            format!("{:.2}", cost.macs_ratio),
        ]
    };
    let header = [
        "network",
        "depth",
        "width",
        "resolution",
        "φ by depth",
        "by width",
        "by resolution",
        "by MACs",
        "parameters",
        "MMACs",
        "× B0",
    ];
    table(&header, &published.iter().map(row).collect::<Vec<_>>())
}

fn points(scaled: &[Scaled]) -> Vec<(f64, f64)> {
    scaled.iter().map(|s| (s.phi, s.macs_ratio)).collect()
}

/// Placed by their depth, which α alone decides.
fn published_points(published: &[PublishedCost]) -> Vec<(f64, f64, String)> {
    let placed = published.iter().filter(|cost| cost.phi_by_depth.is_finite());
    let name = |cost: &PublishedCost| cost.published.name.trim_start_matches("efficientnet_").to_uppercase();
    placed.map(|cost| (cost.phi_by_depth, cost.macs_ratio, name(cost))).collect()
}
