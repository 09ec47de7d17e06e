//! Image folders: `train/<class>/<image>` with `validation/<class>/<image>` or with a flat `validation/<image>`;
//! or `<class>/<image>` alone, in which case a validation set is held out. Classes are sorted by name; class folders are
//! searched to any depth; hidden files are ignored.

mod flat;
mod nearest;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tallow_input::InputError;

use super::{Dataset, Labelled, Sample, SplitOptions, Splits, stratified_split};
use crate::error::{Error, Result};

pub use flat::FLAT_LABELS;

/// File name endings that count as images, in any case.
pub const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];

/// The names that a folder of validation images may have; the first that exists is taken.
pub const VALIDATION_NAMES: [&str; 4] = ["validation", "val", "valid", "test"];

/// What to do about class folders without images.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmptyClasses {
    Refuse,
    Keep,
}

/// Images in class folders.
pub struct ImageFolder {
    root: PathBuf,
    classes: Vec<String>,
    samples: Vec<(PathBuf, u32)>,
}

/// Opens `root`, laid out as `train/<class>/<image>` or as `<class>/<image>`.
///
/// Beside `train`, a folder named as in [`VALIDATION_NAMES`] holds the validation images; without one, and without
/// `train`, `split` says what is held out.
///
/// # Errors
/// One message that names the folder and the remedy: no such folder, no class folders, one class only, a class
/// folder without images, classes that differ between training and validation, nothing to hold out.
pub fn open(root: impl AsRef<Path>, split: SplitOptions) -> Result<Splits> {
    let root = root.as_ref();
    if !root.is_dir() {
        return Err(Error::NoSuchFolder { path: root.into() });
    }
    let train = root.join("train");
    if !train.is_dir() {
        return match validation_folder(root) {
            // A class may well be called `test`; a data set of nothing but such folders is missing its train/.
            Some((name, _)) if class_folders(root)?.iter().all(|(class, _)| is_validation_name(class)) => {
                Err(Error::NoTrainFolder { path: root.into(), found: name.into() })
            }
            _ => stratified_split(Arc::new(ImageFolder::open(root)?), split),
        };
    }
    let train_set = ImageFolder::open(&train)?;
    let Some(validation_set) = validation(root, &train_set.classes, EmptyClasses::Refuse)? else {
        return stratified_split(Arc::new(train_set), split);
    };
    if let Some(differences) = class_differences(&train_set.classes, &validation_set.classes) {
        return Err(Error::ClassesDiffer { train, validation: validation_set.root, differences });
    }
    Ok(Splits { train: Arc::new(train_set), validation: Arc::new(validation_set), label_offset: None })
}

/// Opens the images to measure a network on: those in `root`'s validation folder, those that training with `split`
/// holds out where there is only `train`, or those in its class folders.
///
/// # Errors
/// As [`open`].
pub fn open_validation(root: impl AsRef<Path>, split: SplitOptions) -> Result<Arc<dyn Dataset>> {
    let root = root.as_ref();
    if holds_out(root) {
        return Ok(open(root, split)?.validation);
    }
    let Some((_, folder)) = validation_folder(root) else {
        return Ok(Arc::new(ImageFolder::open(root)?));
    };
    if root.join(FLAT_LABELS).is_file() {
        let train = ImageFolder::open(&root.join("train"))?;
        return Ok(Arc::new(flat::open(root, &folder, &train.classes)?));
    }
    Ok(Arc::new(ImageFolder::open(&folder)?))
}

/// The images in `root`'s validation folder, if it has one. They have classes of their own, or, side by side, those of
/// `train`.
///
/// # Errors
/// As [`open`].
pub(crate) fn validation(root: &Path, train: &[String], empty: EmptyClasses) -> Result<Option<ImageFolder>> {
    let Some((_, folder)) = validation_folder(root) else { return Ok(None) };
    if root.join(FLAT_LABELS).is_file() {
        return flat::open(root, &folder, train).map(Some);
    }
    let found = ImageFolder::search(&folder, empty)?;
    if found.classes.is_empty() {
        flat::refuse_unlabelled(root, &folder)?;
    }
    Ok(Some(found))
}

