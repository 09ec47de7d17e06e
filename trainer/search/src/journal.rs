//! The search's folder: what decides the candidates, and what was found of each.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tallow_builder::files::write_atomically;

use crate::basis::Candidate;
use crate::error::{Error, Result};

const HEADER: &str = "search.json";
const RESULTS: &str = "results.jsonl";
const CANDIDATES: &str = "candidates";
const LOCK: &str = ".lock";

/// What training a candidate has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The candidate's number.
    pub candidate: usize,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// The best epoch's validation top-1, 0 to 1; 0 where the training diverged.
    pub top1: f64,
    /// That epoch, from 1; 0 where there is none.
    pub epoch: u64,
    /// Seconds that its training took.
    pub seconds: f64,
    /// Why there is no accuracy, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
}

/// By the candidates' numbers.
pub type Results = BTreeMap<usize, Measured>;

/// A search's folder, kept from other processes while it is open.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    results: Results,
    log: File,
    /// Held until the end of the process, however that comes about.
    _lock: File,
}

impl Journal {
    /// Begins a search in `folder`, or goes on with the same one. `header` is all that decides the candidates.
    ///
    /// # Errors
    /// Where another search, something else or another process is there, or files are damaged.
    pub fn open(folder: &Path, header: &Value) -> Result<Self> {
        let kept = folder.join(HEADER);
        let is_ours = |entry: &std::ffi::OsStr| entry == LOCK;
        if !kept.is_file()
            && let Ok(mut entries) = std::fs::read_dir(folder)
            && entries.any(|entry| entry.is_ok_and(|entry| !is_ours(&entry.file_name())))
        {
            return Err(Error::NoSearch { folder: folder.to_owned() });
        }
        std::fs::create_dir_all(folder.join(CANDIDATES)).map_err(Error::io("create", folder))?;
        let lock = lock(folder)?;
        if kept.is_file() {
            let then = read_json(&kept)?;
            if let Some(difference) = difference(&then, header, "") {
                return Err(Error::AnotherSearch { folder: folder.to_owned(), difference });
            }
        } else {
            let text = serde_json::to_string_pretty(header).expect("a header is plain data");
            write_atomically(&kept, text.as_bytes())?;
        }
        let path = folder.join(RESULTS);
        let results = read_results(&path)?;
        let log =
            OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("write", &path))?;
        Ok(Self { folder: folder.to_owned(), results, log, _lock: lock })
    }

    /// What was found so far.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A candidate's run directory.
    pub fn run(&self, candidate: usize) -> PathBuf {
        self.folder.join(CANDIDATES).join(format!("{candidate:03}"))
    }

    /// Writes down what was found of a candidate.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn append(&mut self, found: Measured) -> Result<()> {
        let path = self.folder.join(RESULTS);
        let line = serde_json::to_string(&found).expect("a result is plain data") + "\n";
        self.log.write_all(line.as_bytes()).map_err(Error::io("write", &path))?;
        self.log.sync_data().map_err(Error::io("write", &path))?;
        self.results.insert(found.candidate, found);
        Ok(())
    }

    /// Refuses results of more candidates than there are.
    pub(crate) fn check_count(&self, candidates: usize) -> Result<()> {
        match self.results.keys().find(|&&index| index >= candidates) {
            Some(index) => {
                let problem =
                    format!("has a result of candidate {index}, and the search has {candidates}, from 0 on");
                Err(Error::Damaged { path: self.folder.join(RESULTS), problem })
            }
            None => Ok(()),
        }
    }

    /// Refuses results of another network under a candidate's number, as after an edit or with another version.
    pub(crate) fn check(&self, candidate: &Candidate) -> Result<()> {
        match self.results.get(&candidate.index) {
            Some(found) if (found.parameters, found.macs) != (candidate.parameters, candidate.macs) => {
                let problem =
                    format!("its candidate {} is another network than this search's", candidate.index);
                Err(Error::Damaged { path: self.folder.join(RESULTS), problem })
            }
            _ => Ok(()),
        }
    }
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(Error::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { folder: folder.to_owned() }),
        // Some network file systems have no locks; searching there is better than not searching.
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let damaged =
        |e| Error::Damaged { path: path.to_owned(), problem: format!("cannot be understood ({e})") };
    serde_json::from_str(&text).map_err(damaged)
}

/// Whole lines only: what a crash cut short is cut off, so that the next line begins at a line's beginning.
fn read_results(path: &Path) -> Result<Results> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Results::new()),
        other => other.map_err(Error::io("read", path))?,
    };
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    if whole.len() < text.len() {
        write_atomically(path, whole.as_bytes())?;
    }
    let read = |(line, text): (usize, &str)| {
        let damaged = |e: String| {
            let problem = format!("line {} cannot be understood ({e})", line + 1);
            Error::Damaged { path: path.to_owned(), problem }
        };
        let found: Measured = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if !(0.0..=1.0).contains(&found.top1) {
            return Err(damaged(format!("a top-1 of {} is no share", found.top1)));
        }
        Ok((found.candidate, found))
    };
    whole.lines().enumerate().map(read).collect()
}

/// The first thing that differs, such as `with config.epochs 3, not 5`.
fn difference(then: &Value, now: &Value, at: &str) -> Option<String> {
    if let (Value::Object(a), Value::Object(b)) = (then, now) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        return keys.into_iter().find_map(|key| {
            let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            difference(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), &path)
        });
    }
    (then != now).then(|| format!("with {at} {then}, not {now}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(candidate: usize) -> Measured {
        Measured {
            candidate,
            parameters: 1,
            macs: 2,
            top1: 0.1 + 0.2,
            epoch: 3,
            seconds: 4.5,
            diverged: None,
        }
    }

    #[test]
    fn results_read_back_and_a_line_cut_short_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("search");
        let mut journal = Journal::open(&path, &json!({"kind": "x"})).unwrap();
        journal.append(found(1)).unwrap();
        journal.append(found(0)).unwrap();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(path.join(RESULTS)).unwrap();
        file.write_all(b"{\"candidate\": 2, \"par").unwrap();
        let mut journal = Journal::open(&path, &json!({"kind": "x"})).unwrap();
        assert_eq!(journal.results().values().cloned().collect::<Vec<_>>(), [found(0), found(1)]);
        journal.append(found(2)).unwrap();
        drop(journal);
        let journal = Journal::open(&path, &json!({"kind": "x"})).unwrap();
        assert_eq!(journal.results().len(), 3);
        journal.check_count(3).unwrap();
        let error = journal.check_count(2).unwrap_err().to_string();
        assert!(error.contains("a result of candidate 2, and the search has 2"), "{error}");
        drop(journal);
        let text =
            std::fs::read_to_string(path.join(RESULTS)).unwrap().replace("\"top1\":0.3", "\"top1\":7.3");
        std::fs::write(path.join(RESULTS), text).unwrap();
        let error = Journal::open(&path, &json!({"kind": "x"})).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("is no share"), "{error}");
    }

    #[test]
    fn another_search_is_refused_with_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("search");
        let header = |epochs| json!({"config": {"epochs": epochs, "seed": 0}, "kind": "scaling"});
        let journal = Journal::open(&path, &header(3)).unwrap();
        assert!(matches!(Journal::open(&path, &header(3)), Err(Error::Busy { .. })));
        drop(journal);
        let error = Journal::open(&path, &header(5)).unwrap_err().to_string();
        assert!(error.contains("with config.epochs 3, not 5"), "{error}");
        std::fs::remove_file(path.join(HEADER)).unwrap();
        assert!(matches!(Journal::open(&path, &header(5)), Err(Error::NoSearch { .. })));
    }
}
