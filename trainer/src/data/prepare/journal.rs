//! `prepare.jsonl` beside the shards: how they were made, and which are done. A shard is done when it has its final
//! name and a line here. A later run goes on where this one was stopped, if nothing that decides the shards has
//! changed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tallow_tensorflow::record::framed_len;

use super::Schema;
use crate::error::{Error, Result};

/// The file's name.
pub const JOURNAL_FILE: &str = "prepare.jsonl";
const FORMAT: u32 = 1;

/// Everything that decides the shards' bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this file's layout.
    format: u32,
    /// Whose keys are written.
    pub schema: Schema,
    /// The data set's name in the shards' names.
    pub name: Option<String>,
    /// The label of the first class.
    pub label_offset: u32,
    /// Decides the order.
    pub seed: u64,
    /// The share that was held out.
    pub validation_share: Option<f64>,
    /// Images and shards of each part.
    pub parts: BTreeMap<String, Part>,
    /// SHA-256 over the images' names, classes, sizes and times, and over the texts and boxes.
    pub files: String,
}

/// Size of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Images that were found.
    pub images: usize,
    /// Shards they go into.
    pub shards: usize,
}

impl Header {
    /// A header for shards that are yet to be written.
    pub fn new(schema: Schema, label_offset: u32, seed: u64) -> Self {
        Self {
            format: FORMAT,
            schema,
            name: None,
            label_offset,
            seed,
            validation_share: None,
            parts: BTreeMap::new(),
            files: String::new(),
        }
    }

    /// What another run would do otherwise, and what to do about it; `None` if nothing.
    fn difference(&self, now: &Self) -> Option<String> {
        let show = |share: Option<f64>| share.map_or("none".into(), |share| share.to_string());
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".into());
        let options = [
            ("--schema", self.schema.to_string(), now.schema.to_string()),
            ("--name", name(&self.name), name(&now.name)),
            ("--label-offset", self.label_offset.to_string(), now.label_offset.to_string()),
            ("--seed", self.seed.to_string(), now.seed.to_string()),
            ("--validation-share", show(self.validation_share), show(now.validation_share)),
        ];
        if let Some((option, then, now)) = options.into_iter().find(|(_, then, now)| then != now) {
            return Some(format!("with {option} {then}, not {now}"));
        }
        let images = |header: &Self| header.parts.values().map(|part| part.images).sum::<usize>();
        match (images(self), images(now)) {
            (then, now) if then != now => return Some(format!("from {then} images, there are {now} now")),
            _ if self.files != now.files => {
                return Some("from other files: images, texts or boxes have changed".into());
            }
            _ => {}
        }
        (self != now).then(|| "with other numbers of shards".into())
    }
}

/// A finished shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The file's name.
    pub shard: String,
    /// Images in it.
    pub images: usize,
    /// Bytes of their examples.
    pub bytes: u64,
    /// Files whose images were re-encoded.
    pub reencoded: Vec<String>,
    /// Files that could not be used, with the reasons.
    pub skipped: Vec<(String, String)>,
}

impl Done {
    /// Bytes of the whole file: every record is framed.
    pub fn file_length(&self) -> u64 {
        self.bytes + self.images as u64 * framed_len(0)
    }
}

/// What a journal tells of the shards beside it.
pub(crate) struct Told {
    /// Images and shards of each part.
    pub parts: BTreeMap<String, Part>,
    /// The finished shards.
    pub done: Vec<Done>,
}

/// What a journal's file says.
struct Kept {
    /// How the shards are made, unless its line was cut short.
    header: Option<Header>,
    /// The finished shards.
    done: Vec<Done>,
    /// Bytes of all whole lines.
    length: usize,
}

impl Kept {
    /// A last line that a crash cut short is no line: what it would have said is done again.
    fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&bytes[..length]);
        let mut lines = text.lines();
        let header = lines.next().map(serde_json::from_str).transpose()?;
        let done = lines.map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
        Ok(Self { header, done, length })
    }

    /// Of the journal in `folder`; `None` if there is none.
    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(JOURNAL_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let damaged = |error: serde_json::Error| Error::Shards {
            path,
            problem: format!("damaged: {error}; remove it, and say --label-offset"),
        };
        Self::parse(&bytes).map(Some).map_err(damaged)
    }
}

/// The open journal. While it is open no other process can open it.
pub struct Journal {
    path: PathBuf,
    file: File,
    done: BTreeMap<String, Done>,
}

impl Journal {
    /// Opens the journal in `folder`, or begins one.
    ///
    /// # Errors
    /// Where it belongs to other shards than `header` describes, or another process has it open.
    pub fn open(folder: &Path, header: &Header) -> Result<Self> {
        let path = folder.join(JOURNAL_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(Error::io("write", &path))?;
        if file.try_lock().is_err() {
            let problem =
                "another `tallow data prepare` is writing here: wait for it, or choose another folder";
            return Err(Error::Shards { path, problem: problem.into() });
        }
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let kept = Kept::parse(&bytes).map_err(|error| Error::Shards {
            path: path.clone(),
            problem: format!("damaged: {error}; remove the folder and start anew"),
        })?;
        let difference = kept.header.as_ref().and_then(|kept| kept.difference(header));
        if let Some(difference) = difference {
            let problem = format!(
                "holds shards that were made {difference}: choose another folder, or remove this one to start anew"
            );
            return Err(Error::Shards { path: folder.to_owned(), problem });
        }
        file.set_len(kept.length as u64).map_err(Error::io("write", &path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io("write", &path))?;
        let is_new = kept.header.is_none();
        let done = kept.done.into_iter().map(|done| (done.shard.clone(), done)).collect();
        let mut journal = Self { path, file, done };
        if is_new {
            journal.write(header)?;
        }
        Ok(journal)
    }

    /// The label of the first class, in a folder of shards with a journal.
    ///
    /// # Errors
    /// Where the journal is damaged.
    pub fn label_offset(folder: &Path) -> Result<Option<u32>> {
        Ok(Kept::read(folder)?.and_then(|kept| kept.header).map(|header| header.label_offset))
    }

    /// What a journal in a folder of shards tells of them; `None` if there is none.
    ///
    /// # Errors
    /// Where the journal is damaged.
    pub(crate) fn told(folder: &Path) -> Result<Option<Told>> {
        let told = |kept: Kept| {
            let parts = kept.header.map(|header| header.parts).unwrap_or_default();
            Told { parts, done: kept.done }
        };
        Ok(Kept::read(folder)?.map(told))
    }

    /// Whether there is a journal in `folder`.
    pub fn exists(folder: &Path) -> bool {
        folder.join(JOURNAL_FILE).is_file()
    }

    /// Whether a shard is written down and has the length that it was written with.
    pub fn is_whole(&self, folder: &Path, shard: &str) -> bool {
        let length =
            std::fs::metadata(folder.join(shard)).ok().filter(|file| file.is_file()).map(|file| file.len());
        self.done(shard).map(Done::file_length).is_some_and(|whole| length == Some(whole))
    }

    /// What is known about a shard, if it is written down.
    pub fn done(&self, shard: &str) -> Option<&Done> {
        self.done.get(shard)
    }

    /// Writes down that a shard is done.
    ///
    /// # Errors
    /// Where the disk is full.
    pub fn add(&mut self, done: Done) -> Result<()> {
        self.write(&done)?;
        self.done.insert(done.shard.clone(), done);
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line).expect("a line is plain data");
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(Error::io("write", &self.path))
    }
}
