//! The run directory: settings, network, labels, metrics, pictures and checkpoints of one training run.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tallow_builder::Graph;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::data::Fingerprint;
use crate::error::{Error, Result};

const LOCK: &str = ".lock";
const DATA: &str = "data.json";

/// A folder that holds one run.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Held while training; the system takes it back when the process ends, however that comes about.
    _lock: Option<Arc<File>>,
}

impl RunDir {
    /// Makes the folder, keeps others from training in it, and writes what does not change during a run.
    ///
    /// # Errors
    /// Where the folder exists and is not empty: nothing is overwritten, but for a run that never came to a
    /// checkpoint. Where another process trains in it.
    pub fn create(
        path: &Path,
        config: &Config,
        graph: &Graph,
        labels: &[String],
        data: &Fingerprint,
    ) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let run = match Self::open(path) {
            Ok(run) => run.locked()?,
            Err(_) if is_empty(path)? => Self { path: path.to_owned(), _lock: None }.locked()?,
            // Another process may be about to write here what makes it a run.
            Err(_) if Self::is_busy(path) => return Err(Error::RunBusy { path: path.to_owned() }),
            Err(_) => {
                let remedy = "is not empty and holds no run: choose another folder with --run";
                return Err(Error::RunExists { path: path.to_owned(), remedy });
            }
        };
        if run.has_checkpoint() {
            let remedy = "holds a run: go on with it by --resume, or choose another folder with --run";
            return Err(Error::RunExists { path: path.to_owned(), remedy });
        }
        let metrics = run.file("metrics.csv");
        if metrics.exists() {
            std::fs::remove_file(&metrics).map_err(Error::io("remove", &metrics))?;
        }
        run.write_fingerprint(data)?;
        run.write_config(config)?;
        let network = serde_json::to_string_pretty(graph).expect("a graph is plain data");
        run.write("network.json", &network)?;
        run.write("labels.txt", &(labels.join("\n") + "\n"))?;
        Ok(run)
    }

    /// The folder of a run that another process keeps: nothing is made, locked or written.
    pub(crate) fn kept_elsewhere(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None }
    }

    /// Opens the folder of an earlier run.
    ///
    /// # Errors
    /// Where there is no run.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Self { path: path.to_owned(), _lock: None };
        if run.file("config.toml").is_file() && run.file("network.json").is_file() {
            return Ok(run);
        }
        Err(Error::NoRun { path: path.to_owned() })
    }

    /// The same, kept from being trained in by anybody else until it is dropped.
    ///
    /// # Errors
    /// Where another process trains in it, or the folder cannot be written.
    pub(crate) fn locked(self) -> Result<Self> {
        let path = self.file(LOCK);
        let file = File::create(&path).map_err(Error::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _lock: Some(Arc::new(file)), ..self }),
            Err(TryLockError::WouldBlock) => Err(Error::RunBusy { path: self.path }),
            // Some network file systems have no locks; training there is better than not training.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => Ok(self),
            Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
        }
    }

    /// Whether a process trains in the folder at this moment, or is about to.
    pub fn is_busy(path: &Path) -> bool {
        let run = Self { path: path.to_owned(), _lock: None };
        run.file(LOCK).is_file() && matches!(run.locked(), Err(Error::RunBusy { .. }))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The settings the run was started with.
    ///
    /// # Errors
    /// As [`Config::read`], and where the file was cut short.
    pub fn config(&self) -> Result<Config> {
        Config::read_kept(&self.file("config.toml"))
    }

    /// Keeps changed settings, such as more epochs.
    pub(crate) fn write_config(&self, config: &Config) -> Result<()> {
        self.write("config.toml", &config.to_toml())
    }

    /// What the run is trained on; `None` for a run from before this was kept.
    pub(crate) fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        let path = self.file(DATA);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", &path))?,
        };
        let problem =
            |e| format!("cannot be understood ({e}): restore it, or remove it if the data is what it was");
        serde_json::from_str(&text).map(Some).map_err(|e| Error::Config { path, problem: problem(e) })
    }

    pub(crate) fn write_fingerprint(&self, data: &Fingerprint) -> Result<()> {
        self.write(DATA, &serde_json::to_string_pretty(data).expect("a fingerprint is plain data"))
    }

    /// The network the run trains.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn graph(&self) -> Result<Graph> {
        let path = self.file("network.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let problem =
            |e| format!("cannot be understood ({e}): restore it, or train again; the weights need it");
        serde_json::from_str(&text).map_err(|e| Error::Config { path, problem: problem(e) })
    }

    /// The class names, in the order of the labels.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn labels(&self) -> Result<Vec<String>> {
        let path = self.file("labels.txt");
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Whether the run has a checkpoint to go on from.
    pub fn has_checkpoint(&self) -> bool {
        Checkpoint::exists(&self.best())
    }

    /// The newest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.file("checkpoints/last")
    }

    /// The checkpoint with the best validation, or the newest where no epoch has been validated yet.
    pub fn best(&self) -> PathBuf {
        let best = self.file("checkpoints/best");
        if Checkpoint::exists(&best) { best } else { self.last() }
    }

    /// Writes a file by way of a temporary one.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(tallow_builder::files::write_atomically(&self.file(name), text.as_bytes())?)
    }
}

/// Whether there is nothing in a folder but, perhaps, the lock of a run that got no further.
fn is_empty(path: &Path) -> Result<bool> {
    let mut entries = std::fs::read_dir(path).map_err(Error::io("read", path))?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_folder_is_free_again_once_its_holder_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir { path: folder.path().to_owned(), _lock: None };
        let held = run.clone().locked().unwrap();
        let text = run.clone().locked().unwrap_err().to_string();
        assert!(text.contains("another process trains"), "{text}");
        drop(held);
        assert!(!RunDir::is_busy(folder.path()));
        let _held = run.locked().unwrap();
        assert!(RunDir::is_busy(folder.path()));
    }
}
