//! What the numbers in a set of shards mean: which features are read, which label is the first class, and what the
//! classes are called.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tallow_tensorflow::example::Example;

use super::fields::Fields;
use super::index::Index;
use super::options::RecordOptions;
use crate::data::folder::VALIDATION_NAMES;
use crate::data::prepare::Journal;
use crate::error::{Error, Result};

/// Class names beside shards that Tallow wrote.
pub const LABELS_FILE: &str = "labels.txt";
/// What class 0 is called where labels that start at 1 are read from 0.
const BACKGROUND: &str = "background";
/// Enough of a record to hold all but the image, which comes last where keys are sorted.
const PEEK: usize = 4096;
/// Records that are looked at to see where labels start.
const LOOKED_AT: usize = 256;
/// More classes than this are a misunderstanding.
const MOST_CLASSES: i64 = 1 << 20;

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
    /// Where there is no labelled image, the labels start below the offset, or a file of names is damaged.
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
        let label_offset = options.label_offset.or(background).or(told).or(before);
        let label_offset = label_offset.unwrap_or(fields.first_label);
        if let Some(record) = zero.filter(|_| label_offset > 0) {
            return Err(unusable(format!(
                "{} has the label 0, but labels are taken to start at {label_offset}: say --label-offset 0",
                index.origin(record)
            )));
        }
        let relative = |names: Vec<String>| shifted(names, first_label, label_offset);
        let classes = if let Some(path) = &options.labels {
            read_names(path)?
        } else if let Some(path) = existing(&folders, &[&fields.labels_file(), LABELS_FILE]) {
            relative(read_names(&path)?)
        } else if let Some(classes) = tfds_classes {
            relative((0..classes).map(|class| class.to_string()).collect())
        } else if let Some(Known { classes, .. }) = known {
            check_names(index, &fields, label_offset, classes)?;
            classes.to_vec()
        } else {
            names_in_records(index, &fields, label_offset).map_err(|error| match error {
                Error::Unusable { reason } => unusable(reason),
                other => other,
            })?
        };
        Ok(Self { fields, classes, label_offset })
    }

    /// The class of a record's label.
    ///
    /// # Errors
    /// [`Error::Unusable`] where the record has no label or one that is no class.
    pub fn class(&self, example: &Example<'_>) -> Result<u32> {
        let unusable = |reason: String| Error::Unusable { reason };
        let key = &self.fields.label;
        let label = example.int(key).ok_or_else(|| unusable(format!("it has no label `{key}`")))?;
        let class = label.checked_sub(i64::from(self.label_offset));
        let class = class.and_then(|class| u32::try_from(class).ok());
        class.filter(|&class| (class as usize) < self.classes.len()).ok_or_else(|| {
            let first = i64::from(self.label_offset);
            let last = first + self.classes.len() as i64 - 1;
            unusable(format!("its label {label} is out of range: the classes are {first} to {last}"))
        })
    }
}

/// Where files about the shards may lie: beside them, or beside the folder of one split.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let of_a_split = folder
        .file_name()
        .is_some_and(|name| name == "train" || VALIDATION_NAMES.iter().any(|&validation| name == validation));
    let above = folder.parent().filter(|_| of_a_split);
    [Some(folder), above].into_iter().flatten().map(Path::to_owned).collect()
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

/// Some features of a record without reading all of it, if they come first.
fn look<T>(
    index: &Index,
    record: usize,
    buffer: &mut Vec<u8>,
    wanted: impl Fn(&Example<'_>) -> Option<T>,
) -> Result<Option<T>> {
    let (start, whole) = index.peek(record, PEEK, buffer)?;
    let found = wanted(&Example::parse_start(start));
    if found.is_some() || whole {
        return Ok(found);
    }
    Ok(Example::parse(index.read(record, buffer)?).ok().and_then(|example| wanted(&example)))
}

/// Some records from all over the shards.
fn some(index: &Index) -> impl Iterator<Item = usize> + use<> {
    (0..index.len()).step_by(index.len().div_ceil(LOOKED_AT).max(1))
}

/// Compares names that records give their classes with the names that are known.
fn check_names(index: &Index, fields: &Fields, label_offset: u32, known: &[String]) -> Result<()> {
    let mut buffer = vec![];
    let wanted = |example: &Example<'_>| {
        let class = usize::try_from(example.int(&fields.label)? - i64::from(label_offset)).ok()?;
        let names: Vec<String> =
            fields.names.iter().filter_map(|key| example.text(key)).map(str::to_owned).collect();
        (!names.is_empty()).then_some((class, names))
    };
    for record in some(index) {
        if let Some((class, names)) = look(index, record, &mut buffer, wanted)?
            && let Some(expected) = known.get(class)
            && !names.contains(expected)
        {
            let reason = format!("its class is called {}, not {expected}", names.join(", "));
            return Err(Error::Image { origin: index.origin(record), reason });
        }
    }
    Ok(())
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

type Named = BTreeMap<i64, Option<String>>;

/// The classes that the records themselves name.
fn names_in_records(index: &Index, fields: &Fields, label_offset: u32) -> Result<Vec<String>> {
    let wanted = |example: &Example<'_>| {
        let label = example.int(&fields.label)?;
        let name = fields.names.iter().find_map(|key| example.text(key)).filter(|name| !name.is_empty());
        Some((label, name.map(str::to_owned)))
    };
    let found = (0..index.len())
        .into_par_iter()
        .try_fold(
            || (Named::new(), vec![]),
            |(mut named, mut buffer), record| {
                if let Some((label, name)) = look(index, record, &mut buffer, wanted)? {
                    note(&mut named, label, name)?;
                }
                Ok((named, buffer))
            },
        )
        .map(|part: Result<(Named, Vec<u8>)>| part.map(|(named, _)| named))
        .try_reduce(Named::new, |mut one, other| {
            other.into_iter().try_for_each(|(label, name)| note(&mut one, label, name))?;
            Ok(one)
        })?;
    let first = i64::from(label_offset);
    let last = found.keys().next_back().copied().unwrap_or(first);
    if last - first >= MOST_CLASSES {
        return Err(Error::Unusable {
            reason: format!("a record has the label {last}: name the classes by --labels"),
        });
    }
    let name = |label: i64| match found.get(&label) {
        Some(Some(name)) => name.clone(),
        None if label == 0 => BACKGROUND.to_owned(),
        _ => format!("class {label}"),
    };
    Ok((first..=last).map(name).collect())
}

fn note(named: &mut Named, label: i64, name: Option<String>) -> Result<()> {
    let known = named.entry(label).or_default();
    match (&known, name) {
        (Some(one), Some(other)) if *one != other => {
            let reason = format!("label {label} is named {one} and {other}: name the classes by --labels");
            return Err(Error::Unusable { reason });
        }
        (None, Some(name)) => *known = Some(name),
        _ => {}
    }
    Ok(())
}
