//! The `tallow` command: arguments in, a crate's call, a table or a file out.
//!
//! Each command is a file in [`commands`]; `model` finds networks and weights wherever a command may be pointed at.

// The doc comments of arguments are help texts for a terminal: `<class>` and `[default: …]` are no markup there.
#![allow(rustdoc::invalid_html_tags, rustdoc::broken_intra_doc_links)]

mod commands;
mod device;
mod factors;
mod failure;
mod features;
mod foreign;
mod gpu;
mod image_size;
mod interrupt;
mod model;
mod output;
mod photos;
mod precision;
mod pretrained;
mod records;
mod threads;
mod tta;
mod zoo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed, as where engines disagree (verify), a certified file was altered (info), an image could not be labelled or shown (predict, cam) or shards are damaged
       (data verify)
  2    wrong usage
  130  stopped by Ctrl-C before the end; train, quickstart and
       search write a checkpoint first, data prepare keeps what is done";

/// Train image classifiers and ship them as .onnx files that give the same numbers everywhere.
#[derive(Parser)]
#[command(name = "tallow", version = features::VERSION, about, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads to compute with [default: one for each core]
    #[arg(long, global = true, display_order = 1000, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Subcommand)]
enum Command {
    /// Train on the embedded digits, export, verify and predict: the whole path in two minutes
    Quickstart(commands::quickstart::Args),
    /// Train a network on a folder of images, TFRecord shards or the embedded digits
    Train(Box<commands::train::Args>),
    /// Make TFRecord shards, look at data, check it
    Data(commands::data::Args),
    /// Measure a trained network on labelled images
    Eval(commands::eval::Args),
    /// Label images with an .onnx file
    Predict(commands::predict::Args),
    /// Show where in a photo a network sees its classes
    Cam(commands::cam::Args),
    /// Average the weights of several trainings of one network
    Soup(commands::soup::Args),
    /// Write an .onnx file, a SavedModel or a TensorFlow checkpoint from a run or from weights
    Export(commands::export::Args),
    /// Turn weights of PyTorch or TensorFlow into a safetensors file that fits a network
    Import(commands::import::Args),
    /// Compare candle, ONNX Runtime, tract and candle-onnx on the same inputs
    Verify(commands::verify::Args),
    /// Print what an .onnx file says about itself, and check its certificate
    Info(commands::info::Args),
    /// Print a network's layers: output, kernel, parameters, MACs
    Summary(commands::summary::Args),
    /// Print what compound scaling makes of a network: layers, channels, resolution, parameters, MACs
    Scale(commands::scale::Args),
    /// Search for a network by training candidates: coefficients of compound scaling, or architectures
    Search(Box<commands::search::Args>),
    /// Measure latency and throughput of an .onnx file, or training speed of a network
    Bench(commands::bench::Args),
    /// Install or inspect the inference engines
    Runtime(commands::runtime::Args),
}

fn main() -> ExitCode {
    failure::without_stacks();
    let cli = Cli::parse();
    threads::settle(cli.threads);
    match run(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let threads = cli.threads.map(usize::from);
    let done = |result: anyhow::Result<()>| result.map(|()| ExitCode::SUCCESS);
    match cli.command {
        Command::Quickstart(args) => commands::quickstart::run(&args),
        Command::Train(args) => commands::train::run(&args, threads),
        Command::Data(args) => commands::data::run(&args),
        Command::Eval(args) => done(commands::eval::run(&args, threads)),
        Command::Predict(args) => commands::predict::run(&args, threads),
        Command::Cam(args) => commands::cam::run(&args, threads),
        Command::Soup(args) => done(commands::soup::run(&args)),
        Command::Export(args) => done(commands::export::run(&args)),
        Command::Import(args) => done(commands::import::run(&args)),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Summary(args) => done(commands::summary::run(&args)),
        Command::Scale(args) => done(commands::scale::run(&args)),
        Command::Search(args) => commands::search::run(&args, threads),
        Command::Bench(args) => done(commands::bench::run(&args, threads)),
        Command::Runtime(args) => done(commands::runtime::run(&args, threads)),
    }
}
