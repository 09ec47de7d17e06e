//! Tallow on a GPU, measured: training steps, the heaviest kernels, and serving beside bare ONNX Runtime.
//! One line of JSON a measurement; `run` puts them beside PyTorch's, which `pytorch.py` measures with the same fields.
//!
//! `target` says on what, `training` is the step, `timing` how it is timed, `sweep` the batches, `peak` the matrix product
//! that a GPU's best is measured by, `profile` and `cupti` the kernels, `serving` and `bare` the two ways to serve a file.

mod bare;
mod cupti;
mod peak;
mod profile;
mod serving;
mod sweep;
mod target;
mod timing;
mod training;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Images/s of training with synthetic images that lie on the device, for each network, precision and batch
    Train(sweep::Args),
    /// The ten heaviest kernels of a training step
    Profile(profile::Args),
    /// The runtime's classifier and bare ONNX Runtime with IO binding on the same file, in turn
    Serve(serving::Args),
    /// Bare ONNX Runtime, which `serve` starts as a process of its own: a process has one environment
    #[command(hide = true)]
    Bare(bare::Args),
}

fn main() -> Result<()> {
    match &Args::parse().what {
        What::Train(args) => sweep::run(args),
        What::Profile(args) => profile::run(args),
        What::Serve(args) => serving::run(args),
        What::Bare(args) => bare::run(args),
    }
}

/// One line of JSON, at once: whoever reads along sees a measurement when it is made.
fn line(measurement: &impl serde::Serialize) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, measurement)?;
    writeln!(out)?;
    Ok(out.flush()?)
}
