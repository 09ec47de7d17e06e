//! Folders of images into TFRecord shards ([`prepare`]) and back ([`unpack`]).
//! `source` finds the images, `encoded` is their bytes, `facts` and `schema` what stands beside them; `shard` writes a
//! file, `journal` remembers which are done, `metadata` says what the classes are called, `place` where
//! none of this may be written.

mod encoded;
mod facts;
mod journal;
mod metadata;
mod place;
mod schema;
mod shard;
mod source;
#[cfg(test)]
mod tests;
mod unpack;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use tallow_tensorflow::shards::ShardName;

use super::Skipped;
use crate::error::{Error, Result};
use crate::tally::{Show, Tally};
use journal::{Done, Header, Part};
use source::Image;

pub(crate) use journal::JOURNAL_FILE;
pub use journal::Journal;
pub use schema::Schema;
pub(crate) use source::Source;
pub use unpack::{Layout, Unpacked, unpack};

/// ImageNet's training shards have about this size, of which there are [`MOST_SHARDS`].
const SHARD_BYTES: [u64; 2] = [128 << 20, 48 << 20];
/// Shards of ImageNet's training and validation part in all three schemas' own scripts.
const MOST_SHARDS: [usize; 2] = [1024, 128];

/// How shards are made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose keys, labels and file names are written.
    pub schema: Schema,
    /// The data set's name in the shards' names (tfds); by default `imagenet2012` for synsets, else the folder's name.
    pub name: Option<String>,
    /// The label of the first class; by default the schema's.
    pub label_offset: Option<u32>,
    /// Training shards; by default one for 128 MiB, at most 1024.
    pub train_shards: Option<usize>,
    /// Validation shards; by default one for 48 MiB, at most 128.
    pub validation_shards: Option<usize>,
    /// The share of each class to hold out where there is no validation part.
    pub validation_share: Option<f64>,
    /// Decides the order of the training images.
    pub seed: u64,
    /// Words of each synset (inception).
    pub texts: Option<PathBuf>,
    /// Bounding boxes of each file (inception).
    pub boxes: Option<PathBuf>,
    /// Whether an image that cannot be used is an error instead of being left out.
    pub strict: bool,
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Whether it was asked to stop; the same call goes on then.
    pub interrupted: bool,
    /// Class names.
    pub classes: Vec<String>,
    /// The label of the first class.
    pub label_offset: u32,
    /// Training and validation part.
    pub parts: Vec<PreparedPart>,
    /// Files whose images were re-encoded.
    pub reencoded: Vec<String>,
    /// Files that could not be used.
    pub skipped: Vec<Skipped>,
}

/// What was made of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedPart {
    /// `train` or `validation`.
    pub name: String,
    /// Shards in all.
    pub shards: usize,
    /// Shards that are there.
    pub done: usize,
    /// Of these, shards that an earlier run had made.
    pub kept: usize,
    /// Images in the shards that are there.
    pub images: usize,
    /// Bytes of their examples.
    pub bytes: u64,
}

/// What every shard is made by.
pub(crate) struct Work<'a> {
    schema: Schema,
    classes: &'a [String],
    label_offset: u32,
    texts: HashMap<String, String>,
    boxes: HashMap<String, Vec<[f32; 4]>>,
    strict: bool,
}

/// A part's images and how its shards are called.
struct PartPlan<'a> {
    name: &'static str,
    images: &'a [Image],
    first: ShardName,
}

impl PartPlan<'_> {
    /// The shards' names and images.
    fn shards(&self) -> impl Iterator<Item = (String, &[Image])> {
        let (total, images) = (self.first.total, self.images);
        (0..total).map(move |i| {
            let place = |i: usize| (images.len() as u128 * i as u128 / total as u128) as usize;
            (self.first.with_index(i).to_string(), &images[place(i)..place(i + 1)])
        })
    }
}

