//! metrics.csv: a header and one row an epoch, flushed row by row.
//! A resumed run first drops the rows beyond the epoch it resumes from, so that no epoch appears twice.
//! Numbers are written so that they read back exactly.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use tallow_builder::files::write_atomically;

use crate::error::{Error, Result};

/// The columns, in order.
pub const HEADER: &str = "epoch,step,learning_rate,train_loss,train_top1,validation_loss,validation_top1,\
                          validation_top5,images_per_second,seconds";

/// What a validation pass found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean loss.
    pub loss: f64,
    /// Top-1 accuracy, 0 to 1.
    pub top1: f64,
    /// Top-5 accuracy, 0 to 1.
    pub top5: f64,
}

/// One epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The epoch, from 1.
    pub epoch: u64,
    /// Optimiser steps done since the run began.
    pub step: u64,
    /// Learning rate at the epoch's end.
    pub learning_rate: f64,
    /// Mean training loss.
    pub train_loss: f64,
    /// Training top-1, 0 to 1.
    pub train_top1: f64,
    /// The validation pass; `None` (empty cells) if the epoch had none.
    pub validation: Option<Validation>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Seconds the epoch took, validation included.
    pub seconds: f64,
}

impl Row {
    fn to_line(self) -> String {
        let Row { epoch, step, learning_rate, train_loss, train_top1, .. } = self;
        let validation =
            self.validation.map_or_else(|| ",,".into(), |v| format!("{},{},{}", v.loss, v.top1, v.top5));
        let (speed, seconds) = (self.images_per_second, self.seconds);
        format!(
            "{epoch},{step},{learning_rate},{train_loss},{train_top1},{validation},{speed:.1},{seconds:.2}\n"
        )
    }

    fn from_line(line: &str) -> Result<Self, String> {
        let cells: Vec<&str> = line.split(',').collect();
        let columns = HEADER.split(',').count();
        if cells.len() != columns {
            return Err(format!("{} columns instead of {columns}", cells.len()));
        }
        fn read<T: std::str::FromStr>(cell: &str) -> Result<T, String> {
            cell.trim().parse().map_err(|_| format!("`{cell}` is no number"))
        }
        let validation = if cells[5..8].iter().all(|cell| cell.trim().is_empty()) {
            None
        } else {
            Some(Validation { loss: read(cells[5])?, top1: read(cells[6])?, top5: read(cells[7])? })
        };
        Ok(Self {
            epoch: read(cells[0])?,
            step: read(cells[1])?,
            learning_rate: read(cells[2])?,
            train_loss: read(cells[3])?,
            train_top1: read(cells[4])?,
            validation,
            images_per_second: read(cells[8])?,
            seconds: read(cells[9])?,
        })
    }
}

/// One line for people: `epoch 3  loss 0.1234  top-1 97.10 %  validation loss 0.1500  top-1 96.50 %  340 img/s  4.2 s`.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "epoch {}  loss {:.4}  top-1 {:.2} %",
            self.epoch,
            self.train_loss,
            self.train_top1 * 100.0
        )?;
        if let Some(v) = &self.validation {
            write!(f, "  validation loss {:.4}  top-1 {:.2} %", v.loss, v.top1 * 100.0)?;
        }
        write!(f, "  {:.0} img/s  {:.1} s", self.images_per_second, self.seconds)
    }
}

/// Reads every row of a metrics.csv. A last line without its newline was cut off in the writing and is left out.
///
/// # Errors
/// [`Error::Io`], or [`Error::Metrics`] with the line that makes no sense.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    let wrong = |line, reason| Error::Metrics { path: path.into(), line, reason };
    let mut lines = whole.lines().enumerate();
    if lines.next().is_none_or(|(_, header)| header.trim_end() != HEADER) {
        return Err(wrong(1, format!("the header is not `{HEADER}`")));
    }
    lines.map(|(n, line)| Row::from_line(line).map_err(|reason| wrong(n + 1, reason))).collect()
}

/// A metrics.csv that is being written.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    /// None where another process keeps the file.
    file: Option<File>,
    rows: Vec<Row>,
}

