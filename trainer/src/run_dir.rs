//! The run directory: settings, network, labels, metrics, pictures and checkpoints of one training run.

use std::path::{Path, PathBuf};

use tallow_builder::Graph;

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result};

/// A folder that holds one run.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes the folder and writes what does not change during a run.
    ///
    /// # Errors
    /// Where the folder exists and is not empty: nothing is overwritten.
    pub fn create(path: &Path, config: &Config, graph: &Graph, labels: &[String]) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        if std::fs::read_dir(path).map_err(Error::io("read", path))?.next().is_some() {
            return Err(Error::RunExists { path: path.to_owned(), remedy: way_out(path) });
        }
        let run = Self(path.to_owned());
        run.write_config(config)?;
        let network = serde_json::to_string_pretty(graph).expect("a graph is plain data");
        run.write("network.json", &network)?;
        run.write("labels.txt", &(labels.join("\n") + "\n"))?;
        Ok(run)
    }

    /// Opens the folder of an earlier run.
    ///
    /// # Errors
    /// Where there is no run.
    pub fn open(path: &Path) -> Result<Self> {
        let run = Self(path.to_owned());
        if run.file("config.toml").is_file() && run.file("network.json").is_file() {
            return Ok(run);
        }
        Err(Error::NoRun { path: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The settings the run was started with.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn config(&self) -> Result<Config> {
        Config::read(&self.file("config.toml"))
    }

    /// Keeps changed settings, such as more epochs.
    pub(crate) fn write_config(&self, config: &Config) -> Result<()> {
        self.write("config.toml", &config.to_toml())
    }

    /// The network the run trains.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub fn graph(&self) -> Result<Graph> {
        let path = self.file("network.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        serde_json::from_str(&text).map_err(|e| Error::Config { path, problem: e.to_string() })
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

/// What to do about a folder that is not empty.
fn way_out(path: &Path) -> &'static str {
    match RunDir::open(path) {
        Ok(run) if run.has_checkpoint() => {
            "holds a run: go on with it by --resume, or choose another folder with --run"
        }
        Ok(_) => {
            "holds a run that stopped before its first checkpoint: remove it, or choose another folder with --run"
        }
        Err(_) => "is not empty and holds no run: choose another folder with --run",
    }
}
