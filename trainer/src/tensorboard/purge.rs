//! Forgets what an interrupted run wrote after the checkpoint that a resumed one goes on from: those steps come again.

use std::fmt;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use tallow_tensorflow::event::{Event, EventReader, is_event_file};
use tallow_tensorflow::{Error, Result};

/// An event file whose end an accident has taken or spoilt. What was sound is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutShort {
    /// The file.
    pub path: PathBuf,
    /// The step of the last sound event; none where nothing was sound.
    pub sound: Option<u64>,
    /// The step from which the run goes on, so that later events come again.
    pub resumed: u64,
}

/// What is lost, for a warning.
impl fmt::Display for CutShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, sound, resumed } = self;
        write!(f, "the event file {} was cut short: ", path.display())?;
        match sound {
            Some(step) => write!(f, "what it said after step {step} is lost to TensorBoard")?,
            None => f.write_str("all of it is lost to TensorBoard")?,
        }
        write!(f, ", but for steps after {resumed}, which come again; the training itself is not harmed")
    }
}

/// Removes the event files of `folder`, of a run that never came to a checkpoint and is begun anew.
///
/// # Errors
/// Where one cannot be removed.
pub(super) fn remove(folder: &Path) -> Result<()> {
    event_files(folder)?.iter().try_for_each(|path| std::fs::remove_file(path).map_err(Error::io(path)))
}

/// Cuts each event file of `folder` before its first event that is not to be kept; what follows it is later still. A
/// file that is damaged before that keeps what it has up to there, which is all that TensorBoard reads of it, and is
/// told of.
///
/// # Errors
/// Where a file cannot be read or cut.
pub(super) fn purge(folder: &Path, resumed: u64, keep: impl Fn(&Event) -> bool) -> Result<Vec<CutShort>> {
    let mut found = vec![];
    for path in event_files(folder)? {
        let end = match end(&path, &keep)? {
            End::Sound => continue,
            End::Later(end) => end,
            End::Damage { end, sound } => {
                found.push(CutShort { path: path.clone(), sound, resumed });
                end
            }
        };
        if end == 0 {
            // Left empty, it would be told of each time.
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
            continue;
        }
        let file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
        file.set_len(end).and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
    }
    Ok(found)
}

/// What of an event file is to be kept.
enum End {
    /// All of it.
    Sound,
    /// What lies before this byte, where the first event begins that is not to be kept.
    Later(u64),
    /// What lies before this byte, where damage begins.
    Damage { end: u64, sound: Option<u64> },
}

/// The event files of a folder; none where there is no such folder.
pub(super) fn event_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::io(folder))?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path()));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_file() && is_event_file(path)).collect())
}

fn end(path: &Path, keep: impl Fn(&Event) -> bool) -> Result<End> {
    let mut events = EventReader::open(path)?;
    let mut sound = None;
    loop {
        let end = events.offset();
        match events.next() {
            Some(Ok(event)) if keep(&event) => sound = sound.max(Some(event.step as u64)),
            Some(Ok(_)) => return Ok(End::Later(end)),
            Some(Err(Error::Damaged { .. })) => return Ok(End::Damage { end, sound }),
            // Every file begins with an event that is flushed at once.
            None if sound.is_none() => return Ok(End::Damage { end, sound }),
            None => return Ok(End::Sound),
            Some(Err(error)) => return Err(error),
        }
    }
}
