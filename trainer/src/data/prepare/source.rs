//! The images that are made into shards, in the layouts of the old workflow: `train/<class>/<file>` with either
//! `validation/<class>/<file>` or flat `validation/<file>` and `synset_labels.txt`; or `<class>/<file>` alone.

use std::path::{Path, PathBuf};

use tallow_builder::Rng;

use crate::data::folder::{self, EmptyClasses, ImageFolder};
use crate::data::split::stratified;
use crate::data::{SplitOptions, stream};
use crate::error::{Error, Result};

/// An image's file and its class.
pub type Image = (PathBuf, u32);

/// The images of a folder.
pub(crate) struct Source {
    /// Class folders, sorted.
    pub classes: Vec<String>,
    /// Images to train on, in random order.
    pub train: Vec<Image>,
    /// Images to measure on, sorted.
    pub validation: Vec<Image>,
}

impl Source {
    /// Finds the images below `root`. `hold_out` is the share of each class that is held out where there is no
    /// validation part; `seed` decides which, and the order of the training images.
    ///
    /// # Errors
    /// Where there are no images, an empty class folder, flat validation images without their labels, a class without
    /// training images, or nothing to hold out because there are validation images.
    pub fn open(root: &Path, hold_out: Option<f64>, seed: u64) -> Result<Self> {
        let mut source = Self::search(root, EmptyClasses::Refuse)?;
        if let Some(fraction) = hold_out {
            if !source.validation.is_empty() {
                let remedy = "has no effect, there are validation images already: leave it out";
                return Err(Error::Setting { name: "validation-share", value: fraction.to_string(), remedy });
            }
            let labels: Vec<u32> = source.train.iter().map(|&(_, label)| label).collect();
            let parts = stratified(&labels, SplitOptions { fraction, seed, fold: None })?;
            [source.train, source.validation] =
                parts.map(|part| part.into_iter().map(|i| source.train[i].clone()).collect());
        }
        Rng::stream(seed, &[stream::PREPARE]).shuffle(&mut source.train);
        Ok(source)
    }

    /// Finds the images below `root`, all of them sorted.
    ///
    /// # Errors
    /// As [`Self::open`], but that empty class folders may be kept.
    pub fn search(root: &Path, empty: EmptyClasses) -> Result<Self> {
        if !root.is_dir() {
            return Err(Error::NoSuchFolder { path: root.into() });
        }
        let has_parts = root.join("train").is_dir();
        let train = if has_parts { root.join("train") } else { root.to_owned() };
        let train = ImageFolder::search(&train, empty)?;
        let classes = train.names().to_vec();
        if classes.is_empty() {
            return Err(Error::NoClasses { path: root.into() });
        }
        // Without train/ a folder called test is a class.
        let validation = if has_parts { folder::validation(root, &classes, empty)? } else { None };
        let validation = validation.map_or(Ok(vec![]), |found| found.labelled(&classes))?;
        Ok(Self { train: train.labelled(&classes)?, validation, classes })
    }
}
