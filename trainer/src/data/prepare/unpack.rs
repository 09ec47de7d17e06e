//! Shards back into folders of images.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tallow_tensorflow::example::Example;

use crate::data::Skipped;
use crate::data::folder::{FLAT_LABELS, VALIDATION_NAMES, is_image};
use crate::data::format::{UNKNOWN_FORMAT, endings};
use crate::data::tfrecord::{Index, Located, Meaning, RecordOptions, Written};
use crate::error::{Error, Result};
use crate::tally::{Show, Tally};

/// What a file has in front of its name until it is whole.
const UNFINISHED: &str = ".unfinished-";

/// Where the images of a validation part go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `validation/<class>/<file>`.
    #[default]
    Classes,
    /// `validation/<file>`, with the classes in `synset_labels.txt`.
    Flat,
}

/// What was unpacked.
#[derive(Clone, Debug, Default)]
pub struct Unpacked {
    /// Whether it was asked to stop; the same call goes on then.
    pub interrupted: bool,
    /// Images that were written.
    pub written: usize,
    /// Images that an earlier run had written.
    pub kept: usize,
    /// Records that are no labelled images.
    pub skipped: Vec<Skipped>,
    /// Files whose bytes are in no format that can be decoded.
    pub undecodable: Vec<Skipped>,
}

/// Writes the images in shards as files below `out`: `<part>/<class>/<file>`, byte for byte, decodable or not. Files that are there already with the
/// same bytes are kept, so that an interrupted call can be repeated.
///
/// # Errors
/// Where shards are damaged or not what was written, or a file is there with other bytes.
pub fn unpack(
    located: &Located,
    out: &Path,
    layout: Layout,
    options: &RecordOptions,
    show: Show,
    stop: &AtomicBool,
) -> Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let parts = located.all()?;
    let written = Written::find(located)?;
    let parts: Vec<(String, Index)> = parts
        .into_iter()
        .map(|set| Ok((set.name.split().to_owned(), written.scan(set.files)?)))
        .collect::<Result<_>>()?;
    // All parts name the classes alike; the largest names most of them.
    let Some((_, largest)) = parts.iter().max_by_key(|(_, index)| index.len()) else { return Ok(unpacked) };
    let meaning = Meaning::find(&located.folder, largest, options, None)?;
    let tally = Tally::new(show, "unpack", parts.iter().map(|(_, index)| index.len()).sum());
    for (name, index) in &parts {
        let flat = layout == Layout::Flat && VALIDATION_NAMES.contains(&name.as_str());
        let mut part = Part {
            folder: out.join(name),
            flat,
            meaning: &meaning,
            taken: HashSet::new(),
            flat_names: vec![],
            undecodable: vec![],
        };
        let mut buffer = vec![];
        for record in 0..index.len() {
            if stop.load(Ordering::Relaxed) {
                unpacked.interrupted = true;
                break;
            }
            let bytes = index.read(record, &mut buffer)?;
            match part.write(bytes, record) {
                Ok(true) => unpacked.written += 1,
                Ok(false) => unpacked.kept += 1,
                Err(Error::Unusable { reason }) => {
                    unpacked.skipped.push(Skipped { origin: index.origin(record), reason });
                }
                Err(other) => return Err(other),
            }
            tally.add(1, bytes.len());
        }
        unpacked.undecodable.append(&mut part.undecodable);
        if unpacked.interrupted {
            return Ok(unpacked);
        }
        if flat {
            part.write_flat_labels(out)?;
        }
    }
    Ok(unpacked)
}

/// A part on its way to files.
struct Part<'a> {
    folder: PathBuf,
    flat: bool,
    meaning: &'a Meaning,
    taken: HashSet<PathBuf>,
    /// Files and their classes, of a flat part.
    flat_names: Vec<(String, String)>,
    undecodable: Vec<Skipped>,
}

impl Part<'_> {
    /// Writes a record's image. False if it was there already.
    fn write(&mut self, record: &[u8], number: usize) -> Result<bool> {
        let unusable = |reason: String| Error::Unusable { reason };
        let example = Example::parse(record).map_err(|error| unusable(format!("no example: {error}")))?;
        let class = self.meaning.class(&example)? as usize;
        let class = safe(&self.meaning.classes[class]);
        let fields = &self.meaning.fields;
        let image = example
            .bytes(&fields.image)
            .ok_or_else(|| unusable(format!("it has no image `{}`", fields.image)))?;
        let name = example.text(&fields.file).and_then(|name| name.rsplit(['/', '\\']).next());
        let name = name.filter(|name| !name.is_empty()).map_or_else(|| format!("{number:08}"), safe);
        let folder = if self.flat { self.folder.clone() } else { self.folder.join(&class) };
        let path = self.free(&folder, &with_fitting_ending(&name, image));
        if endings(image).is_none() {
            let (origin, reason) = (path.display().to_string(), UNKNOWN_FORMAT.into());
            self.undecodable.push(Skipped { origin, reason });
        }
        // A file that is not called as an image is passed over by whoever counts the lines.
        if self.flat && is_image(&path) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.flat_names.push((file, class));
        }
        match fs::read(&path) {
            Ok(bytes) if bytes == image => return Ok(false),
            Ok(_) => {
                let problem = "is there already, with other bytes: choose another folder".into();
                return Err(Error::Shards { path, problem });
            }
            Err(_) => {}
        }
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let unfinished = folder.join(format!("{UNFINISHED}{number}"));
        fs::write(&unfinished, image).map_err(Error::io("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(Error::io("write", &path))?;
        Ok(true)
    }

    /// A path that no record before this one has: `1.jpg`, `1-2.jpg`, …
    fn free(&mut self, folder: &Path, name: &str) -> PathBuf {
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        let numbered = (2..).map(|n| folder.join(format!("{stem}-{n}.{ending}")));
        let mut paths = std::iter::once(folder.join(name)).chain(numbered);
        paths.find(|path| self.taken.insert(path.clone())).expect("numbers do not end")
    }

    fn write_flat_labels(&mut self, out: &Path) -> Result<()> {
        self.flat_names.sort_unstable();
        let text: String = self.flat_names.iter().map(|(_, class)| format!("{class}\n")).collect();
        Ok(tallow_builder::files::write_atomically(&out.join(FLAT_LABELS), text.as_bytes())?)
    }
}

/// A name that stays within its folder, whatever a file claims.
fn safe(name: &str) -> String {
    let name = name.replace(|c: char| c == '/' || c == '\\' || c.is_control(), "_");
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

/// The name, with an ending more where its own promises another format than the image has: `a.png.jpg` can be no other
/// file's name.
fn with_fitting_ending(name: &str, image: &[u8]) -> String {
    let lower = name.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_lowercase());
    match endings(image) {
        Some(fitting) if !fitting.contains(&lower.as_str()) => format!("{name}.{}", fitting[0]),
        _ => name.to_owned(),
    }
}
