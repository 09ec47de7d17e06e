//! Checks shards from end to end: every sum, every example, every label; and that no shard is missing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use tallow_input::{InputError, decode};
use tallow_tensorflow::example::Example;
use tallow_tensorflow::record::{RecordReader, framed_len};

use super::written::Written;
use super::{Index, Located, Meaning, RecordOptions};
use crate::data::format::{UNKNOWN_FORMAT, endings};
use crate::error::Error;
use crate::tally::{Show, Tally};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Whether it was asked to stop.
    pub interrupted: bool,
    /// Files that were read.
    pub files: usize,
    /// Sound records.
    pub records: usize,
    /// Bytes of their data.
    pub bytes: u64,
    /// Everything that is wrong, one line each, with the file and the place.
    pub problems: Vec<String>,
}

/// Reads all shards of `located`. With `pixels`, images are decoded too. Whatever is wrong is reported, not an error.
pub fn verify(
    located: &Located,
    options: &RecordOptions,
    pixels: bool,
    show: Show,
    stop: &AtomicBool,
) -> Verified {
    let mut verified = Verified::default();
    let mut files = vec![];
    for set in &located.sets {
        let total = set.name.total;
        let place = |name: &String| set.files.first().map_or(name.into(), |file| file.with_file_name(name));
        let missing = |name| format!("{}: missing, one of {total}", place(name).display());
        verified.problems.extend(set.missing.iter().map(missing));
        files.extend(set.files.iter().cloned());
    }
    verified.problems.extend(located.doubled().map(|error| error.to_string()));
    let (written, damaged) = Written::gather(located);
    verified.problems.extend(damaged.iter().map(Error::to_string));
    verified.problems.extend(written.wrong_splits(located));
    let meaning = meaning(located, &files, options, &mut verified.problems);
    let tally = Tally::new(show, "verify", files.len());
    let found: Vec<Verified> = files
        .par_iter()
        .map(|path| {
            let mut found = Verified::default();
            let read = check(path, meaning.as_ref(), pixels, stop, &mut found);
            let contradiction = read.and_then(|(records, bytes)| written.contradiction(path, records, bytes));
            found.problems.extend(contradiction.map(|problem| format!("{}: {problem}", path.display())));
            tally.add(1, found.bytes as usize);
            found
        })
        .collect();
    for mut one in found {
        verified.interrupted |= one.interrupted;
        verified.files += 1;
        verified.records += one.records;
        verified.bytes += one.bytes;
        verified.problems.append(&mut one.problems);
    }
    verified
}

/// What the labels mean, as far as undamaged records tell.
fn meaning(
    located: &Located,
    files: &[PathBuf],
    options: &RecordOptions,
    problems: &mut Vec<String>,
) -> Option<Meaning> {
    let (index, is_whole) = Index::scan_sound(files.to_vec());
    match Meaning::find(&located.folder, &index, options, None) {
        Ok(meaning) => Some(meaning),
        // Damage is found again, with the rest of it; that it left no record over is not another problem.
        Err(Error::Records(_)) => None,
        Err(_) if index.is_empty() && !is_whole => None,
        Err(error) => {
            // A damaged file beside the shards is met here again.
            let problem = error.to_string();
            if !problems.contains(&problem) {
                problems.push(problem);
            }
            None
        }
    }
}

/// The number of the file's records and the bytes in them, where it could be read to its end.
fn check(
    path: &Path,
    meaning: Option<&Meaning>,
    pixels: bool,
    stop: &AtomicBool,
    found: &mut Verified,
) -> Option<(usize, u64)> {
    let mut reader = match RecordReader::open(path) {
        Ok(reader) => reader,
        Err(error) => {
            found.problems.push(Error::Records(error).to_string());
            return None;
        }
    };
    let mut buffer = vec![];
    let mut read = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            found.interrupted = true;
            return None;
        }
        let offset = reader.offset();
        match reader.read_into(&mut buffer) {
            Ok(false) => return Some((read, offset - read as u64 * framed_len(0))),
            Ok(true) => {
                read += 1;
                if let Err(problem) = check_record(&buffer, meaning, pixels) {
                    found.problems.push(format!("{}: record at byte {offset}: {problem}", path.display()));
                } else {
                    found.records += 1;
                    found.bytes += buffer.len() as u64;
                }
            }
            Err(error) => {
                found.problems.push(Error::Records(error).to_string());
                // Without a sound length there is no telling where the next record is.
                if reader.offset() == offset {
                    return None;
                }
                read += 1;
            }
        }
    }
}

fn check_record(bytes: &[u8], meaning: Option<&Meaning>, pixels: bool) -> Result<(), String> {
    let example = Example::parse(bytes).map_err(|error| format!("no example: {error}"))?;
    let Some(meaning) = meaning else { return Ok(()) };
    meaning.class(&example).map_err(|error| error.to_string())?;
    let key = &meaning.fields.image;
    let image = example.bytes(key).ok_or_else(|| format!("it has no image `{key}`"))?;
    if pixels {
        return match decode(image) {
            Ok(_) => Ok(()),
            Err(InputError::Image { fault, .. }) => Err(fault.to_string()),
            Err(other) => Err(other.to_string()),
        };
    }
    endings(image).map(drop).ok_or_else(|| UNKNOWN_FORMAT.into())
}