/// The first of [`VALIDATION_NAMES`] that is a folder in `root`, and that folder.
fn validation_folder(root: &Path) -> Option<(&'static str, PathBuf)> {
    VALIDATION_NAMES.into_iter().map(|name| (name, root.join(name))).find(|(_, folder)| folder.is_dir())
}

/// Whether `root` has a `train` folder and validation images beside it.
pub fn has_validation(root: impl AsRef<Path>) -> bool {
    let root = root.as_ref();
    root.join("train").is_dir() && validation_folder(root).is_some()
}

/// Whether `root` has a `train` folder and no other, so that validation images come out of it.
pub fn holds_out(root: impl AsRef<Path>) -> bool {
    let root = root.as_ref();
    root.join("train").is_dir() && validation_folder(root).is_none()
}

fn is_validation_name(name: &str) -> bool {
    VALIDATION_NAMES.contains(&name)
}

/// What is wrong with a class that training images do not have, and what to do about it.
fn unknown_class(class: &str, train: &[String]) -> String {
    let meant = nearest::nearest(class, train).map(|near| format!(" (did you mean {near}?)"));
    let meant = meant.unwrap_or_default();
    format!("the class {class} has no training images{meant}: correct its name, or add them in train/{class}")
}

/// ` only in training: a, b; only in validation: c`, or `None` if the classes are the same.
fn class_differences(train: &[String], validation: &[String]) -> Option<String> {
    let (train, validation): (BTreeSet<_>, BTreeSet<_>) =
        (train.iter().collect(), validation.iter().collect());
    let parts = [("training", &train - &validation), ("validation", &validation - &train)];
    let texts = parts.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| {
        let shown: Vec<&str> = names.iter().take(10).map(|name| name.as_str()).collect();
        let more = if names.len() > 10 { format!(" and {} more", names.len() - 10) } else { String::new() };
        format!(" only in {what}: {}{more}", shown.join(", "))
    });
    let texts: Vec<String> = texts.collect();
    (!texts.is_empty()).then(|| texts.join(";"))
}

impl ImageFolder {
    /// Opens `root/<class>/…/<image>`, with at least two classes.
    ///
    /// # Errors
    /// See [`open`].
    pub fn open(root: &Path) -> Result<Self> {
        let mut folder = Self::search(root, EmptyClasses::Refuse)?;
        match folder.classes.len() {
            0 => Err(Error::NoClasses { path: root.into() }),
            1 => Err(Error::OneClass { path: root.into(), class: folder.classes.remove(0) }),
            _ => Ok(folder),
        }
    }

    /// Opens `root/<class>/…/<image>`, with any number of classes.
    ///
    /// # Errors
    /// Where there is no such folder, or a class folder has no images and that is refused.
    pub(crate) fn search(root: &Path, empty: EmptyClasses) -> Result<Self> {
        if !root.is_dir() {
            return Err(Error::NoSuchFolder { path: root.into() });
        }
        let folders = class_folders(root)?;
        let (mut classes, mut samples) = (Vec::new(), Vec::new());
        for (class, folder) in folders {
            let found = ImageSearch::in_folder(&folder)?;
            if found.images.is_empty() && empty == EmptyClasses::Refuse {
                return Err(Error::EmptyClass { others: found.describe_others(), path: folder });
            }
            let label = classes.len() as u32;
            samples.extend(found.images.into_iter().map(|path| (path, label)));
            classes.push(class);
        }
        Ok(Self { root: root.to_owned(), classes, samples })
    }

    /// The images `samples` of `classes`, below `root`.
    pub(crate) fn of(root: &Path, classes: Vec<String>, samples: Vec<(PathBuf, u32)>) -> Self {
        Self { root: root.to_owned(), classes, samples }
    }

    /// The images' files with their labels among `classes`.
    ///
    /// # Errors
    /// Where there is another class.
    pub(crate) fn labelled(self, classes: &[String]) -> Result<Vec<(PathBuf, u32)>> {
        let label = |class: &String| match classes.iter().position(|known| known == class) {
            Some(label) => Ok(label as u32),
            None => {
                Err(Error::Layout { path: self.root.join(class), problem: unknown_class(class, classes) })
            }
        };
        let labels: Vec<u32> = self.classes.iter().map(label).collect::<Result<_>>()?;
        Ok(self.samples.into_iter().map(|(path, own)| (path, labels[own as usize])).collect())
    }