/// Makes shards of the images in `source`, in the folder `out`. Shards that an earlier run has finished are kept.
///
/// # Errors
/// Where there are no images, `out` holds shards made otherwise or what `prepare` would overwrite, or something cannot
/// be written.
pub fn prepare(
    source: &Path,
    out: &Path,
    options: &Options,
    show: Show,
    stop: &AtomicBool,
) -> Result<Prepared> {
    options.validate()?;
    place::refuse(source, out)?;
    let images = Source::open(source, options.validation_share, options.seed)?;
    if let Some(shards) = options.validation_shards.filter(|_| images.validation.is_empty()) {
        let remedy = "there are no validation images: leave it out, or hold some out with --validation-share";
        return Err(Error::Setting { name: "validation-shards", value: shards.to_string(), remedy });
    }
    let name = options.name.clone().unwrap_or_else(|| default_name(source, &images.classes));
    let label_offset = options.label_offset.unwrap_or(options.schema.first_label());
    let mut digest = Sha256::new();
    let mut plans = vec![];
    let asked = [options.train_shards, options.validation_shards];
    for (i, (part, images)) in
        [("train", &images.train), ("validation", &images.validation)].into_iter().enumerate()
    {
        let bytes = digest_files(&mut digest, source, images)?;
        let usual = usize::try_from(bytes.div_ceil(SHARD_BYTES[i])).unwrap_or(usize::MAX).min(MOST_SHARDS[i]);
        let total = asked[i].unwrap_or(usual).min(images.len());
        let prefix = options.schema.prefix(&name, part);
        let first = ShardName { prefix, index: 0, total, suffix: String::new() };
        if total > 0 {
            plans.push(PartPlan { name: part, images, first });
        }
    }
    let work = Work {
        schema: options.schema,
        classes: &images.classes,
        label_offset,
        texts: read(&options.texts, &mut digest, facts::read_texts)?,
        boxes: read(&options.boxes, &mut digest, facts::read_boxes)?,
        strict: options.strict,
    };
    images.classes.iter().for_each(|class| digest.update([class.as_bytes(), b"\0"].concat()));
    let mut header = Header::new(options.schema, label_offset, options.seed);
    header.name = (options.schema == Schema::Tfds).then(|| name.clone());
    header.validation_share = options.validation_share;
    header.parts = plans
        .iter()
        .map(|plan| (plan.name.to_owned(), Part { images: plan.images.len(), shards: plan.first.total }))
        .collect();
    header.files = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();

    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let mut journal = Journal::open(out, &header)?;
    shard::remove_unfinished(out)?;
    let total = plans.iter().map(|plan| plan.images.len()).sum();
    let tally = Tally::new(show, "prepare", total);
    let mut prepared = Prepared { classes: images.classes.clone(), label_offset, ..Prepared::default() };
    for plan in &plans {
        let mut part =
            PreparedPart { name: plan.name.into(), shards: plan.first.total, ..PreparedPart::default() };
        for (name, images) in plan.shards() {
            if journal.is_whole(out, &name) {
                tally.add(images.len(), 0);
                part.kept += 1;
            } else if prepared.interrupted
                || !shard::write(out, &name, images, &work, &mut journal, &tally, stop)?
            {
                prepared.interrupted = true;
                continue;
            }
            let done = journal.done(&name).expect("a finished shard is in the journal");
            part.done += 1;
            part.images += done.images;
            part.bytes += done.bytes;
            prepared.reencoded.extend(done.reencoded.iter().cloned());
            let skipped = done.skipped.iter().cloned();
            prepared.skipped.extend(skipped.map(|(origin, reason)| Skipped { origin, reason }));
        }
        prepared.parts.push(part);
    }
    if !prepared.interrupted {
        let done = |plan: &PartPlan<'_>| -> Vec<&Done> {
            plan.shards().filter_map(|(name, _)| journal.done(&name)).collect()
        };
        let parts: Vec<_> = plans.iter().map(|plan| (plan.name, done(plan))).collect();
        metadata::write(out, options.schema, &name, &images.classes, &parts)?;
    }
    Ok(prepared)
}

impl Options {
    fn validate(&self) -> Result<()> {
        let setting = |name, value: String, remedy| Err(Error::Setting { name, value, remedy });
        for (name, shards) in
            [("train-shards", self.train_shards), ("validation-shards", self.validation_shards)]
        {
            if let Some(shards) = shards.filter(|shards| !(1..=99_999).contains(shards)) {
                return setting(name, shards.to_string(), "choose 1 to 99999");
            }
        }
        if let Some(offset) = self.label_offset.filter(|&offset| offset > 1) {
            return setting("label-offset", offset.to_string(), "labels start at 0 or at 1");
        }
        if let Some(fraction) = self.validation_share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            return Err(Error::Fraction { fraction });
        }
        if let Some(name) = &self.name
            && (name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        {
            return setting("name", name.clone(), "letters, digits and _ make the name of a data set");
        }
        if let Some(name) = self.name.clone().filter(|_| self.schema != Schema::Tfds) {
            return setting("name", name, "only the names of --schema tfds's shards have it: leave it out");
        }
        let only_inception = self.texts.is_some() || self.boxes.is_some();
        if only_inception && self.schema != Schema::Inception {
            let remedy = "texts and bounding boxes are written with --schema inception alone";
            return setting("schema", self.schema.to_string(), remedy);
        }
        Ok(())
    }
}

/// `imagenet2012` where all classes are synsets, else the folder's name in letters that a data set's name may have.
fn default_name(source: &Path, classes: &[String]) -> String {
    let is_synset = |class: &String| {
        class.strip_prefix('n').is_some_and(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    if classes.iter().all(is_synset) {
        return "imagenet2012".into();
    }
    let folder = fs::canonicalize(source).unwrap_or_else(|_| source.to_owned());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = folder.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if name.trim_matches('_').is_empty() { "images".into() } else { name }
}

/// Adds names, classes, sizes and times of images to the digest; gives their size in bytes.
fn digest_files(digest: &mut Sha256, root: &Path, images: &[Image]) -> Result<u64> {
    let mut bytes = 0;
    for (path, label) in images {
        let about = fs::metadata(path).map_err(Error::io("read", path))?;
        let time = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let name = path.strip_prefix(root).unwrap_or(path);
        digest.update(name.as_os_str().as_encoded_bytes());
        digest.update([0]);
        digest.update(label.to_le_bytes());
        digest.update(about.len().to_le_bytes());
        digest.update(time.unwrap_or_default().as_nanos().to_le_bytes());
        bytes += about.len();
    }
    Ok(bytes)
}

/// Reads a file that may be named, and adds its bytes to the digest.
fn read<T: Default>(
    path: &Option<PathBuf>,
    digest: &mut Sha256,
    parse: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let Some(path) = path else { return Ok(T::default()) };
    digest.update(fs::read(path).map_err(Error::io("read", path))?);
    parse(path)
}
