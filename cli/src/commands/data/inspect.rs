//! `tallow data inspect`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tallow_trainer::data::inspect::{Inspection, Spread, inspect};
use tallow_trainer::plot;
use tallow_trainer::tally::Show;

use super::{classes, say_skipped, text};
use crate::commands::train::skipped_json;
use crate::failure::{INTERRUPTED, usage};
use crate::output::{json, note, say, table, thousands};
use crate::{interrupt, records};

#[derive(clap::Args)]
pub struct Args {
    /// A folder of images or of TFRecord shards, a pattern of shards such as 'dir/train-*', or `digits`
    data: PathBuf,
    /// Draw some images of each class, of the largest part, into this PNG file
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
    #[command(flatten)]
    records: records::Args,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let source = text(&args.data)?;
    let options = args.records.apply(None);
    options.as_ref().map_or(Ok(()), |options| options.validate())?;
    args.contact_sheet.as_deref().map_or(Ok(()), refuse_sheet)?;
    let stop = interrupt::listen("stopping")?;
    let Some(parts) = inspect(source, options.as_ref(), Show::Stderr, stop)? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    if args.json {
        json(&parts.iter().map(part_json).collect::<Vec<_>>())?;
    } else {
        report(&parts)?;
    }
    if let (Some(path), Some(part)) = (&args.contact_sheet, parts.iter().max_by_key(|part| part.images)) {
        let title = format!("{source}: {}", part.part);
        plot::save(&plot::contact_sheet(&title, &part.shown, part.classes.len())?, path)?;
        note!("contact sheet: {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Inspecting takes long: where the sheet cannot go is said first.
fn refuse_sheet(path: &Path) -> Result<()> {
    if path.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("png")) {
        let name = path.with_extension("png");
        return Err(usage(format!(
            "--contact-sheet {}: it is a PNG file, name it {}",
            path.display(),
            name.display()
        )));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        bail!("cannot write {}: there is no folder {}, create it first", path.display(), folder.display());
    }
    if path.is_dir() {
        bail!("cannot write {}: a folder has that name, choose another", path.display());
    }
    Ok(())
}

fn report(parts: &[Inspection]) -> Result<()> {
    let names: Vec<&str> = parts.iter().map(|part| part.part.as_str()).collect();
    let named = parts.first().map_or(&[][..], |part| &part.classes);
    let number = |n: usize| thousands(n as u64);
    let mut rows: Vec<Vec<String>> = vec![];
    for (i, (class, _)) in named.iter().enumerate() {
        let counts = parts.iter().map(|part| number(part.classes[i].1));
        rows.push(std::iter::once(class.clone()).chain(counts).collect());
    }
    rows.push(std::iter::once("all".into()).chain(parts.iter().map(|part| number(part.images))).collect());
    table(&[&["class"], names.as_slice()].concat(), &rows)?;
    for part in parts {
        say!("")?;
        say!("{}: {}", part.part, classes(part.classes.len()))?;
        if let (Some(width), Some(height)) = (part.width, part.height) {
            let size = |pick: fn(&Spread) -> u32| format!("{}×{}", pick(&width), pick(&height));
            let [min, median, max] = [size(|s| s.min), size(|s| s.median), size(|s| s.max)];
            say!("  width × height  min {min}  median {median}  max {max}")?;
        }
        if let (Some(mean), Some(std)) = (part.mean, part.std) {
            say!("  mean R, G, B    {}  (0 to 1)", triple(mean))?;
            say!("  deviation       {}", triple(std))?;
        }
        for shard in &part.missing {
            say!("  missing shard: {shard}")?;
        }
        say_skipped("cannot be used", &part.broken)?;
    }
    Ok(())
}

fn triple(values: [f64; 3]) -> String {
    values.map(|value| format!("{value:.4}")).join(", ")
}

fn part_json(part: &Inspection) -> Value {
    let counts = part.classes.iter().map(|(class, count)| json!({ "class": class, "images": count }));
    json!({
        "part": part.part, "images": part.images, "classes": counts.collect::<Vec<_>>(),
        "width": part.width, "height": part.height, "mean": part.mean, "std": part.std,
        "broken": skipped_json(&part.broken), "missing": part.missing,
    })
}
