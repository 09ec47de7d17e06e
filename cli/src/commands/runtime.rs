//! `tallow runtime`: the inference engines of this machine.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use tallow_runtime::install::Package;
use tallow_runtime::{EngineChoice, Placement, RuntimeReport, install, runtime_report};

use crate::features::Training;
use crate::gpu;
use crate::model::onnx_file;
use crate::output::{json, say};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Download libonnxruntime (a pinned wheel from PyPI, by pip) into the user's cache
    Install {
        /// The one with the providers for CUDA 13 and TensorRT, some 250 MB; the driver, CUDA and cuDNN are not in it
        #[arg(long)]
        gpu: bool,
    },
    /// Show which engines there are, where their libraries and the GPU's were looked for, and what this build trains on
    Info(Info),
}

#[derive(clap::Args)]
struct Info {
    /// Also run this .onnx file once, or the one in this run or model directory, and show which execution provider takes
    /// how many of its nodes
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The engine that is to be there, and that --model runs in: auto, ort-cuda, ort-tensorrt, ort
    #[arg(long, default_value_t = EngineChoice::Auto)]
    engine: EngineChoice,
    #[command(flatten)]
    gpu: gpu::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Described {
    #[serde(flatten)]
    report: RuntimeReport,
    training: Training,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<()> {
    match &args.command {
        Command::Install { gpu } => {
            let package = if *gpu { Package::Gpu } else { Package::Cpu };
            let installed = install::install(package)?;
            let verb = if installed.already { "is already there:" } else { "is installed:" };
            say!("libonnxruntime {verb} {}", installed.library.display())?;
            say!("{}", next(*gpu))
        }
        Command::Info(args) => info(args, threads),
    }
}

/// What to do with what was installed.
fn next(gpu: bool) -> &'static str {
    match gpu {
        true => {
            "next: tallow runtime info (whether the driver, CUDA and cuDNN are there), then\n      \
             tallow predict MODEL.onnx PHOTOS --engine ort-cuda"
        }
        false => "next: tallow predict MODEL.onnx PHOTOS",
    }
}

fn info(args: &Info, threads: Option<usize>) -> Result<()> {
    let (report, training) = (runtime_report(None, 0), Training::here());
    let Some(model) = &args.model else {
        args.gpu.refuse("name a file for it with --model")?;
        let enough = report.check(args.engine);
        if args.json {
            json(&Described { report, training, placement: None })?;
        } else {
            say!("{report}\n{training}")?;
        }
        return Ok(enough?);
    };
    if !args.json {
        say!("{report}\n{training}")?;
    }
    let file = onnx_file(model)?;
    let placement = Placement::of(&file, args.engine, &args.gpu.options(threads))?;
    if args.json {
        return json(&Described { report, training, placement: Some(placement) });
    }
    say!("{} in {}, as it runs there:\n{placement}", file.display(), placement.engine)
}
