//! Writing one shard: images are read and checked in parallel, a handful at a time, and written in order under a
//! temporary name, which becomes the final one when everything is on the disk.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use tallow_tensorflow::record::write_record;

use super::encoded::encoded;
use super::facts::Facts;
use super::journal::{Done, Journal};
use super::source::Image;
use super::{Schema, Work};
use crate::error::{Error, Result};
use crate::tally::Tally;

/// What files have in front of their names until they are whole.
const UNFINISHED: &str = ".unfinished-";
/// Images in preparation for each thread: bounds the memory.
const EACH: usize = 8;

/// What became of an image.
enum Outcome {
    Example { bytes: Vec<u8>, reencoded: bool },
    Unusable(String),
}

/// Writes the shard `name` with `images` into `folder`, and into the journal. False if `stop` was set: nothing is
/// left behind then.
///
/// # Errors
/// Where the shard cannot be written; for an image that cannot be used only if the work is strict.
pub fn write(
    folder: &Path,
    name: &str,
    images: &[Image],
    work: &Work<'_>,
    journal: &mut Journal,
    tally: &Tally,
    stop: &AtomicBool,
) -> Result<bool> {
    let unfinished = Unfinished(folder.join(format!("{UNFINISHED}{name}")));
    let path = &unfinished.0;
    let file = File::create(path).map_err(Error::io("write", path))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut done = Done { shard: name.to_owned(), ..Done::default() };
    for some in images.chunks(EACH * rayon::current_num_threads()) {
        if stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let outcomes: Vec<Result<Outcome>> = some.par_iter().map(|image| work.example(image)).collect();
        for ((image, _), outcome) in some.iter().zip(outcomes) {
            let origin = || image.display().to_string();
            let mut written = 0;
            match outcome? {
                Outcome::Example { bytes, reencoded } => {
                    write_record(&mut out, &bytes).map_err(Error::io("write", path))?;
                    written = bytes.len();
                    done.images += 1;
                    done.bytes += written as u64;
                    done.reencoded.extend(reencoded.then(origin));
                }
                Outcome::Unusable(reason) if work.strict => {
                    return Err(Error::Image { origin: origin(), reason });
                }
                Outcome::Unusable(reason) => done.skipped.push((origin(), reason)),
            }
            tally.add(1, written);
        }
    }
    let file = out.into_inner().map_err(|error| Error::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(Error::io("write", path))?;
    journal.add(done)?;
    let target = folder.join(name);
    fs::rename(path, &target).map_err(Error::io("write", target))?;
    Ok(true)
}

/// A file under a temporary name, which goes away unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename it is not there; where it cannot be removed, the next run does it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what runs left that were killed.
///
/// # Errors
/// Where the folder cannot be read or changed.
pub fn remove_unfinished(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

impl Work<'_> {
    /// The example of an image. What is wrong with the image is an outcome; a file that cannot be read is, too.
    fn example(&self, (path, label): &Image) -> Result<Outcome> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Outcome::Unusable(format!("cannot read the file: {error}"))),
        };
        let image = match encoded(&bytes) {
            Ok(image) => image,
            Err(reason) => return Ok(Outcome::Unusable(reason)),
        };
        let synset = &self.classes[*label as usize];
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let facts = Facts {
            file: &file,
            label: label + self.label_offset,
            synset,
            text: self.texts.get(synset).map_or(synset.as_str(), String::as_str),
            width: image.width,
            height: image.height,
            boxes: self.boxes.get(file.as_ref()).map_or(&[], Vec::as_slice),
        };
        let reencoded = matches!(image.bytes, std::borrow::Cow::Owned(_));
        Ok(Outcome::Example { bytes: Schema::example(self.schema, &image.bytes, &facts), reencoded })
    }
}
