//! `tallow data unpack`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use tallow_trainer::data::prepare::{Layout, unpack};
use tallow_trainer::tally::Show;

use super::{say_skipped, shards};
use crate::commands::train::skipped_json;
use crate::failure::INTERRUPTED;
use crate::output::{count, json, say};
use crate::{interrupt, records};

#[derive(clap::Args)]
pub struct Args {
    /// A folder of shards, a pattern such as 'dir/train-*', or a file
    shards: PathBuf,
    /// Where the images go: <part>/<class>/<file>
    out: PathBuf,
    /// Put validation images side by side, with their classes in synset_labels.txt
    #[arg(long)]
    flat: bool,
    #[command(flatten)]
    records: records::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let located = shards(&args.shards)?;
    let layout = if args.flat { Layout::Flat } else { Layout::Classes };
    let options = args.records.apply(None).unwrap_or_default();
    options.validate()?;
    let stop = interrupt::listen("stopping after this image")?;
    let unpacked = unpack(&located, &args.out, layout, &options, Show::Stderr, stop)?;
    if args.json {
        json(&json!({
            "out": args.out.display().to_string(), "interrupted": unpacked.interrupted,
            "written": unpacked.written, "kept": unpacked.kept, "skipped": skipped_json(&unpacked.skipped), "undecodable": skipped_json(&unpacked.undecodable),
        }))?;
    } else {
        let kept = if unpacked.kept > 0 { format!(", {} were there", unpacked.kept) } else { String::new() };
        say!("{} written to {}{kept}", count(unpacked.written, "image"), args.out.display())?;
        say_skipped("could not be used", &unpacked.skipped)?;
        say_skipped("written byte for byte that nothing can decode", &unpacked.undecodable)?;
        if unpacked.interrupted {
            say!("stopped; the same command goes on")?;
        }
    }
    Ok(if unpacked.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}
