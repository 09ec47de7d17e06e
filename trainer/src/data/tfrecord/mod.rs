//! TFRecord shards as a data set. `locate` finds the files that a source names, `index` the records in them, `meaning`
//! what their labels are, `names` what they call their classes, `written` what the files beside them say that there is,
//! `order` the order of an epoch. Records are read where they lie, by any thread, when they are needed: nothing but their
//! places is kept in memory.

mod fields;
mod index;
mod info;
mod locate;
mod look;
mod meaning;
mod names;
mod options;
mod order;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_contradictions;
pub mod verify;
mod written;

use std::cell::RefCell;
use std::sync::Arc;

use tallow_builder::Rng;
use tallow_input::InputError;
use tallow_tensorflow::example::Example;

use super::{Dataset, Fold, Sample, SplitOptions, Splits, stream};
use crate::error::{Error, Result};

pub use fields::Fields;
pub use index::Index;
pub(crate) use info::{DatasetInfo, INFO_FILE};
pub use locate::{Located, Parts, locate};
pub use meaning::{Known, LABELS_FILE, Meaning};
pub use options::RecordOptions;
pub use order::{Mixing, mixed};
pub(crate) use written::Written;

/// What is wrong with a TFRecord file, with the remedy that this crate knows for what the system says.
pub(crate) fn explained(error: &tallow_tensorflow::Error) -> String {
    match error {
        tallow_tensorflow::Error::Io { path, source } => {
            format!("cannot read {}: {}", path.display(), tallow_builder::files::explained(source))
        }
        other => other.to_string(),
    }
}

thread_local! {
    /// A record's bytes; large buffers are costly to get from the system anew for each record.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(vec![]) };
}

/// Labelled images in TFRecord shards.
pub struct Records {
    index: Index,
    meaning: Meaning,
    mixing: Mixing,
}

impl Records {
    /// The records of `index`, understood as `meaning` says.
    pub fn new(index: Index, meaning: Meaning, mixing: Mixing) -> Self {
        Self { index, meaning, mixing }
    }

    /// Opens a folder's validation shards, or all that `located` names.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(located: &Located, options: &RecordOptions, known: Option<Known<'_>>) -> Result<Self> {
        let index = Written::find(located)?.scan(located.to_measure()?.files)?;
        let meaning = Meaning::find(&located.folder, &index, options, known)?;
        Ok(Self::new(index, meaning, options.mixing()))
    }

    /// What the labels mean.
    pub fn meaning(&self) -> &Meaning {
        &self.meaning
    }

    /// Where the records are.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Reads a record's encoded image and its class, and hands them to `take`.
    ///
    /// # Errors
    /// Where the record's framing is broken ([`Error::Records`]) or it holds no labelled image ([`Error::Image`]), and
    /// those of `take`.
    pub fn with<T>(&self, index: usize, take: impl FnOnce(&[u8], u32) -> Result<T>) -> Result<T> {
        BUFFER.with_borrow_mut(|buffer| {
            let bytes = self.index.read(index, buffer)?;
            let unusable = |reason: String| Error::Image { origin: self.index.origin(index), reason };
            let example = Example::parse(bytes).map_err(|error| unusable(format!("no example: {error}")))?;
            let class = self.meaning.class(&example).map_err(|error| unusable(error.to_string()))?;
            let key = &self.meaning.fields.image;
            match example.bytes(key) {
                Some(image) => take(image, class),
                None => Err(unusable(format!("it has no image `{key}`"))),
            }
        })
    }
}

impl Dataset for Records {
    fn len(&self) -> usize {
        self.index.len()
    }

    fn classes(&self) -> &[String] {
        &self.meaning.classes
    }

    fn load(&self, index: usize) -> Result<Sample> {
        self.with(index, |bytes, label| match tallow_input::decode(bytes) {
            Ok(image) => Ok(Sample { image, label }),
            Err(InputError::Image { fault, .. }) => {
                Err(Error::Image { origin: self.origin(index), reason: fault.to_string() })
            }
            Err(other) => Err(other.into()),
        })
    }

    fn origin(&self, index: usize) -> String {
        self.index.origin(index)
    }

    fn name(&self, index: usize) -> String {
        self.index.name(index)
    }

    fn shuffled(&self, rng: &mut Rng) -> Vec<usize> {
        mixed(self.index.shards(), self.mixing, rng)
    }
}

/// Opens shards to train on. Where there are no validation shards, `split` says what share of the records is held out;
/// which ones, its seed decides.
///
/// # Errors
/// Where shards are missing, damaged or not what was written, or their records are no labelled images.
pub fn open(
    located: &Located,
    options: &RecordOptions,
    split: SplitOptions,
    known: Option<Known<'_>>,
) -> Result<Splits> {
    let parts = located.parts()?;
    let written = Written::find(located)?;
    let index = written.scan(parts.train.files)?;
    let meaning = Meaning::find(&located.folder, &index, options, known)?;
    if let [class] = meaning.classes.as_slice() {
        return Err(Error::OneClass { path: located.folder.clone(), class: class.clone() });
    }
    let [train, validation] = match parts.validation {
        Some(set) => [index, written.scan(set.files)?],
        None => {
            written.refuse_lost_validation(located)?;
            hold_out(index, split)?
        }
    };
    let label_offset = Some(meaning.label_offset);
    let set = |index| Arc::new(Records::new(index, meaning.clone(), options.mixing()));
    Ok(Splits { train: set(train), validation: set(validation), label_offset })
}

/// Opens the shards to measure a network on: a folder's validation shards, the part of its training shards that
/// training with `split` holds out where there are no others, or those that a pattern names.
///
/// # Errors
/// As [`open`].
pub fn open_validation(
    located: &Located,
    options: &RecordOptions,
    split: SplitOptions,
    known: Option<Known<'_>>,
) -> Result<Arc<dyn Dataset>> {
    if located.holds_out() {
        return Ok(open(located, options, split, known)?.validation);
    }
    Ok(Arc::new(Records::open(located, options, known)?))
}

/// Parts the records into training and validation. Labels are not read for it, so classes keep their shares only
/// about.
fn hold_out(index: Index, split: SplitOptions) -> Result<[Index; 2]> {
    let SplitOptions { fold, fraction, seed } = split;
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Fraction { fraction });
    }
    let records = index.len();
    if records < fold.map_or(2, Fold::folds) {
        return Err(Error::TooFewToSplit);
    }
    let mut order: Vec<usize> = (0..records).collect();
    Rng::stream(seed, &[stream::SPLIT]).shuffle(&mut order);
    let count = ((records as f64 * fraction).round() as usize).clamp(1, records - 1);
    let mut held_out = vec![false; records];
    let in_validation = |place: usize| fold.map_or(place < count, |fold| fold.holds(place));
    order.iter().enumerate().for_each(|(place, &record)| held_out[record] = in_validation(place));
    Ok(index.partition(|record| !held_out[record]))
}