impl Log {
    /// Starts a new file with its header.
    ///
    /// # Errors
    /// [`Error::Io`], also if the file exists: nothing is overwritten.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().append(true).create_new(true).open(path).map_err(Error::io("create", path))?;
        let mut log = Self { path: path.into(), file: Some(file), rows: Vec::new() };
        log.write(&format!("{HEADER}\n"))?;
        Ok(log)
    }

    /// Continues a file after `epochs` finished epochs: rows of later epochs are dropped, by way of a temporary
    /// file, so that a crash leaves either the old or the new one.
    ///
    /// # Errors
    /// Those of [`read`]; [`Error::Io`].
    pub fn resume(path: &Path, epochs: u64) -> Result<Self> {
        let mut rows = read(path)?;
        rows.retain(|row| row.epoch <= epochs);
        let mut text = format!("{HEADER}\n");
        rows.iter().for_each(|row| text.push_str(&row.to_line()));
        write_atomically(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.into(), file: Some(file), rows })
    }

    /// One that is written nowhere: another process keeps the file.
    pub(crate) fn kept_elsewhere(path: &Path) -> Self {
        Self { path: path.into(), file: None, rows: Vec::new() }
    }

    /// Appends a row and flushes it to the disk.
    ///
    /// # Errors
    /// [`Error::Io`], such as for a full disk.
    pub fn append(&mut self, row: Row) -> Result<()> {
        self.write(&row.to_line())?;
        self.rows.push(row);
        Ok(())
    }

    /// All rows, those from before a resumption included.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        written.map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64) -> Row {
        Row {
            epoch,
            step: epoch * 23,
            learning_rate: 0.1 / 3.0,
            train_loss: 1.0 / epoch as f64,
            train_top1: 0.7,
            validation: (epoch != 2).then_some(Validation { loss: f64::NAN, top1: 1.0 / 7.0, top5: 1.0 }),
            images_per_second: 123.4,
            seconds: 5.25,
        }
    }

    fn lines(rows: &[Row]) -> Vec<String> {
        // NaN is not equal to itself, so rows are compared as text.
        rows.iter().map(|row| row.to_line()).collect()
    }

    #[test]
    fn rows_read_back_exactly_and_an_existing_file_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut log = Log::create(&path).unwrap();
        (1..=3).for_each(|epoch| log.append(row(epoch)).unwrap());
        let back = read(&path).unwrap();
        assert_eq!(lines(&back), lines(&[row(1), row(2), row(3)]));
        assert_eq!(back[0].learning_rate, 0.1 / 3.0);
        assert_eq!(back[1].validation, None);
        assert!(matches!(Log::create(&path), Err(Error::Io { .. })));
        assert_eq!(read(&path).unwrap().len(), 3);
    }

    #[test]
    fn a_row_reads_well() {
        let with =
            "epoch 1  loss 1.0000  top-1 70.00 %  validation loss NaN  top-1 14.29 %  123 img/s  5.2 s";
        assert_eq!(row(1).to_string(), with);
        assert_eq!(row(2).to_string(), "epoch 2  loss 0.5000  top-1 70.00 %  123 img/s  5.2 s");
    }

    #[test]
    fn resuming_drops_later_rows_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        let mut log = Log::create(&path).unwrap();
        (1..=4).for_each(|epoch| log.append(row(epoch)).unwrap());
        log.write("5,115,0.1,0.").unwrap();
        drop(log);
        let mut log = Log::resume(&path, 2).unwrap();
        assert_eq!(log.rows().len(), 2);
        log.append(row(3)).unwrap();
        assert_eq!(lines(&read(&path).unwrap()), lines(&[row(1), row(2), row(3)]));
    }

    #[test]
    fn damage_is_reported_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        for (text, expected) in [
            (String::new(), "line 1: the header is not"),
            ("time,loss\n1,2\n".into(), "line 1: the header is not"),
            (format!("{HEADER}\n1,2,3\n"), "line 2: 3 columns instead of 10"),
            (format!("{HEADER}\n{}1,2,x,4,5,,,,8,9\n", row(1).to_line()), "line 3: `x` is no number"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Log::resume(&path, 9).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("metrics.csv"), "{error}");
        }
        assert!(matches!(read(&folder.path().join("none.csv")), Err(Error::Io { .. })));
    }
}
