//! The records of a set of shards, by number, for threads that read them in any order.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use tallow_tensorflow::index::{Span, scan, scan_into};

use crate::error::{Error, Result};

/// Files that are kept open: more than are read in turn, and fewer than a system allows.
const OPEN: usize = 64;

/// Where every record of a set is.
pub struct Index {
    paths: Vec<PathBuf>,
    /// `ends[i]` is the number after the last record of `paths[i]`.
    ends: Vec<usize>,
    spans: Vec<Span>,
    /// The files used last, the latest at the end.
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

impl Index {
    /// Finds the records of all `paths`, from their lengths alone.
    ///
    /// # Errors
    /// Where a file cannot be read or its framing is broken.
    pub fn scan(paths: Vec<PathBuf>) -> Result<Self> {
        let spans: Vec<Vec<Span>> =
            paths.par_iter().map(|path| scan(path).map_err(Error::Records)).collect::<Result<_>>()?;
        Ok(Self::new(paths, spans))
    }

    /// Finds the records that lie before any damage, and tells whether that is all of them.
    pub fn scan_sound(paths: Vec<PathBuf>) -> (Self, bool) {
        let one = |path: &PathBuf| {
            let mut spans = vec![];
            let is_whole = scan_into(path, &mut spans).is_ok();
            (spans, is_whole)
        };
        let (spans, whole): (Vec<Vec<Span>>, Vec<bool>) = paths.par_iter().map(one).unzip();
        (Self::new(paths, spans), whole.into_iter().all(|is_whole| is_whole))
    }

    fn new(paths: Vec<PathBuf>, spans: Vec<Vec<Span>>) -> Self {
        let mut end = 0;
        let ends = spans.iter().map(|spans| {
            end += spans.len();
            end
        });
        Self { ends: ends.collect(), paths, spans: spans.concat(), open: Mutex::default() }
    }

    /// Two sets of the same files: the records for which `first` holds, and the others.
    pub fn partition(self, first: impl Fn(usize) -> bool) -> [Self; 2] {
        let mut parts = [vec![], vec![]];
        for range in self.shards() {
            let (kept, others): (Vec<usize>, Vec<usize>) = range.partition(|&record| first(record));
            for (part, records) in parts.iter_mut().zip([kept, others]) {
                part.push(records.into_iter().map(|record| self.spans[record]).collect());
            }
        }
        parts.map(|spans| Self::new(self.paths.clone(), spans))
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The shards' files.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The numbers of each shard's records.
    pub fn shards(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| start..end)
    }

    /// Each shard's file, number of records, and bytes of their data.
    pub fn sizes(&self) -> impl Iterator<Item = (&Path, usize, u64)> {
        let bytes = |range: Range<usize>| self.spans[range].iter().map(|span| span.length as u64).sum();
        self.paths.iter().zip(self.shards()).map(move |(path, range)| (&**path, range.len(), bytes(range)))
    }

    /// Bytes of all records' data.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.length as u64).sum()
    }

    fn place(&self, record: usize) -> (usize, Span) {
        (self.ends.partition_point(|&end| end <= record), self.spans[record])
    }

    /// Where a record is, for messages: `train-00000-of-00001: record at byte 1234`.
    pub fn origin(&self, record: usize) -> String {
        let (shard, span) = self.place(record);
        format!("{}: record at byte {}", self.paths[shard].display(), span.offset)
    }

    /// What tells a record from all others of the set, wherever the set lies.
    pub fn name(&self, record: usize) -> String {
        let (shard, Span { offset, length }) = self.place(record);
        let file = self.paths[shard].file_name().unwrap_or_default().to_string_lossy();
        format!("{file} {offset} {length}")
    }

    /// A record's data; its sums are checked.
    ///
    /// # Errors
    /// Where the record is damaged or cannot be read.
    pub fn read<'a>(&self, record: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let (shard, span) = self.place(record);
        span.read(&*self.file(shard)?, &self.paths[shard], buffer).map_err(Error::Records)
    }

    /// The first bytes of a record's data, at most `count`, unchecked; and whether they are all.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn peek<'a>(&self, record: usize, count: usize, buffer: &'a mut Vec<u8>) -> Result<(&'a [u8], bool)> {
        let (shard, span) = self.place(record);
        let bytes =
            span.peek(&*self.file(shard)?, &self.paths[shard], count, buffer).map_err(Error::Records)?;
        Ok((bytes, span.length <= count))
    }

    /// Where a record starts in its file, for tests that cut it off.
    #[cfg(test)]
    pub fn start_of(&self, record: usize) -> u64 {
        self.spans[record].offset
    }

    fn file(&self, shard: usize) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().rposition(|&(other, _)| other == shard) {
            let found = open.remove(at).expect("its place was just found");
            open.push_back(found.clone());
            return Ok(found.1);
        }
        let path: &Path = &self.paths[shard];
        let file = File::open(path).map_err(tallow_tensorflow::Error::io(path)).map_err(Error::Records)?;
        let file = Arc::new(file);
        open.push_back((shard, file.clone()));
        if open.len() > OPEN {
            open.pop_front();
        }
        Ok(file)
    }
}
