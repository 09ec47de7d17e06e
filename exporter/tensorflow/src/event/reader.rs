//! Reads one event file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use prost::Message;

use super::proto::Event;
use crate::error::{Error, Result};
use crate::record::RecordReader;

/// The events of a file, in order. Nothing follows an error.
pub struct EventReader<R = BufReader<File>> {
    path: PathBuf,
    records: RecordReader<R>,
    failed: bool,
}

impl EventReader {
    /// Opens a file.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), records: RecordReader::open(path)?, failed: false })
    }
}

impl<R: Read> EventReader<R> {
    /// Reads from `input`; `path` is what errors call it.
    pub fn new(path: &Path, input: R) -> Self {
        Self { path: path.to_owned(), records: RecordReader::new(path, input), failed: false }
    }

    /// Where the next event starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.records.offset()
    }
}

impl<R: Read> Iterator for EventReader<R> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let offset = self.offset();
        let event = self.records.next()?.and_then(|record| {
            let problem = |error| format!("a record that is no event: {error}");
            Event::decode(record.as_slice()).map_err(|e| Error::damaged(&self.path, offset, problem(e)))
        });
        self.failed = event.is_err();
        Some(event)
    }
}
