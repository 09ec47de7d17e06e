//! Finding the shards that a data source names: a folder, a file, or a pattern such as `dir/train-*`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tallow_tensorflow::shards::{self, ShardName, ShardSet};

use super::info::INFO_FILE;
use crate::data::folder::VALIDATION_NAMES;
use crate::error::{Error, Result};
use crate::pattern::{is_pattern, matches};

/// The sets of shards that a data source names.
#[derive(Clone, Debug)]
pub struct Located {
    /// The folder whose files tell about the shards: names of classes, features.
    pub folder: PathBuf,
    /// The sets, by name.
    pub sets: Vec<ShardSet>,
    /// Sets in the same folder that a pattern did not name.
    beside: Vec<ShardSet>,
    /// What was asked for.
    source: String,
    /// Whether that was a folder.
    is_folder: bool,
}

/// Training shards, and validation shards if there are any.
pub struct Parts {
    /// To train on.
    pub train: ShardSet,
    /// To measure on.
    pub validation: Option<ShardSet>,
}

/// Finds the shards that `source` names; `None` if it is something else, such as a folder of images.
///
/// A folder is searched itself, then its `train/` and `validation/`, then, for tensorflow_datasets, its only folder.
///
/// # Errors
/// Where a pattern fits no shard, or a folder cannot be read.
pub fn locate(source: &str) -> Result<Option<Located>> {
    let path = Path::new(source);
    let located = |folder: &Path, sets, beside| {
        let (folder, source) = (folder.to_owned(), source.to_owned());
        Ok(Some(Located { folder, sets, beside, source, is_folder: path.is_dir() }))
    };
    if path.is_dir() {
        let mut sets = find(path)?;
        if sets.is_empty() {
            for name in ["train"].into_iter().chain(VALIDATION_NAMES) {
                let folder = path.join(name);
                if folder.is_dir() {
                    sets.extend(find(&folder)?);
                }
            }
        }
        if !sets.is_empty() {
            return located(path, sets, vec![]);
        }
        return match only_version(path) {
            Some(folder) => located(&folder, find(&folder)?, vec![]),
            None => Ok(None),
        };
    }
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let is_file = path.is_file();
    if !folder.is_dir() || (is_file && ShardName::parse(name).is_none()) || !(is_file || is_pattern(name)) {
        return Ok(None);
    }
    // One file is what was asked for; the others of its set are not missing.
    let fits_name = |other: &str| if is_file { other == name } else { matches(name, other) };
    let all = find(folder)?;
    let fits = |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(fits_name);
    let (mut sets, mut beside) = (vec![], vec![]);
    for set in all {
        let (named, others): (Vec<_>, Vec<_>) = set.files.iter().cloned().partition(|path| fits(path));
        if named.is_empty() {
            beside.push(ShardSet { files: others, ..set });
        } else {
            // A pattern may choose some shards of a set; one that should fit and is not there is missing.
            let missing = set.missing.into_iter().filter(|file| fits_name(file)).collect();
            sets.push(ShardSet { files: named, missing, ..set });
        }
    }
    if sets.is_empty() {
        let problem = "no shards fit: they are called train-00000-of-00004, name-train.tfrecord-00000-of-00004 or \
                       name.tfrecord";
        return Err(Error::Shards { path: path.into(), problem: problem.into() });
    }
    located(folder, sets, beside)
}

/// The version's folder in a folder of tensorflow_datasets: `imagenet2012/5.1.0`.
fn only_version(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let mut versions = folders.into_iter().filter(|path| path.join(INFO_FILE).is_file());
    versions.next().filter(|_| versions.next().is_none())
}

/// Where files about the shards in `folder` may lie: beside them, or beside the folder of one split.
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let of_a_split = folder
        .file_name()
        .is_some_and(|name| name == "train" || VALIDATION_NAMES.iter().any(|&validation| name == validation));
    let above = folder.parent().filter(|_| of_a_split);
    [Some(folder), above].into_iter().flatten().map(Path::to_owned).collect()
}

impl Located {
    /// The sets, with those beside them.
    pub fn known_sets(&self) -> impl Iterator<Item = &ShardSet> {
        self.sets.iter().chain(&self.beside)
    }

