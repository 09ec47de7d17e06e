//! Files that are either the old or the new one, whole: written under a temporary name, synced, then renamed.
//! [`explained`] turns what the system says about a file into what to do about it, for the messages of every crate that
//! reads or writes one.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// What the system says, and what to do about it where that is known.
pub fn explained(error: &io::Error) -> String {
    let remedy = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "make room on that disk, or write to another"
        }
        ErrorKind::ReadOnlyFilesystem => "write to another disk, or make this one writable",
        ErrorKind::PermissionDenied => "change its permissions or its folder's, or choose another place",
        ErrorKind::IsADirectory => "a folder has that name: name a file",
        ErrorKind::NotFound => "check the path",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file is where the path needs a folder; choose another path"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {remedy}")
}

/// Replaces the file at `path` by `bytes`: a reader, a crash or a full disk finds the old content or the new, never a
/// part.
///
/// # Errors
/// Where the folder cannot be written; nothing is left behind then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomically`], for content that is written piece by piece.
///
/// # Errors
/// As [`write_atomically`], and those of `write`.
pub fn write_atomically_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.exists() {
        let folder = folder.display();
        let missing = format!("the folder {folder} does not exist: make it, or choose another path");
        return Err(Error::Io { path: path.to_owned(), source: io::Error::other(missing) });
    }
    let mut options = tempfile::Builder::new();
    options.prefix(".tallow-");
    // A temporary file is its owner's alone by default; what people ship is as readable as any other file.
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let replace = || {
        // tempfile names its own random path beside the reason, which tells a reader nothing.
        let mut file = options.tempfile_in(folder).map_err(|error| io::Error::from(error.kind()))?;
        let mut buffered = BufWriter::new(file.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    replace().map(drop).map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_helped_comes_with_its_remedy() {
        for (kind, remedy) in [
            (ErrorKind::StorageFull, "make room"),
            (ErrorKind::ReadOnlyFilesystem, "another disk"),
            (ErrorKind::PermissionDenied, "permissions"),
        ] {
            let error = Error::Io { path: "runs/x".into(), source: kind.into() }.to_string();
            assert!(error.starts_with("runs/x: ") && error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write_atomically(&path, b"old").unwrap();
        let failed = write_atomically_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the disk is full"))
        });
        assert!(failed.unwrap_err().to_string().contains("state.json: the disk is full"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing =
            write_atomically(&folder.path().join("none/state.json"), b"new").unwrap_err().to_string();
        assert!(missing.contains("none does not exist: make it"), "{missing}");
    }
}
