//! Where samples come from: the [`Dataset`] trait, image folders, TFRecord shards, the embedded digits, and the split
//! into training and validation. The [`loader`] turns a data set into batches on threads of its own; [`prepare`] makes
//! shards of folders, [`inspect`] looks at either.
//! Everything random is keyed by seed, epoch and sample, so that no result depends on the order of threads.

pub mod digits;
mod fingerprint;
mod fold;
pub mod folder;
mod format;
pub mod inspect;
pub mod loader;
pub mod prepare;
mod split;
pub mod tfrecord;
mod title;

use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use tallow_builder::Rng;

use crate::error::{Error, Result};

pub use fingerprint::Fingerprint;
pub use fold::Fold;
pub use loader::{Batch, Bytes, Epoch, Images, Loader, LoaderOptions, Scale, Share, Skipped, Transform};
pub use split::{SplitOptions, Subset, stratified_split};
pub use tfrecord::{Known, RecordOptions};
pub use title::title;

/// An image and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The image, upright and in RGB.
    pub image: RgbImage,
    /// Its class, an index into [`Dataset::classes`].
    pub label: u32,
}

/// A finite set of labelled images with random access.
///
/// Loading is by shared reference and from several threads at once.
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// True if there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class names; a label is an index into them.
    fn classes(&self) -> &[String];

    /// Reads and decodes sample `index`.
    ///
    /// # Errors
    /// [`crate::Error::Image`] with the sample's origin if it cannot be read or decoded; [`crate::Error::Records`] if
    /// the file that holds it is damaged.
    fn load(&self, index: usize) -> Result<Sample>;

    /// Where sample `index` comes from, for messages: a path, or `digits #17`.
    fn origin(&self, index: usize) -> String;

    /// What sample `index` is called within the data set, wherever the data set lies.
    fn name(&self, index: usize) -> String {
        self.origin(index)
    }

    /// The label of sample `index`, where it is known without loading it.
    fn known_label(&self, _index: usize) -> Option<u32> {
        None
    }

    /// The samples in the order of one epoch, which `rng` alone decides. A data set whose samples are costly to reach
    /// in any order may keep neighbours together.
    fn shuffled(&self, rng: &mut Rng) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        rng.shuffle(&mut order);
        order
    }
}

/// A data set that knows its labels without loading its samples.
pub trait Labelled: Dataset {
    /// The label of sample `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    fn label(&self, index: usize) -> u32;
}

/// The two sets that training needs, with the same classes.
#[derive(Clone)]
pub struct Splits {
    /// What the network learns from.
    pub train: Arc<dyn Dataset>,
    /// What it is measured on.
    pub validation: Arc<dyn Dataset>,
    /// The label of the first class, where the data has labels of its own: TFRecord shards.
    pub label_offset: Option<u32>,
}

impl Splits {
    /// Opens a data set by name: `digits`, TFRecord shards (see [`tfrecord::locate`]), or else a folder of images (see
    /// [`folder::open`]).
    ///
    /// `split` says what to hold out for validation where the data set has no validation part of its own, `records` how
    /// shards are read, `known` what training on the same data has found.
    ///
    /// # Errors
    /// Those of [`folder::open`], [`tfrecord::open`] and [`stratified_split`], and for `records` where there are none.
    pub fn open(
        source: &str,
        split: SplitOptions,
        records: Option<&RecordOptions>,
        known: Option<Known<'_>>,
    ) -> Result<Self> {
        let is_digits = source == "digits" && !Path::new(source).is_dir();
        if !is_digits && let Some(located) = tfrecord::locate(source)? {
            return tfrecord::open(&located, &records.cloned().unwrap_or_default(), split, known);
        }
        // That data is gone is said first.
        if is_digits || Path::new(source).is_dir() {
            refuse_record_options(records)?;
        }
        if is_digits {
            stratified_split(Arc::new(digits::Digits::new()), split)
        } else {
            folder::open(source, split)
        }
    }
}

/// Whether the data set `source` has a validation part of its own, so that nothing is held out.
///
/// # Errors
/// As [`Splits::open`], for shards.
pub fn has_validation(source: &str) -> Result<bool> {
    if source == "digits" && !Path::new(source).is_dir() {
        return Ok(false);
    }
    match tfrecord::locate(source)? {
        Some(located) => Ok(located.parts()?.validation.is_some()),
        None => Ok(folder::has_validation(source)),
    }
}

/// Folders of images have no labels but their names.
///
/// # Errors
/// [`Error::Setting`] where `records` says something of labels.
pub fn refuse_record_options(records: Option<&RecordOptions>) -> Result<()> {
    let remedy = "only TFRecord shards have labels of their own: leave it out";
    let setting = |name, value: String| Err(Error::Setting { name, value, remedy });
    match records {
        Some(RecordOptions { label_offset: Some(offset), .. }) => setting("label_offset", offset.to_string()),
        Some(RecordOptions { labels: Some(path), .. }) => setting("labels", path.display().to_string()),
        _ => Ok(()),
    }
}

/// A data set's name as it can be kept: a folder's is made absolute, so that it is found from any other folder.
pub fn lasting(source: &str) -> String {
    let path = Path::new(source);
    // A pattern names no file, but its folder is one.
    let by_folder = || Some(std::fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    let absolute = std::fs::canonicalize(path).ok().or_else(by_folder);
    absolute.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or_else(|| source.to_owned())
}

/// First parts of the keys given to [`tallow_builder::Rng::stream`], one for each use, so that no two uses share
/// a stream.
pub(crate) mod stream {
    pub const SPLIT: u64 = u64::from_be_bytes(*b"split   ");
    pub const PREPARE: u64 = u64::from_be_bytes(*b"prepare ");
    pub const SHUFFLE: u64 = u64::from_be_bytes(*b"shuffle ");
    pub const AUGMENT: u64 = u64::from_be_bytes(*b"augment ");
    pub const MIX: u64 = u64::from_be_bytes(*b"mix     ");
}
