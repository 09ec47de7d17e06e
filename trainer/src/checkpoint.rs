//! Checkpoints: everything a run needs to go on as if it had never stopped, written so that a crash at any moment
//! leaves a whole one.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use tallow_builder::files::write_atomically;
use tallow_builder::weights::{read_safetensors, write_safetensors};
use tallow_builder::{Graph, Weights};

use crate::error::{Error, Result};
use crate::evaluate::is_finite;
use crate::metrics::Running;
use crate::metrics::csv::Validation;
use crate::optim::State;

const FORMAT: u32 = 1;
const WEIGHTS: &str = "weights.safetensors";
const EMA: &str = "ema.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Where a run stands. All random numbers are keyed by seed, epoch and batch, so this is their state, too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Version of this layout.
    format: u32,
    /// The epoch under way, from 0.
    pub epoch: u64,
    /// The next batch of that epoch.
    pub batch: usize,
    /// Optimiser steps taken.
    pub steps: u64,
    /// Loss and accuracies of the epoch under way.
    pub running: Running,
    /// Seconds spent on the epoch under way.
    pub seconds: f64,
    /// The best validation so far.
    pub best: Option<Best>,
}

/// The best epoch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The epoch, from 1.
    pub epoch: u64,
    /// What its validation found.
    pub validation: Validation,
}

impl Position {
    /// The beginning of a run.
    pub fn start(classes: usize) -> Self {
        let running = Running::new(classes);
        Self { format: FORMAT, epoch: 0, batch: 0, steps: 0, running, seconds: 0.0, best: None }
    }
}

/// A run's state, on its way to or from a folder.
pub struct Checkpoint {
    /// Parameters and running moments.
    pub weights: Weights,
    /// The average of the weights, where the run keeps one.
    pub ema: Option<Weights>,
    /// The optimiser's tensors.
    pub optimizer: State,
    /// Where the run stands.
    pub position: Position,
}

