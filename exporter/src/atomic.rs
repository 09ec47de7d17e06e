//! Files and directories that appear whole or not at all, and that replace others only when told to.
//! Both are made under a temporary name beside their place and renamed when complete.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use tallow_builder::files::write_atomically_with;
use tempfile::TempDir;

use crate::error::{Error, Result};

/// What to do about a file or model directory that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and fail.
    #[default]
    Keep,
    /// Put the new one in its place once that is complete.
    Replace,
}

impl Existing {
    /// Whether a file may be written at `path`, before the work that makes it.
    ///
    /// # Errors
    /// Where its folder is not there, or something is in the way.
    pub fn check_file(self, path: &Path) -> Result<()> {
        check_place(path, self)?;
        // A rename would put a file in the place of a device or of a link's target.
        if path.exists() && !path.is_file() {
            return Err(Error::NoFile { path: path.to_owned() });
        }
        Ok(())
    }
}

/// Writes a file.
pub(crate) fn write_file(
    path: &Path,
    existing: Existing,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> Result<()> {
    existing.check_file(path)?;
    Ok(write_atomically_with(path, write)?)
}

/// Fills a new directory. Where one is to be replaced, it is moved aside first and back if anything fails.
pub(crate) fn write_directory(
    path: &Path,
    existing: Existing,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    check_place(path, existing)?;
    let fresh = temporary_directory(path)?;
    let content = fresh.path().join("new");
    fs::create_dir(&content).map_err(failed)?;
    fill(&content).map_err(|error| error.moved(&content, path))?;
    let old = fresh.path().join("old");
    let replaced = path.exists();
    if replaced {
        fs::rename(path, &old).map_err(failed)?;
    }
    fs::rename(&content, path).map_err(|source| {
        if replaced && fs::rename(&old, path).is_err() {
            // Better a leftover than a lost model.
            return Error::Io { path: fresh.keep(), source };
        }
        failed(source)
    })
}

/// Whether something may be written at `path`: its folder is there, and nothing is in the way.
fn check_place(path: &Path, existing: Existing) -> Result<()> {
    let folder = parent(path);
    if !folder.is_dir() {
        return Err(Error::NoFolder { path: path.to_owned(), folder });
    }
    if existing == Existing::Keep && path.exists() && !is_device(path) {
        return Err(Error::Exists { path: path.to_owned() });
    }
    Ok(())
}

/// Neither file nor folder: nothing that --force would help with.
fn is_device(path: &Path) -> bool {
    !path.is_file() && !path.is_dir()
}

/// A hidden directory beside `path`, so that renaming stays within one file system; removed when dropped.
pub(crate) fn temporary_directory(path: &Path) -> Result<TempDir> {
    let mut options = tempfile::Builder::new();
    #[cfg(unix)]
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    // tempfile names its own random path beside the reason, which tells a reader nothing.
    let failed = |error: io::Error| Error::Io { path: path.to_owned(), source: error.kind().into() };
    options.tempdir_in(parent(path)).map_err(failed)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_kept_or_replaced_as_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_file(&path, Existing::Keep, |f| f.write_all(b"one")).unwrap();
        let text = write_file(&path, Existing::Keep, |f| f.write_all(b"two")).unwrap_err().to_string();
        assert!(text.starts_with(&path.display().to_string()) && text.contains("already exists"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_file(&path, Existing::Replace, |f| f.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(entries(folder.path()), ["file"]);
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "old").unwrap();
        let result = write_file(&path, Existing::Replace, |f| {
            f.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(result.unwrap_err().to_string(), format!("{}: disk full", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["file"]);
    }

    #[test]
    fn a_directory_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let fill = |name: &'static str| {
            move |dir: &Path| -> Result<()> {
                fs::write(dir.join(name), name).unwrap();
                Ok(())
            }
        };
        write_directory(&path, Existing::Keep, fill("one")).unwrap();
        assert!(matches!(write_directory(&path, Existing::Keep, fill("two")), Err(Error::Exists { .. })));
        let failure = |dir: &Path| {
            fs::write(dir.join("half"), "half").unwrap();
            Err(Error::Layer { layer: "conv".into(), problem: "broken".into() })
        };
        write_directory(&path, Existing::Replace, failure).unwrap_err();
        assert_eq!(entries(&path), ["one"]);
        let full = |dir: &Path| -> Result<()> {
            let failed = |source| Error::Io { path: dir.join("assets/labels.txt"), source };
            Err(failed(io::ErrorKind::StorageFull.into()))
        };
        let text = write_directory(&path, Existing::Replace, full).unwrap_err().to_string();
        let place = path.join("assets/labels.txt").display().to_string();
        assert!(text.starts_with(&place) && text.contains("make room"), "{text}");
        write_directory(&path, Existing::Replace, fill("two")).unwrap();
        assert_eq!(entries(&path), ["two"]);
        assert_eq!(entries(folder.path()), ["model"]);
    }

    #[test]
    fn a_missing_parent_is_an_error_that_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no/such/file");
        let text = write_file(&path, Existing::Keep, |f| f.write_all(b"x")).unwrap_err().to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
        assert!(text.contains("create it first") && !text.contains(".tallow-"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_folders_are_not_replaced_by_files() {
        let folder = tempfile::tempdir().unwrap();
        for place in [Path::new("/dev/null"), folder.path()] {
            let result = write_file(place, Existing::Replace, |f| f.write_all(b"x"));
            assert!(matches!(result, Err(Error::NoFile { .. })), "{result:?}");
            assert!(!place.is_file());
        }
    }
}