    /// The classes' names, sorted.
    pub(crate) fn names(&self) -> &[String] {
        &self.classes
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn load(&self, index: usize) -> Result<Sample> {
        let (path, label) = &self.samples[index];
        let image = tallow_input::decode_file(path).map_err(|error| Error::Image {
            origin: self.origin(index),
            reason: match error {
                InputError::Image { fault, .. } => fault.to_string(),
                InputError::Read { source, .. } => format!("cannot read the file: {source}"),
                other => other.to_string(),
            },
        })?;
        Ok(Sample { image, label: *label })
    }

    fn origin(&self, index: usize) -> String {
        self.samples[index].0.display().to_string()
    }

    fn known_label(&self, index: usize) -> Option<u32> {
        Some(self.label(index))
    }

    fn name(&self, index: usize) -> String {
        let path = &self.samples[index].0;
        let parts = path.strip_prefix(&self.root).unwrap_or(path).components();
        let parts: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        parts.join("/")
    }
}

impl Labelled for ImageFolder {
    fn label(&self, index: usize) -> u32 {
        self.samples[index].1
    }
}

/// The images that lie directly in a folder, sorted by name.
pub(crate) fn images_in(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(visible_entries(folder)?.into_iter().filter(|path| is_image(path) && path.is_file()).collect())
}

/// The ending of a file's name, in small letters.
fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Whether a file's name has the ending of an image.
pub(crate) fn is_image(path: &Path) -> bool {
    EXTENSIONS.contains(&ending(path).as_str())
}

/// A path on one line, whatever its name has in it.
pub(crate) fn shown(path: &Path) -> String {
    let one = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.into() };
    path.display().to_string().chars().map(one).collect()
}

/// The folders in `root` that are not hidden, sorted by name.
fn class_folders(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut folders = BTreeMap::new();
    for path in visible_entries(root)? {
        if path.is_dir() {
            let unusable = |problem| Error::ClassName { path: path.clone(), problem };
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| unusable("is not valid UTF-8"))?.to_owned();
            if name.contains(char::is_control) {
                return Err(unusable("has a line break or another control character"));
            }
            folders.insert(name, path);
        }
    }
    Ok(folders)
}

/// What a folder holds except hidden entries, sorted.
fn visible_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let paths =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        let hidden =
            |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        Ok(paths.into_iter().filter(|path| !hidden(path)).collect())
    };
    let mut paths = read().map_err(Error::io("read", folder))?;
    paths.sort_unstable();
    Ok(paths)
}

/// What is found below one class folder.
#[derive(Default)]
struct ImageSearch {
    images: Vec<PathBuf>,
    /// Endings of the files that are no images.
    others: BTreeSet<String>,
    other_files: usize,
    /// Folders already searched, resolved, so that a symbolic link to a parent does not loop.
    searched: HashSet<PathBuf>,
}

impl ImageSearch {
    fn in_folder(folder: &Path) -> Result<Self> {
        let mut search = Self::default();
        search.descend(folder)?;
        Ok(search)
    }

    fn descend(&mut self, folder: &Path) -> Result<()> {
        let resolved = fs::canonicalize(folder).map_err(Error::io("read", folder))?;
        if !self.searched.insert(resolved) {
            return Ok(());
        }
        for path in visible_entries(folder)? {
            if path.is_dir() {
                self.descend(&path)?;
                continue;
            }
            let extension = ending(&path);
            if is_image(&path) {
                self.images.push(path);
            } else {
                self.other_files += 1;
                self.others.insert(if extension.is_empty() {
                    "none".into()
                } else {
                    format!(".{extension}")
                });
            }
        }
        Ok(())
    }

    fn describe_others(&self) -> String {
        if self.other_files == 0 {
            return String::new();
        }
        let endings: Vec<&str> = self.others.iter().take(5).map(String::as_str).collect();
        format!(" ({} files of other types: {})", self.other_files, endings.join(", "))
    }
}

#[cfg(test)]
mod tests;
