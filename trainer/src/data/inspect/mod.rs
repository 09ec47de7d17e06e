//! Looks at a data set before it is trained on: images of each class, sizes, pixels, what is broken, and some images
//! of each class for a contact sheet.

mod statistics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use image::{RgbImage, imageops};
use rayon::prelude::*;
use tallow_input::Interpolation;
use tallow_tensorflow::Error::Damaged;

use super::digits::Digits;
use super::folder::{EmptyClasses, ImageFolder};
use super::loader::lock;
use super::prepare::Source;
use super::tfrecord::{Index, Meaning, RecordOptions, Records, Written, locate};
use super::{Dataset, Skipped, refuse_record_options};
use crate::error::{Error, Result};
use crate::plot::{SheetRow, THUMBNAIL};
use crate::tally::{Show, Tally};
use statistics::Statistics;

pub use statistics::Spread;

/// Images of each class on a contact sheet.
const SHOWN_IMAGES: usize = 8;
/// Classes on a contact sheet.
const SHOWN_CLASSES: usize = 24;

/// What a part of a data set holds.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// `train`, `validation`, or what the part is called.
    pub part: String,
    /// Images that can be used.
    pub images: usize,
    /// Classes and how many images each has.
    pub classes: Vec<(String, usize)>,
    /// Columns of the images.
    pub width: Option<Spread>,
    /// Rows of the images.
    pub height: Option<Spread>,
    /// Mean of R, G, B over all pixels, on a scale of 0 to 1.
    pub mean: Option<[f64; 3]>,
    /// Standard deviation of R, G, B over all pixels, on a scale of 0 to 1.
    pub std: Option<[f64; 3]>,
    /// Images that cannot be used.
    pub broken: Vec<Skipped>,
    /// Names of shards that are not there.
    pub missing: Vec<String>,
    /// Some images of some classes.
    pub shown: Vec<SheetRow>,
}

/// A part before it is looked at.
struct Part {
    name: String,
    data: Arc<dyn Dataset>,
    missing: Vec<String>,
}

/// Looks at every image of `source`: `digits`, shards or a folder of images. `None` if `stop` was set.
///
/// # Errors
/// Where there is no such data, or the framing of a shard is broken.
pub fn inspect(
    source: &str,
    records: Option<&RecordOptions>,
    show: Show,
    stop: &AtomicBool,
) -> Result<Option<Vec<Inspection>>> {
    let parts = parts(source, records)?;
    let tally = Tally::new(show, "inspect", parts.iter().map(|part| part.data.len()).sum());
    let inspected = parts.into_iter().map(|part| inspect_part(part, &tally, stop)).collect();
    Ok((!stop.load(Ordering::Relaxed)).then_some(inspected))
}

fn parts(source: &str, records: Option<&RecordOptions>) -> Result<Vec<Part>> {
    let part = |name: &str, data: Arc<dyn Dataset>| Part { name: name.into(), data, missing: vec![] };
    if source == "digits" && !Path::new(source).is_dir() {
        refuse_record_options(records)?;
        return Ok(vec![part("digits", Arc::new(Digits::new()))]);
    }
    let Some(located) = locate(source)? else {
        refuse_record_options(records)?;
        let Source { classes, train, validation } = Source::search(Path::new(source), EmptyClasses::Keep)?;
        let named = [("train", train), ("validation", validation)];
        let parts = named.into_iter().filter(|(_, images)| !images.is_empty()).map(|(name, images)| {
            part(name, Arc::new(ImageFolder::of(Path::new(source), classes.clone(), images)))
        });
        return Ok(parts.collect());
    };
    let options = records.cloned().unwrap_or_default();
    let written = Written::find(&located)?;
    let indices = located.sets.iter().map(|set| written.scan(set.files.clone()));
    let indices: Vec<Index> = indices.collect::<Result<_>>()?;
    let largest = indices.iter().max_by_key(|index| index.len());
    let meaning = match largest {
        Some(index) => Meaning::find(&located.folder, index, &options, None)?,
        None => return Ok(vec![]),
    };
    let parts = located.sets.iter().zip(indices).map(|(set, index)| Part {
        name: set.name.split().into(),
        data: Arc::new(Records::new(index, meaning.clone(), options.mixing())),
        missing: set.missing.clone(),
    });
    Ok(parts.collect())
}

