//! `tallow cam`: where in a photo a network sees its classes.
//!
//! `source` makes the maps, by candle or by an engine; `choice` finds the classes and the layer that are named.

mod choice;
mod source;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::json;
use tallow_input::{RgbImage, decode_file};
use tallow_runtime::EngineChoice;
use tallow_trainer::plot::{self, ActivationMap};

use crate::device;
use crate::failure::usage;
use crate::output::percent;
use crate::photos::{self, Answer};
use crate::pretrained;
use source::{Seen, Source};

/// The most classes in a picture: a picture of more is a wall, and takes hundreds of megabytes to draw.
const MOST_CLASSES: usize = 30;

#[derive(clap::Args)]
pub struct Args {
    /// A run, a SavedModel, or an .onnx file exported with --cam (none of them with --weights); then images (JPEG, PNG,
    /// WebP or BMP), or folders of them
    #[arg(required = true, value_name = "MODEL or IMAGE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    pretrained: pretrained::Args,
    /// The PNG to write [default: the image's name with .cam.png, in this folder]
    #[arg(short, long, value_name = "PNG")]
    output: Option<PathBuf>,
    /// Classes to show, the most probable first, at most 30
    #[arg(short = 'k', long, default_value_t = 3, conflicts_with = "class")]
    top_k: usize,
    /// A class to show: its name or its number; may be given several times
    #[arg(long)]
    class: Vec<String>,
    /// Show Grad-CAM at this layer, or at the last of a stage, instead of class activation maps: `tallow summary` lists
    /// the layers
    #[arg(long, value_name = "LAYER")]
    layer: Option<String>,
    /// The engine for an .onnx file: auto, ort-cuda, ort or tract [default: auto]
    #[arg(long)]
    engine: Option<EngineChoice>,
    #[command(flatten)]
    device: device::Args,
    /// Replace pictures that are there
    #[arg(long)]
    force: bool,
    /// Print JSON: classes, probabilities, logits, each map's values and where it is largest
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    if args.top_k == 0 {
        return Err(usage("--top-k 0 shows nothing: choose at least 1"));
    }
    for (flag, classes) in [("--top-k", args.top_k), ("--class", args.class.len())] {
        if classes > MOST_CLASSES {
            return Err(usage(format!(
                "{flag}: {classes} classes do not fit in a picture: choose at most {MOST_CLASSES}"
            )));
        }
    }
    let (model, named) = match args.paths.split_first() {
        Some((model, named)) if !args.pretrained.is_some() => (Some(model.as_path()), named),
        _ => (None, args.paths.as_slice()),
    };
    if named.is_empty() {
        return Err(usage("name the images after the model, or folders of them"));
    }
    let photos = photos::named(named)?;
    let pictures = pictures(args, &photos)?;
    let source = Source::open(args, model, threads)?;
    let classes = choice::classes(source.labels(), &args.class)?;
    let mut pictures = pictures.into_iter();
    photos::each(&photos, args.json, |photo| {
        let picture = pictures.next().expect("each photo has a picture");
        let pixels = decode_file(photo)?;
        let seen = source.maps(&pixels, |probabilities| match classes.is_empty() {
            true => most_probable(probabilities, args.top_k),
            false => classes.clone(),
        })?;
        draw(&source, photo, &pixels, &seen, &picture)?;
        let of = if photos.len() > 1 { format!("{}: ", photo.display()) } else { String::new() };
        let line = |Seen { map, .. }: &Seen| format!("{:>9}  {}", percent(map.probability), map.label);
        let lines = [format!("{of}{}", picture.display())].into_iter().chain(seen.iter().map(line)).collect();
        Ok(Answer { lines, json: result(&source, photo, &pixels, &seen, &picture) })
    })
}

/// The `k` most probable classes; of equals the first.
fn most_probable(probabilities: &[f64], k: usize) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..probabilities.len()).collect();
    classes.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
    classes.truncate(k);
    classes
}

/// The picture that each photo gets. Photos of one name, from several folders or of several formats, get numbers.
fn pictures(args: &Args, photos: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if args.output.is_some() && photos.len() > 1 {
        return Err(usage("--output names one picture: leave it out for several images"));
    }
    let mut taken = HashSet::new();
    let picture = |photo: &PathBuf| {
        let picture = args.output.clone().unwrap_or_else(|| {
            let stem = photo.file_stem().unwrap_or(photo.as_os_str()).to_string_lossy();
            let numbers = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
            let mut names = numbers.map(|number| format!("{stem}{number}.cam.png"));
            // Some file systems tell no capitals from small letters.
            names.find(|name| taken.insert(name.to_lowercase())).expect("numbers do not end").into()
        });
        check(&picture, args.force)?;
        Ok(picture)
    };
    photos.iter().map(picture).collect()
}

/// Refuses a picture that cannot be written, before anything is computed for it.
fn check(picture: &Path, force: bool) -> Result<()> {
    if picture.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("png")) {
        return Err(usage(format!("{}: the picture is a PNG, name it so", picture.display())));
    }
    if picture.exists() && !force {
        bail!("{}: already exists; choose another path, or pass --force to replace it", picture.display());
    }
    let folder = picture.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    if let Some(folder) = folder {
        bail!(
            "{}: the folder {} does not exist: make it, or choose another path",
            picture.display(),
            folder.display()
        );
    }
    Ok(())
}

fn draw(source: &Source, photo: &Path, pixels: &RgbImage, seen: &[Seen], picture: &Path) -> Result<()> {
    let name = photo.file_name().unwrap_or(photo.as_os_str()).to_string_lossy();
    let part = source.preprocess().seen(pixels.width(), pixels.height());
    let maps: Vec<ActivationMap> = seen.iter().map(|seen| seen.map.clone()).collect();
    let drawn = plot::activation_maps(&format!("{name}: {}", source.method()), pixels, part, &maps)?;
    Ok(plot::save(&drawn, picture)?)
}

fn result(
    source: &Source,
    photo: &Path,
    pixels: &RgbImage,
    seen: &[Seen],
    picture: &Path,
) -> serde_json::Value {
    let [left, top, width, height] = source.preprocess().seen(pixels.width(), pixels.height());
    let map = |Seen { class, logit, map }: &Seen| {
        let (across, down) = map.peak(pixels.width() as usize, pixels.height() as usize);
        let [minimum, maximum] = map.range();
        json!({
            "class": class,
            "label": map.label,
            "probability": map.probability,
            "logit": logit,
            "peak": [left + across * width, top + down * height],
            "size": map.size,
            "minimum": minimum,
            "maximum": maximum,
            "map": map.values.chunks(map.size[1]).collect::<Vec<_>>(),
        })
    };
    json!({
        "image": photo.display().to_string(),
        "picture": picture.display().to_string(),
        "method": source.method(),
        "maps": seen.iter().map(map).collect::<Vec<_>>(),
    })
}
