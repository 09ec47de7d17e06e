//! What the files beside shards say was written: whole records, shards or splits that are gone leave no wrong sum
//! behind, so only the files of those who wrote the shards know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tallow_tensorflow::record::framed_len;
use tallow_tensorflow::shards::ShardSet;

use super::info::{DatasetInfo, INFO_FILE};
use super::locate::folders;
use super::{Index, Located};
use crate::data::folder::VALIDATION_NAMES;
use crate::data::prepare::{JOURNAL_FILE, Journal};
use crate::error::{Error, Result};

/// What the files beside shards say of them.
#[derive(Default)]
pub struct Written {
    /// By the shard's file name.
    shards: BTreeMap<String, Vec<Shard>>,
    splits: Vec<Split>,
}

/// What one file says of one shard.
struct Shard {
    file: &'static str,
    records: usize,
    /// Bytes of all records, where it is told.
    bytes: Option<u64>,
}

/// What one file says of one split.
struct Split {
    file: &'static str,
    name: String,
    shards: usize,
}

impl Written {
    /// Reads the files beside the shards.
    ///
    /// # Errors
    /// Where one is damaged.
    pub fn find(located: &Located) -> Result<Self> {
        let (written, damaged) = Self::gather(located);
        damaged.into_iter().next().map_or(Ok(written), Err)
    }

    /// The same, with an error for each file that is damaged.
    pub fn gather(located: &Located) -> (Self, Vec<Error>) {
        let (mut written, mut damaged) = (Self::default(), vec![]);
        for folder in folders(&located.folder) {
            let told = [written.add_journal(&folder), written.add_info(&folder, located)];
            damaged.extend(told.into_iter().filter_map(Result::err));
        }
        (written, damaged)
    }

    fn add_journal(&mut self, folder: &Path) -> Result<()> {
        let Some(told) = Journal::told(folder)? else { return Ok(()) };
        let file = JOURNAL_FILE;
        for (name, part) in told.parts {
            self.splits.push(Split { file, name, shards: part.shards });
        }
        for done in told.done {
            let shard = Shard { file, records: done.images, bytes: Some(done.bytes) };
            // A shard that was made again has a line more; the last one holds.
            let told = self.shards.entry(done.shard).or_default();
            told.retain(|other| other.file != file);
            told.push(shard);
        }
        Ok(())
    }

    fn add_info(&mut self, folder: &Path, located: &Located) -> Result<()> {
        let Some(info) = DatasetInfo::read(folder)? else { return Ok(()) };
        let file = INFO_FILE;
        for (name, records) in info.splits() {
            self.splits.push(Split { file, name: name.to_owned(), shards: records.len() });
            let fits = |set: &&ShardSet| set.name.split() == name && set.name.total.max(1) == records.len();
            for set in located.known_sets().filter(fits) {
                for (index, records) in records.iter().enumerate() {
                    let Some(records) = *records else { continue };
                    let shard = Shard { file, records, bytes: None };
                    self.shards.entry(set.name.with_index(index).to_string()).or_default().push(shard);
                }
            }
        }
        Ok(())
    }

    /// Finds the records of a set that is to be used.
    ///
    /// # Errors
    /// Those of [`Index::scan`], and where a shard is not what was written.
    pub fn scan(&self, files: Vec<PathBuf>) -> Result<Index> {
        let index = Index::scan(files)?;
        for (path, records, bytes) in index.sizes() {
            if let Some(problem) = self.contradiction(path, records, bytes) {
                return Err(Error::Shards { path: path.to_owned(), problem });
            }
        }
        Ok(index)
    }

    /// What is wrong with a shard that has so many records, and bytes in them.
    pub fn contradiction(&self, path: &Path, records: usize, bytes: u64) -> Option<String> {
        let name = path.file_name()?.to_str()?;
        self.shards.get(name)?.iter().find_map(|told| {
            let file = told.file;
            let remedy = match file {
                JOURNAL_FILE => "run the same `tallow data prepare` again, or take another copy of it",
                _ => "take another copy of it",
            };
            if told.records != records {
                let wanted = told.records;
                return Some(format!("{records} records, {wanted} were written, says {file}: {remedy}"));
            }
            let wanted = told.bytes.filter(|&wanted| wanted != bytes)?;
            let length = |bytes: u64| bytes + records as u64 * framed_len(0);
            let (length, wanted) = (length(bytes), length(wanted));
            Some(format!("{length} bytes, {wanted} were written, says {file}: it is another file: {remedy}"))
        })
    }

    /// What is wrong with the splits in a folder: those that are missing, and those in other numbers of shards.
    pub fn wrong_splits(&self, located: &Located) -> Vec<String> {
        let folder = located.folder.display();
        let wrong = |split: &Split| {
            let Split { file, name, shards } = split;
            let mut sets = located.known_sets().filter(|set| set.name.split() == name).peekable();
            if sets.peek().is_none() {
                return located.is_folder().then(|| format!("{folder}: {}", split.missing()));
            }
            let total = |set: &ShardSet| set.name.total.max(1);
            let other = sets.find(|set| total(set) != *shards).map(total)?;
            Some(format!("{folder}: {shards} {name} shards, says {file}, but the files say {other}"))
        };
        self.splits.iter().filter_map(wrong).collect()
    }

    /// Refuses to hold out images of a folder that was written with a validation part.
    ///
    /// # Errors
    /// Where that part is missing.
    pub fn refuse_lost_validation(&self, located: &Located) -> Result<()> {
        let lost = self.splits.iter().find(|split| VALIDATION_NAMES.contains(&split.name.as_str()));
        match lost.filter(|_| located.is_folder()) {
            None => Ok(()),
            Some(split) => {
                let problem = format!(
                    "{}, or name the training shards by a pattern to hold some of their images out",
                    split.missing()
                );
                Err(Error::Shards { path: located.folder.clone(), problem })
            }
        }
    }
}

impl Split {
    fn missing(&self) -> String {
        let Self { file, name, shards } = self;
        format!("no {name} shards, but {file} tells of {shards}: restore them")
    }
}
