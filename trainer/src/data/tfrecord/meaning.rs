//! What the numbers in a set of shards mean: which features are read, which label is the first class, and what the
//! classes are called.

use std::path::{Path, PathBuf};

use tallow_tensorflow::example::Example;

use super::fields::Fields;
use super::index::Index;
use super::locate::folders;
use super::look::{LOOKED_AT, look, some};
use super::names;
use super::options::RecordOptions;
use crate::data::prepare::Journal;
use crate::error::{Error, Result};

/// Class names beside shards that Tallow wrote.
pub const LABELS_FILE: &str = "labels.txt";
/// What class 0 is called where labels that start at 1 are read from 0.
pub const BACKGROUND: &str = "background";

/// How records are understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The features that are read.
    pub fields: Fields,
    /// Class names.
    pub classes: Vec<String>,
    /// The label of the first class.
    pub label_offset: u32,
}

/// What is known from training on records that mean the same.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Class names.
    pub classes: &'a [String],
    /// The label of the first class, for shards that do not tell their own.
    pub label_offset: Option<u32>,
}

impl Known<'_> {
    /// Whether labels that start at 1 were read from 0: other shards are then read that way, too.
    fn has_background(&self) -> bool {
        self.label_offset == Some(0) && self.classes.first().is_some_and(|class| class == BACKGROUND)
    }
}

impl Meaning {
    /// Finds out, from the files beside the shards where they tell it, else from `known`, else from the records.
    ///
    /// # Errors
    /// Where there is no labelled image, the labels start below the offset, or a file of names is damaged or contradicts
    /// the records.
    pub fn find(
        folder: &Path,
        index: &Index,
        options: &RecordOptions,
        known: Option<Known<'_>>,
    ) -> Result<Self> {
        let folders = folders(folder);
        let unusable = |problem: String| Error::Shards { path: folder.to_owned(), problem };
        let (fields, tfds_classes) = match first_of(&folders, Fields::from_tfds)? {
            Some((fields, classes)) => (fields, Some(classes)),
            None => (look_for_fields(index, folder)?, None),
        };
        let zero = label_zero(index, &fields)?;
        let prepared = first_of(&folders, Journal::label_offset)?;
        // Labels of these features start at 1 by custom; some writers start at 0 nevertheless.
        let first_label = prepared.unwrap_or(if zero.is_some() { 0 } else { fields.first_label });
        let told = prepared.or(tfds_classes.map(|_| fields.first_label));
        let before = known.and_then(|known| known.label_offset);
        let background = known.filter(|known| known.has_background()).and(before);
        // Where it is said where labels start, a label 0 is a stray one, to be left out as any that is no class.
        let said = options.label_offset.or(background).or(told);
        let label_offset = said.or(before).unwrap_or(fields.first_label);
        if let Some(record) = zero.filter(|_| label_offset > 0 && said.is_none()) {
            let reason = format!(
                "it has the label 0, but labels are taken to start at {label_offset}: say --label-offset 0"
            );
            return Err(Error::Image { origin: index.origin(record), reason });
        }
        let relative = |names: Vec<String>| shifted(names, first_label, label_offset);
        let beside = || existing(&folders, &[&fields.labels_file(), LABELS_FILE]);
        let named = match &options.labels {
            Some(path) => Some((read_names(path)?, path.clone())),
            None => match beside() {
                Some(path) => Some((relative(read_names(&path)?), path)),
                None => None,
            },
        };
        let classes = if let Some((classes, path)) = named {
            names::refuse_exchanged(index, &fields, label_offset, &classes, &path)?;
            classes
        } else if let Some(classes) = tfds_classes {
            relative((0..classes).map(|class| class.to_string()).collect())
        } else if let Some(Known { classes, .. }) = known {
            names::refuse_others(index, &fields, label_offset, classes)?;
            classes.to_vec()
        } else {
            names::in_records(index, &fields, label_offset).map_err(|error| match error {
                Error::Unusable { reason } => unusable(reason),
                other => other,
            })?
        };
        Ok(Self { fields, classes, label_offset })
    }

    /// The class of a record's label.
    ///
    /// # Errors
    /// [`Error::Unusable`] where the record has no label or one that is no class, or calls its class as another is called.
    pub fn class(&self, example: &Example<'_>) -> Result<u32> {
        let unusable = |reason: String| Error::Unusable { reason };
        let key = &self.fields.label;
        let label = example.int(key).ok_or_else(|| unusable(format!("it has no label `{key}`")))?;
        let class = label.checked_sub(i64::from(self.label_offset));
        let class = class.and_then(|class| u32::try_from(class).ok());
        let class = class.filter(|&class| (class as usize) < self.classes.len()).ok_or_else(|| {
            let first = i64::from(self.label_offset);
            let last = first + self.classes.len() as i64 - 1;
            unusable(format!("its label {label} is out of range: the classes are {first} to {last}"))
        })?;
        match names::exchanged(&names::of(example, &self.fields), class as usize, &self.classes) {
            None => Ok(class),
            Some(wrong) => Err(unusable(wrong)),
        }
    }
}

fn first_of<T>(folders: &[PathBuf], find: impl Fn(&Path) -> Result<Option<T>>) -> Result<Option<T>> {
    folders.iter().find_map(|folder| find(folder).transpose()).transpose()
}

fn existing(folders: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let paths = folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
    paths.into_iter().find(|path| path.is_file())
}

/// Class names from a file, one a line, as Tallow and tensorflow_datasets write them, or numbered as `0:daisy`.
fn read_names(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let numbered = |(number, line): (usize, &&str)| {
        let (front, name) = line.split_once(':')?;
        (front.parse() == Ok(number)).then(|| name.to_owned())
    };
    let names: Option<Vec<String>> = lines.iter().enumerate().map(numbered).collect();
    Ok(names.unwrap_or_else(|| lines.into_iter().map(str::to_owned).collect()))
}

/// Names of the classes from `first_label` on as names from `label_offset` on.
fn shifted(names: Vec<String>, first_label: u32, label_offset: u32) -> Vec<String> {
    let background = (label_offset..first_label).map(|_| BACKGROUND.to_owned());
    let left_out = label_offset.saturating_sub(first_label) as usize;
    background.chain(names.into_iter().skip(left_out)).collect()
}

/// The features of the first record that is a labelled image.
fn look_for_fields(index: &Index, folder: &Path) -> Result<Fields> {
    let (mut buffer, mut damage) = (vec![], None);
    for record in 0..index.len().min(LOOKED_AT) {
        let fields = |bytes| Example::parse(bytes).ok().and_then(|example| Fields::of(&example));
        match index.read(record, &mut buffer).map(fields) {
            Ok(Some(fields)) => return Ok(fields),
            Ok(None) => {}
            // Whoever needs this record finds its damage; the next one may tell as well.
            Err(error) => damage = damage.or(Some(error)),
        }
    }
    if let Some(damage) = damage {
        return Err(damage);
    }
    let problem = if index.is_empty() {
        "the shards hold no records"
    } else {
        "the records are no labelled images: they need image/encoded and image/class/label, or image and label"
    };
    Err(Error::Shards { path: folder.to_owned(), problem: problem.into() })
}

/// A record with the label 0 among some that are looked at.
fn label_zero(index: &Index, fields: &Fields) -> Result<Option<usize>> {
    let mut buffer = vec![];
    for record in some(index) {
        if look(index, record, &mut buffer, |example| example.int(&fields.label))? == Some(0) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}