    /// Whether a folder was asked for, and so all that is in it.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// The shards to train and to measure on. Where a pattern names training shards alone, validation shards beside
    /// them are taken.
    ///
    /// # Errors
    /// Where there are no training shards, more than one set of them, or some are missing.
    pub fn parts(&self) -> Result<Parts> {
        let train = match self.only(&self.sets, "train")? {
            Some(set) => set,
            None => match self.sets.as_slice() {
                [set] if !VALIDATION_NAMES.contains(&set.name.split()) => set,
                _ => {
                    let found = list(self.sets.iter().map(|set| set.name.split()));
                    return Err(self.unusable(format!(
                        "no training shards, only {found}: they are called train-00000-of-00004, or name-train.tfrecord-…"
                    )));
                }
            },
        };
        let validation = match self.validation(&self.sets)? {
            Some(set) => Some(set),
            None => self.validation(&self.beside)?,
        };
        let validation = validation.filter(|set| set.name != train.name);
        self.complete(train)?;
        validation.map_or(Ok(()), |set| self.complete(set))?;
        Ok(Parts { train: train.clone(), validation: validation.cloned() })
    }

    /// The shards to measure on: the validation set, or the only one.
    ///
    /// # Errors
    /// Where there are several sets of which none is for validation, or some shards are missing.
    pub fn to_measure(&self) -> Result<ShardSet> {
        let set = match (self.validation(&self.sets)?, self.sets.as_slice()) {
            (Some(set), _) => set,
            (None, [set]) => set,
            (None, sets) => {
                let found = list(sets.iter().map(|set| set.name.split()));
                return Err(
                    self.unusable(format!("no validation shards, only {found}: name some by a pattern"))
                );
            }
        };
        self.complete(set)?;
        Ok(set.clone())
    }

    /// Whether this is a folder with training shards and no others, so that validation images come out of these.
    pub fn holds_out(&self) -> bool {
        let is_validation = |set: &ShardSet| VALIDATION_NAMES.contains(&set.name.split());
        self.is_folder && !self.sets.iter().any(is_validation)
    }

    /// An error for each split of which there are two sets.
    pub fn doubled(&self) -> impl Iterator<Item = Error> {
        let splits: BTreeSet<&str> = self.sets.iter().map(|set| set.name.split()).collect();
        splits.into_iter().filter_map(|split| self.only(&self.sets, split).err())
    }

    /// All sets, of which no shard may be missing.
    ///
    /// # Errors
    /// Where a shard is missing.
    pub fn all(&self) -> Result<Vec<ShardSet>> {
        self.sets.iter().try_for_each(|set| self.complete(set))?;
        Ok(self.sets.clone())
    }

    fn validation<'a>(&self, sets: &'a [ShardSet]) -> Result<Option<&'a ShardSet>> {
        for name in VALIDATION_NAMES {
            if let Some(set) = self.only(sets, name)? {
                return Ok(Some(set));
            }
        }
        Ok(None)
    }

    /// The set of a split, of which there must not be two.
    fn only<'a>(&self, sets: &'a [ShardSet], split: &str) -> Result<Option<&'a ShardSet>> {
        let mut found = sets.iter().filter(|set| set.name.split() == split);
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(self.unusable(format!(
                "two sets of {split} shards, {} and {}: remove one, or name the other by a pattern",
                first.name, second.name
            ))),
            (first, _) => Ok(first),
        }
    }

    fn complete(&self, set: &ShardSet) -> Result<()> {
        if set.missing.is_empty() {
            return Ok(());
        }
        let (missing, total) = (set.missing.len(), set.name.total);
        let names = list(set.missing.iter().map(String::as_str));
        Err(self.unusable(format!(
            "{missing} of the {total} {} shards are missing: {names}: restore them, or name those to use by a pattern",
            set.name.split()
        )))
    }

    fn unusable(&self, problem: String) -> Error {
        Error::Shards { path: self.source.clone().into(), problem }
    }
}

/// `a, b, c and 7 more`.
fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(5);
    let shown: Vec<&str> = names.take(5).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

/// The sets of shards in a folder.
fn find(folder: &Path) -> Result<Vec<ShardSet>> {
    shards::find(folder).map_err(Error::Records)
}
