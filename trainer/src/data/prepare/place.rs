//! Where shards may be made: of what, and in which folder. Nothing that somebody else wrote is overwritten.

use std::fs;
use std::path::Path;

use tallow_tensorflow::shards;

use super::Journal;
use super::metadata::FILES;
use crate::error::{Error, Result};
use crate::run_dir::RunDir;

/// Refuses the embedded data set, shards among the images that they are made of, and a folder that holds files of
/// others by the names that are to be written.
///
/// # Errors
/// With what is wrong with `source` or `out`.
pub fn refuse(source: &Path, out: &Path) -> Result<()> {
    refuse_source(source)?;
    // What is yet to be created lies where the nearest folder above it does.
    let there = out.ancestors().find(|folder| folder.exists()).filter(|folder| *folder != Path::new(""));
    let there = fs::canonicalize(there.unwrap_or(Path::new("."))).map_err(Error::io("read", out))?;
    let root = fs::canonicalize(source).map_err(Error::io("read", source))?;
    if there.starts_with(root) {
        let problem =
            format!("shards cannot lie among the images of {}: choose another folder", source.display());
        return refused(out, problem);
    }
    if RunDir::open(out).is_ok() {
        return refused(out, "is the folder of a training run: choose another folder".into());
    }
    if !out.is_dir() || Journal::exists(out) {
        return Ok(());
    }
    if !shards::find(out).map_err(Error::Records)?.is_empty() {
        let problem =
            "holds shards already, and nothing that tells how they were made: choose another folder";
        return refused(out, problem.into());
    }
    match FILES.into_iter().find(|name| out.join(name).exists()) {
        Some(name) => refused(
            out,
            format!("holds a {name} of another's, which is not overwritten: choose another folder"),
        ),
        None => Ok(()),
    }
}

fn refuse_source(source: &Path) -> Result<()> {
    if source.is_dir() {
        return Ok(());
    }
    match source.to_str() {
        Some("digits") => {
            let problem = "this data set is embedded and needs no shards: train on it with --data digits";
            refused(source, problem.into())
        }
        _ => Err(Error::NoSuchFolder { path: source.to_owned() }),
    }
}

fn refused(path: &Path, problem: String) -> Result<()> {
    Err(Error::Shards { path: path.to_owned(), problem })
}
