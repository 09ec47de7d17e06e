//! `tallow data prepare`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;
use tallow_trainer::data::prepare::{Options, Prepared, PreparedPart, Schema, prepare};
use tallow_trainer::tally::Show;

use super::{classes, say_skipped, size};
use crate::commands::train::skipped_json;
use crate::failure::INTERRUPTED;
use crate::interrupt;
use crate::output::{count, json, note, say, thousands};

const SHARDS: &str = "Shards";
const IMAGENET: &str = "ImageNet's own files, for --schema inception";

#[derive(clap::Args)]
pub struct Args {
    /// Images: train/<class>/<file>, with validation/<class>/<file> or with validation/<file> and synset_labels.txt;
    /// or <class>/<file> alone
    source: PathBuf,
    /// Where the shards go; a call that was interrupted goes on there
    out: PathBuf,
    /// Whose features and names of files to write: imagenet (imagenet_to_gcs), inception (build_imagenet_data, with
    /// texts and boxes) or tfds (tensorflow_datasets)
    #[arg(help_heading = SHARDS, long, default_value_t = Schema::Imagenet)]
    schema: Schema,
    /// The data set in the names of tfds's shards [default: imagenet2012 for synsets, else the folder's name]
    #[arg(help_heading = SHARDS, long)]
    name: Option<String>,
    /// The label of the first class, 0 or 1 [default: 1; tfds 0]
    #[arg(help_heading = SHARDS, long, value_name = "LABEL")]
    label_offset: Option<u32>,
    /// Training shards [default: one for 128 MiB, at most 1024]
    #[arg(help_heading = SHARDS, long, value_name = "N")]
    train_shards: Option<usize>,
    /// Validation shards [default: one for 48 MiB, at most 128]
    #[arg(help_heading = SHARDS, long, value_name = "N")]
    validation_shards: Option<usize>,
    /// Share of each class to hold out where there is no validation folder [default: nothing]
    #[arg(long, value_name = "SHARE")]
    validation_share: Option<f64>,
    /// Decides the order of the training images, and which are held out
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Words of each synset: lines of a synset, a tab and words [default: the class folder's name]
    #[arg(help_heading = IMAGENET, long, value_name = "FILE")]
    synset_texts: Option<PathBuf>,
    /// Bounding boxes: lines of file,xmin,ymin,xmax,ymax
    #[arg(help_heading = IMAGENET, long, value_name = "FILE")]
    bounding_boxes: Option<PathBuf>,
    /// Make a broken image an error instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = Options {
        schema: args.schema,
        name: args.name.clone(),
        label_offset: args.label_offset,
        train_shards: args.train_shards,
        validation_shards: args.validation_shards,
        validation_share: args.validation_share,
        seed: args.seed,
        texts: args.synset_texts.clone(),
        boxes: args.bounding_boxes.clone(),
        strict: args.strict,
    };
    let stop = interrupt::listen("stopping; finished shards are kept")?;
    let prepared = prepare(&args.source, &args.out, &options, Show::Stderr, stop)?;
    for part in &prepared.parts {
        let asked = if part.name == "train" { args.train_shards } else { args.validation_shards };
        if let Some(asked) = asked.filter(|&asked| asked != part.shards) {
            note!(
                "note: {} of {} instead of {asked}: there are no more images",
                count(part.shards, "shard"),
                part.name
            );
        }
    }
    if args.json {
        report_json(args, &prepared)?;
    } else {
        report(args, &prepared)?;
    }
    Ok(if prepared.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

fn report(args: &Args, prepared: &Prepared) -> Result<()> {
    let out = args.out.display();
    for PreparedPart { name, shards, done, kept, images, bytes } in &prepared.parts {
        let of = if done == shards { String::new() } else { format!("{done} of ") };
        let kept = if *kept > 0 { format!(" ({kept} kept from before)") } else { String::new() };
        let shards = count(*shards, "shard");
        let images = format!("{} image{}", thousands(*images as u64), if *images == 1 { "" } else { "s" });
        say!("{name}: {images}, {} in {of}{shards}{kept}", size(*bytes))?;
    }
    if !prepared.reencoded.is_empty() {
        let first = &prepared.reencoded[0];
        say!(
            "{} re-encoded as RGB JPEG of quality 100 (CMYK, PNG, WebP or BMP), such as {first}",
            count(prepared.reencoded.len(), "image")
        )?;
    }
    say_skipped("could not be used", &prepared.skipped)?;
    if prepared.interrupted {
        return say!("stopped; the same command goes on");
    }
    let last = prepared.label_offset as usize + prepared.classes.len() - 1;
    say!("{}, labels {} to {last}", classes(prepared.classes.len()), prepared.label_offset)?;
    say!("next: tallow data verify {out} && tallow train --data {out}")
}

fn report_json(args: &Args, prepared: &Prepared) -> Result<()> {
    let part = |part: &PreparedPart| {
        json!({
            "part": part.name, "shards": part.shards, "done": part.done, "kept": part.kept,
            "images": part.images, "bytes": part.bytes,
        })
    };
    json(&json!({
        "out": args.out.display().to_string(),
        "interrupted": prepared.interrupted,
        "schema": args.schema,
        "label_offset": prepared.label_offset,
        "classes": prepared.classes,
        "parts": prepared.parts.iter().map(part).collect::<Vec<_>>(),
        "reencoded": prepared.reencoded,
        "skipped": skipped_json(&prepared.skipped),
    }))
}