/// What one thread has seen.
#[derive(Default)]
struct Seen {
    statistics: Statistics,
    counts: BTreeMap<u32, usize>,
    broken: Vec<Skipped>,
}

impl Seen {
    fn merge(mut self, mut other: Self) -> Self {
        self.statistics = self.statistics.merge(other.statistics);
        for (label, count) in other.counts {
            *self.counts.entry(label).or_default() += count;
        }
        self.broken.append(&mut other.broken);
        self
    }
}

fn inspect_part(part: Part, tally: &Tally, stop: &AtomicBool) -> Inspection {
    let Part { name, data, missing } = part;
    let sheet = Sheet::new(data.classes().len());
    let look = |mut seen: Seen, index: usize| {
        if stop.load(Ordering::Relaxed) {
            return seen;
        }
        match data.load(index) {
            Ok(sample) => {
                seen.statistics.add(&sample.image);
                *seen.counts.entry(sample.label).or_default() += 1;
                sheet.offer(sample.label, index, &sample.image);
            }
            Err(Error::Image { origin, reason }) => seen.broken.push(Skipped { origin, reason }),
            // The origin names the file and the place.
            Err(Error::Records(Damaged { problem, .. })) => {
                seen.broken
                    .push(Skipped { origin: data.origin(index), reason: format!("damaged: {problem}") });
            }
            Err(error) => seen.broken.push(Skipped { origin: data.origin(index), reason: error.to_string() }),
        }
        tally.add(1, 0);
        seen
    };
    let seen = (0..data.len()).into_par_iter().fold(Seen::default, look).reduce(Seen::default, Seen::merge);
    let Seen { statistics, counts, mut broken } = seen;
    broken.sort();
    let count = |label: usize| counts.get(&(label as u32)).copied().unwrap_or(0);
    let named = data.classes().iter().enumerate().map(|(label, class)| (class.clone(), count(label)));
    let [width, height] = match statistics.spread() {
        Some(spread) => spread.map(Some),
        None => [None, None],
    };
    let classes: Vec<(String, usize)> = named.collect();
    Inspection {
        part: name,
        images: statistics.images(),
        shown: sheet.rows(&classes),
        classes,
        width,
        height,
        mean: statistics.mean(),
        std: statistics.std(),
        broken,
        missing,
    }
}

/// The first images of some classes, whichever thread comes first.
struct Sheet {
    /// Every so many classes one is shown.
    step: usize,
    shown: Mutex<BTreeMap<u32, BTreeMap<usize, RgbImage>>>,
}

impl Sheet {
    fn new(classes: usize) -> Self {
        Self { step: classes.div_ceil(SHOWN_CLASSES).max(1), shown: Mutex::default() }
    }

    fn offer(&self, label: u32, index: usize, image: &RgbImage) {
        if !(label as usize).is_multiple_of(self.step) {
            return;
        }
        let wanted = |images: &BTreeMap<usize, RgbImage>| {
            images.len() < SHOWN_IMAGES || images.last_key_value().is_some_and(|(&last, _)| index < last)
        };
        if lock(&self.shown).get(&label).is_none_or(&wanted) {
            let small = thumbnail(image);
            let mut shown = lock(&self.shown);
            let images = shown.entry(label).or_default();
            images.insert(index, small);
            if images.len() > SHOWN_IMAGES {
                images.pop_last();
            }
        }
    }

    fn rows(self, classes: &[(String, usize)]) -> Vec<SheetRow> {
        let mut shown = self.shown.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let labels = (0..classes.len()).step_by(self.step);
        let row = |label: usize| {
            let images = shown.remove(&(label as u32)).unwrap_or_default();
            let (class, count) = classes[label].clone();
            SheetRow { class, count, images: images.into_values().collect() }
        };
        labels.map(row).collect()
    }
}

/// The image within a square of [`THUMBNAIL`] pixels; small images grow by whole factors, to show their pixels.
fn thumbnail(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let longest = width.max(height);
    if longest <= THUMBNAIL / 2 {
        let factor = THUMBNAIL / longest;
        return imageops::resize(image, width * factor, height * factor, imageops::FilterType::Nearest);
    }
    let side = |side: u32| (u64::from(side) * u64::from(THUMBNAIL) / u64::from(longest)).max(1) as u32;
    let resized = tallow_input::resize(image, side(width), side(height), Interpolation::Bilinear);
    resized.unwrap_or_else(|_| RgbImage::new(1, 1))
}