impl Checkpoint {
    /// The checkpoint that may stand in for a damaged one: the best for the last, else the last.
    pub(crate) fn other(path: &Path) -> PathBuf {
        let is_last = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("last"));
        path.with_file_name(if is_last { "best" } else { "last" })
    }

    /// Writes the checkpoint as the folder `path`, replacing an older one: everything goes to a temporary folder
    /// first, and a crash between the renames is mended by [`Self::read`].
    ///
    /// # Errors
    /// Where the disk is full or not writable; the older checkpoint stays.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.replace(path).map_err(|error| not_written(path, error))
    }

    fn replace(&self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let mut options = tempfile::Builder::new();
        options.prefix(".unfinished-");
        // A temporary folder is its owner's alone by default; what people ship is as readable as any other folder.
        #[cfg(unix)]
        options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let folder = options.tempdir_in(parent).map_err(Error::io("create a folder in", parent))?;
        self.fill(folder.path())?;
        sync(folder.path())?;
        let old = replaced(path);
        // Where a crash left only the replaced one, it stays until the new one is in place.
        if path.exists() {
            remove(&old)?;
            std::fs::rename(path, &old).map_err(Error::io("rename", path))?;
        }
        std::fs::rename(folder.keep(), path).map_err(Error::io("write", path))?;
        sync(parent)?;
        remove(&old)
    }

    fn fill(&self, folder: &Path) -> Result<()> {
        self.weights.save(&folder.join(WEIGHTS))?;
        if let Some(ema) = &self.ema {
            ema.save(&folder.join(EMA))?;
        }
        write_safetensors(&folder.join(OPTIMIZER), &self.optimizer)?;
        let state = folder.join(STATE);
        let text = serde_json::to_string_pretty(&self.position).expect("a position is plain data");
        // JSON has no NaN: a position that does not read back as it is must not take the place of one that does.
        if serde_json::from_str::<Position>(&text).ok().as_ref() != Some(&self.position) {
            let reason = "its losses are no finite numbers".into();
            return Err(Error::CheckpointNotWritten { path: state, reason, kept: false });
        }
        Ok(write_atomically(&state, text.as_bytes())?)
    }

    /// Reads the checkpoint in the folder `path`.
    ///
    /// # Errors
    /// Where there is none, a file is cut short, or it belongs to another network.
    pub fn read(path: &Path, graph: &Graph, device: &Device) -> Result<Self> {
        let path = &whole(path);
        let position = read_position(path)?;
        let damaged = |error| damaged(path, error);
        let weights = Weights::load(graph, &path.join(WEIGHTS), device).map_err(damaged)?;
        let ema = path.join(EMA);
        let ema =
            if ema.exists() { Some(Weights::load(graph, &ema, device).map_err(damaged)?) } else { None };
        let optimizer = read_safetensors(&path.join(OPTIMIZER), device).map_err(damaged)?;
        Ok(Self { weights, ema, optimizer, position })
    }

    /// Reads what a checkpoint is for besides going on: the weights to evaluate and export, which are the average
    /// where there is one.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_weights(path: &Path, graph: &Graph, device: &Device) -> Result<(Weights, Position)> {
        let path = &whole(path);
        let position = read_position(path)?;
        let file = Self::weights_file(path);
        let weights = Weights::load(graph, &file, device).map_err(|error| damaged(path, error))?;
        Ok((weights, position))
    }

    /// The file with the weights that [`Self::read_weights`] reads, for networks that share some of them.
    pub fn weights_file(path: &Path) -> PathBuf {
        let path = whole(path);
        let ema = path.join(EMA);
        if ema.exists() { ema } else { path.join(WEIGHTS) }
    }

    /// The first tensor that holds NaN or an infinity.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn first_non_finite(&self) -> Result<Option<String>> {
        let floats = |(_, tensor): &(&str, &Tensor)| tensor.dtype() == DType::F32;
        let states = self.optimizer.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let weights = self.weights.iter().chain(self.ema.iter().flat_map(Weights::iter));
        for (name, tensor) in weights.chain(states).filter(floats) {
            if !is_finite(tensor)? {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// Whether `path` holds a checkpoint.
    pub fn exists(path: &Path) -> bool {
        whole(path).join(STATE).is_file()
    }
}

/// The folder that a checkpoint has while a newer one takes its place.
fn replaced(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".replaced-{name}"))
}

/// `path`, or its predecessor where a crash came between the two renames.
fn whole(path: &Path) -> PathBuf {
    let old = replaced(path);
    if !path.exists() && old.exists() { old } else { path.to_owned() }
}

/// Sees to it that a folder's names are on the disk, so that a power loss cannot undo a rename.
fn sync(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io("sync", folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", folder)(e)),
        _ => Ok(()),
    }
}

fn damaged(path: &Path, problem: impl ToString) -> Error {
    Error::Checkpoint { path: path.to_owned(), problem: problem.to_string() }
}

/// The system's reason alone: the file it names is a temporary one.
fn not_written(path: &Path, error: Error) -> Error {
    let reason = match error {
        // tempfile puts its own random path beside the system's reason.
        Error::Io { source, .. } | Error::Builder(tallow_builder::Error::Io { source, .. }) => {
            source.raw_os_error().map_or(source.kind().into(), std::io::Error::from_raw_os_error).to_string()
        }
        Error::CheckpointNotWritten { reason, .. } => reason,
        other => other.to_string(),
    };
    let kept = Checkpoint::exists(path) || Checkpoint::exists(&Checkpoint::other(path));
    Error::CheckpointNotWritten { path: path.to_owned(), reason, kept }
}

fn read_position(path: &Path) -> Result<Position> {
    let file = path.join(STATE);
    let text = std::fs::read_to_string(&file).map_err(Error::io("read", &file))?;
    let damaged = |problem| damaged(path, format!("{}: {problem}", file.display()));
    let position: Position = serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
    if position.format != FORMAT {
        return Err(damaged(format!("written in format {}, this version reads {FORMAT}", position.format)));
    }
    Ok(position)
}
