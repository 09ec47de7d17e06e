//! Forgets what an interrupted run wrote after the checkpoint that a resumed one goes on from: those steps come again.

use std::fs::OpenOptions;
use std::path::Path;

use tallow_tensorflow::event::{Event, EventReader, is_event_file};
use tallow_tensorflow::{Error, Result};

/// Cuts each event file of `folder` before its first event that is not to be kept; what follows it is later still. A
/// file that is damaged keeps what it has up to there, which is all that TensorBoard reads of it.
///
/// # Errors
/// Where a file cannot be read or cut.
pub(super) fn purge(folder: &Path, keep: impl Fn(&Event) -> bool) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_file()
            && is_event_file(&path)
            && let Some(end) = end(&path, &keep)?
        {
            let file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
            file.set_len(end).and_then(|()| file.sync_all()).map_err(Error::io(&path))?;
        }
    }
    Ok(())
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
