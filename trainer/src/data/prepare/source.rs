//! The images that are made into shards, in the layouts of the old workflow: `train/<class>/<file>` with either
//! `validation/<class>/<file>` or flat `validation/<file>` and `synset_labels.txt`; or `<class>/<file>` alone.

use std::path::{Path, PathBuf};

use tallow_builder::Rng;

use crate::data::folder::{EmptyClasses, ImageFolder, VALIDATION_NAMES, images_in};
use crate::data::split::stratified;
use crate::data::{SplitOptions, stream};
use crate::error::{Error, Result};

/// One line for each image in the flat validation folder, sorted by name: its class.
pub const FLAT_LABELS: &str = "synset_labels.txt";

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
    /// Where there are no images, an empty class folder, or flat validation images without their labels; where a share
    /// is to be held out beside a validation part.
    pub fn open(root: &Path, hold_out: Option<f64>, seed: u64) -> Result<Self> {
        let mut source = Self::search(root, EmptyClasses::Refuse)?;
        if let Some(fraction) = hold_out {
            if !source.validation.is_empty() {
                let remedy =
                    "there is a validation folder already: leave it out, or name the train folder alone";
                return Err(Error::Setting { name: "validation-share", value: fraction.to_string(), remedy });
            }
            let labels: Vec<u32> = source.train.iter().map(|&(_, label)| label).collect();
            let parts = stratified(&labels, SplitOptions { fraction, seed })?;
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
        let mut validation_folders = VALIDATION_NAMES.iter().map(|name| root.join(name));
        let folder = validation_folders.find(|folder| has_parts && folder.is_dir());
        let train =
            ImageFolder::search(&if has_parts { root.join("train") } else { root.to_owned() }, empty)?;
        let validation = match folder {
            None => vec![],
            Some(folder) if root.join(FLAT_LABELS).is_file() => flat(root, &folder)?,
            Some(folder) => {
                let found = ImageFolder::search(&folder, empty)?;
                if found.names().is_empty() && !images_in(&folder)?.is_empty() {
                    return Err(Error::Shards {
                        path: folder,
                        problem: format!(
                            "images without class folders: put them into class folders, or write the class of each, \
                             sorted by name, into {}",
                            root.join(FLAT_LABELS).display()
                        ),
                    });
                }
                named(&found)
            }
        };
        let in_files = validation.iter().map(|(_, class)| class.clone());
        let mut classes: Vec<String> = train.names().iter().cloned().chain(in_files).collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.is_empty() {
            return Err(Error::NoClasses { path: root.into() });
        }
        let labelled = |images: Vec<(PathBuf, String)>| -> Vec<Image> {
            let label = |class: &String| classes.binary_search(class).expect("every class is listed") as u32;
            images.into_iter().map(|(path, class)| (path, label(&class))).collect()
        };
        let (train, validation) = (labelled(named(&train)), labelled(validation));
        Ok(Self { classes, train, validation })
    }
}

/// The images of class folders with their classes' names.
fn named(folder: &ImageFolder) -> Vec<(PathBuf, String)> {
    let name = |label: u32| folder.names()[label as usize].clone();
    folder.files().iter().map(|(path, label)| (path.clone(), name(*label))).collect()
}

/// The images of a flat folder with the classes that [`FLAT_LABELS`] gives them.
fn flat(root: &Path, folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let path = root.join(FLAT_LABELS);
    let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let images = images_in(folder)?;
    let classes: Vec<&str> = text.lines().map(str::trim).collect();
    let unusable = |problem: String| Error::Shards { path: path.clone(), problem };
    if classes.len() != images.len() {
        return Err(unusable(format!(
            "{} lines for {} images in {}: it needs one for each, sorted by name",
            classes.len(),
            images.len(),
            folder.display()
        )));
    }
    if let Some(line) = classes.iter().position(|class| class.is_empty()) {
        return Err(unusable(format!("line {} is empty", line + 1)));
    }
    Ok(images.into_iter().zip(classes.into_iter().map(str::to_owned)).collect())
}
