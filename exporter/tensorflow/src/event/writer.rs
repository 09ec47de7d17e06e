//! Writes one event file.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;

use super::proto::{Event, SessionLog, SessionStatus, SourceMetadata, Summary, SummaryValue};
use crate::error::{Error, Result};
use crate::proto::GraphDef;
use crate::record::write_record;

/// What event files have in their names.
const MARK: &str = "tfevents";
const VERSION: &str = "brain.Event:2";
/// How long an event may wait in memory while others come.
const FLUSH: Duration = Duration::from_secs(2);
/// What waits in memory at most, bytes.
const BUFFER: usize = 64 * 1024;

/// Whether a file of this name is one that TensorBoard reads.
pub fn is_event_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(MARK))
}

/// A new event file in a folder. What has been written is on its way to the disk at the latest two seconds later, as
/// long as more is written; [`Self::flush`] and dropping send the rest.
#[derive(Debug)]
pub struct EventWriter<W: Write = File> {
    path: PathBuf,
    out: BufWriter<W>,
    flushed: Instant,
}

impl EventWriter {
    /// Makes `events.out.tfevents.<seconds since 1970>.<host>.<process>.<n>` in `folder`, which is made if needed. Its
    /// name sorts after those of the event files that are there, because TensorBoard reads them in that order.
    ///
    /// # Errors
    /// Where the folder or the file cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let seconds = (now() as u64).max(newest(folder)?.map_or(0, |newest| newest + 1));
        let (host, process) = (host(), std::process::id());
        for n in 0u32.. {
            let path = folder.join(format!("events.out.{MARK}.{seconds:010}.{host}.{process}.{n}"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut writer = Self::new(&path, file)?;
                    writer.flush()?;
                    return Ok(writer);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(&path)(error)),
            }
        }
        unreachable!("a folder holds fewer files than there are numbers")
    }
}

impl<W: Write> EventWriter<W> {
    /// Writes to `out`, beginning with the event that says that events follow; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn new(path: &Path, out: W) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER, out);
        let mut writer = Self { path: path.to_owned(), out, flushed: Instant::now() };
        let source_metadata = Some(SourceMetadata { writer: "tallow".into() });
        let file_version = Some(VERSION.into());
        writer.write(&Event { wall_time: now(), file_version, source_metadata, ..Event::default() })?;
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes values of one step, with the present time.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn summary(&mut self, step: u64, value: Vec<SummaryValue>) -> Result<()> {
        self.now(step, |event| event.summary = Some(Summary { value }))
    }

    /// Writes a network's graph.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn graph(&mut self, graph: &GraphDef) -> Result<()> {
        self.now(0, |event| event.graph_def = Some(graph.encode_to_vec()))
    }

    /// Tells readers that the run begins again: they forget what they have of `step` and later ones.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn restart(&mut self, step: u64) -> Result<()> {
        self.now(step, |event| {
            event.session_log = Some(SessionLog { status: SessionStatus::Start.into() });
        })
    }

    fn now(&mut self, step: u64, fill: impl FnOnce(&mut Event)) -> Result<()> {
        let mut event = Event { wall_time: now(), step: step as i64, ..Event::default() };
        fill(&mut event);
        self.write(&event)
    }

    /// Writes an event.
    ///
    /// # Errors
    /// Where the disk is full or has failed; the error names the file.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        write_record(&mut self.out, &event.encode_to_vec()).map_err(Error::io(&self.path))?;
        if self.flushed.elapsed() > FLUSH { self.flush() } else { Ok(()) }
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.out.flush().map_err(Error::io(&self.path))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// The largest time in the names of a folder's event files.
fn newest(folder: &Path) -> Result<Option<u64>> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut newest = None;
    for entry in entries {
        let name = entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned();
        let time =
            name.split_once(&format!("{MARK}.")).and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        newest = newest.max(time);
    }
    Ok(newest)
}

/// The machine's name, as far as it may stand in a file's name.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok()));
    let name: String =
        name.unwrap_or_default().trim().chars().filter(|c| c.is_alphanumeric() || *c == '-').collect();
    if name.is_empty() { "localhost".into() } else { name }
}
