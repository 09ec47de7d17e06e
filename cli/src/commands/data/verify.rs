//! `tallow data verify`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use tallow_trainer::data::tfrecord::verify::{Verified, verify};
use tallow_trainer::tally::Show;

use super::{shards, size};
use crate::failure::INTERRUPTED;
use crate::output::{count, json, say, thousands};
use crate::{interrupt, records};

#[derive(clap::Args)]
pub struct Args {
    /// Folders of shards, patterns such as 'dir/train-*', or files
    #[arg(required = true)]
    shards: Vec<PathBuf>,
    /// Decode the images too
    #[arg(long)]
    pixels: bool,
    #[command(flatten)]
    records: records::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = args.records.apply(None).unwrap_or_default();
    options.validate()?;
    // What is named twice is one set of shards.
    let mut named = HashSet::new();
    let sources = args.shards.iter().filter(|source| {
        named.insert(std::fs::canonicalize(source).unwrap_or_else(|_| PathBuf::clone(source)))
    });
    let located = sources.map(|source| shards(source)).collect::<Result<Vec<_>>>()?;
    let stop = interrupt::listen("stopping")?;
    let mut all = Verified::default();
    for located in &located {
        let mut found = verify(located, &options, args.pixels, Show::Stderr, stop);
        all.interrupted |= found.interrupted;
        all.files += found.files;
        all.records += found.records;
        all.bytes += found.bytes;
        all.problems.append(&mut found.problems);
    }
    let Verified { interrupted, files, records, bytes, problems } = &all;
    if args.json {
        json(&json!({
            "files": files, "records": records, "bytes": bytes, "problems": problems, "interrupted": interrupted,
        }))?;
    } else {
        problems.iter().try_for_each(|problem| say!("{problem}"))?;
        let verdict =
            if problems.is_empty() { "all is sound".into() } else { count(problems.len(), "problem") };
        let stopped = if *interrupted { "; stopped before the end" } else { "" };
        let sound =
            format!("{} sound record{}", thousands(*records as u64), if *records == 1 { "" } else { "s" });
        say!("{}, {sound}, {}: {verdict}{stopped}", count(*files, "file"), size(*bytes))?;
    }
    Ok(match (*interrupted, problems.is_empty()) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}
