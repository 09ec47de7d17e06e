//! Where samples come from: the [`Dataset`] trait, image folders, the embedded digits, and the split into
//! training and validation. The [`loader`] turns a data set into batches on threads of its own.
//! Everything random is keyed by seed, epoch and sample, so that no result depends on the order of threads.

pub mod digits;
mod fingerprint;
pub mod folder;
pub mod loader;
mod split;

use std::sync::Arc;

use image::RgbImage;

use crate::error::Result;

pub use fingerprint::Fingerprint;
pub use loader::{Batch, Epoch, Loader, LoaderOptions, Skipped, Transform};
pub use split::{SplitOptions, Subset, stratified_split};

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

    /// The label of sample `index`.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    fn label(&self, index: usize) -> u32;

    /// Reads and decodes sample `index`, upright and in RGB.
    ///
    /// # Errors
    /// [`crate::Error::Image`] with the sample's origin if it cannot be read or decoded.
    fn load(&self, index: usize) -> Result<RgbImage>;

    /// Where sample `index` comes from, for messages: a path, or `digits #17`.
    fn origin(&self, index: usize) -> String;

    /// What sample `index` is called within the data set, wherever the data set lies.
    fn name(&self, index: usize) -> String {
        self.origin(index)
    }
}

/// The two sets that training needs, with the same classes.
#[derive(Clone)]
pub struct Splits {
    /// What the network learns from.
    pub train: Arc<dyn Dataset>,
    /// What it is measured on.
    pub validation: Arc<dyn Dataset>,
}

impl Splits {
    /// Opens a data set by name: `digits`, or else a folder of images (see [`folder::open`]).
    ///
    /// `split` says what to hold out for validation where the data set has no validation part of its own.
    ///
    /// # Errors
    /// Those of [`folder::open`] and [`stratified_split`].
    pub fn open(source: &str, split: SplitOptions) -> Result<Self> {
        match source {
            "digits" if !std::path::Path::new(source).is_dir() => {
                stratified_split(Arc::new(digits::Digits::new()), split)
            }
            path => folder::open(path, split),
        }
    }
}

/// A data set's name as it can be kept: a folder's is made absolute, so that it is found from any other folder.
pub(crate) fn lasting(source: &str) -> String {
    let absolute =
        std::fs::canonicalize(source).ok().and_then(|path| path.into_os_string().into_string().ok());
    absolute.unwrap_or_else(|| source.to_owned())
}

/// First parts of the keys given to [`tallow_builder::Rng::stream`], one for each use, so that no two uses share
/// a stream.
pub(crate) mod stream {
    pub const SPLIT: u64 = u64::from_be_bytes(*b"split   ");
    pub const SHUFFLE: u64 = u64::from_be_bytes(*b"shuffle ");
    pub const AUGMENT: u64 = u64::from_be_bytes(*b"augment ");
}
