//! Forgets what an interrupted run wrote after the checkpoint that a resumed one goes on from: those steps come again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use tallow_tensorflow::event::{Event, EventReader, is_event_file};
use tallow_tensorflow::{Error, Result};

/// Removes the event files of `folder`, of a run that never came to a checkpoint and is begun anew.
///
/// # Errors
/// Where one cannot be removed.
pub(super) fn remove(folder: &Path) -> Result<()> {
    event_files(folder)?.iter().try_for_each(|path| std::fs::remove_file(path).map_err(Error::io(path)))
}

/// Cuts each event file of `folder` before its first event that is not to be kept; what follows it is later still. A
/// file that is damaged keeps what it has up to there, which is all that TensorBoard reads of it.
///
/// # Errors
/// Where a file cannot be read or cut.
pub(super) fn purge(folder: &Path, keep: impl Fn(&Event) -> bool) -> Result<()> {
    for path in event_files(folder)? {
        if let Some(end) = end(&path, &keep)? {
            let file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
            file.set_len(end).and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// The event files of a folder; none where there is no such folder.
fn event_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::io(folder))?,
    };
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path()));
    let paths = paths.collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_file() && is_event_file(path)).collect())
}

/// Where a file's first event lies that is not to be kept, in bytes.
fn end(path: &Path, keep: impl Fn(&Event) -> bool) -> Result<Option<u64>> {
    let mut events = EventReader::open(path)?;
    loop {
        let offset = events.offset();
        match events.next() {
            Some(Ok(event)) if keep(&event) => {}
            Some(Ok(_)) => return Ok(Some(offset)),
            Some(Err(Error::Damaged { .. })) | None => return Ok(None),
            Some(Err(error)) => return Err(error),
        }
    }
}
