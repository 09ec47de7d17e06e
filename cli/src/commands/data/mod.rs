//! `tallow data`: folders of images into TFRecord shards and back, and a look at either.

mod inspect;
mod prepare;
mod unpack;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tallow_trainer::data::Skipped;
use tallow_trainer::data::tfrecord::{Located, locate};

use crate::failure::usage;
use crate::output::{count, say};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make TFRecord shards of a folder of images, as ImageNet's scripts and tensorflow_datasets do
    Prepare(prepare::Args),
    /// Write the images in TFRecord shards as files again
    Unpack(unpack::Args),
    /// Count classes, measure sizes and pixels, and find broken images, in a folder or in shards
    Inspect(inspect::Args),
    /// Check every checksum, example and label of TFRecord shards, and that none is missing
    Verify(verify::Args),
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Command::Prepare(args) => prepare::run(args),
        Command::Unpack(args) => unpack::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

/// The shards that an argument names.
fn shards(source: &Path) -> Result<Located> {
    match locate(text(source)?)? {
        Some(located) => Ok(located),
        None if source.is_dir() => bail!(
            "no TFRecord shards in {}: they are called train-00000-of-00004, name-train.tfrecord-… or name.tfrecord",
            source.display()
        ),
        None if source.exists() => {
            bail!("{} is not called as a shard is: train-00000-of-00004 or name.tfrecord", source.display())
        }
        None => bail!("{} does not exist: name a folder, a file or a pattern of shards", source.display()),
    }
}

/// A data source as text, which settings and patterns are.
fn text(source: &Path) -> Result<&str> {
    source
        .to_str()
        .ok_or_else(|| usage(format!("{}: rename it, its name is not valid UTF-8", source.display())))
}

/// Images that could not be used; many at most a few of them.
fn say_skipped(what: &str, skipped: &[Skipped]) -> Result<()> {
    const SHOWN: usize = 20;
    if skipped.is_empty() {
        return Ok(());
    }
    say!("{} {what}:", count(skipped.len(), "image"))?;
    for image in skipped.iter().take(SHOWN) {
        say!("  {}: {}", image.origin, image.reason)?;
    }
    match skipped.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => say!("  and {more} more; --json lists them all"),
    }
}

/// Bytes for people: 12.3 MB.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// `1 class`, `2 classes`.
fn classes(n: usize) -> String {
    format!("{n} class{}", if n == 1 { "" } else { "es" })
}
