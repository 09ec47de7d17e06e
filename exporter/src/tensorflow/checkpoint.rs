//! A checkpoint of TensorFlow 1: `model.ckpt-<step>.meta`, `.index` and `.data-00000-of-00001`, and the text file
//! `checkpoint` that names the newest.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use tallow_builder::{Graph, Weights};
use tallow_tensorflow::bundle::{BundleWriter, data_path, index_path};
use tallow_tensorflow::proto::{DataType, TensorShape};

use super::meta_graph::meta_graph;
use super::saver::Stored;
use super::variables::variables;
use crate::atomic::{Existing, temporary_directory, write_file};
use crate::error::{Error, Result};
use crate::passes;

/// The variable that counts the steps of training.
const GLOBAL_STEP: &str = "global_step";
/// The file that names the newest checkpoint of a directory.
const STATE: &str = "checkpoint";

/// How many steps of the optimiser made the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub u64);

/// A checkpoint that has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What TensorFlow calls it: the path of its files without their ends.
    pub prefix: PathBuf,
}

impl Checkpoint {
    /// Its files.
    pub fn files(&self) -> [PathBuf; 3] {
        [meta_path, |prefix: &Path| data_path(prefix, 0, 1), index_path].map(|path| path(&self.prefix))
    }
}

/// Writes a checkpoint into `directory`, beside those that are there, as
/// `<directory>/model.ckpt-<step>`. The graph in `.meta` is the inference graph; variables are named as in
/// [`super::SavedModel`], and `global_step` is the step.
///
/// # Errors
/// Where a checkpoint of that step is there and may not be replaced, or the directory cannot be written.
pub fn write_checkpoint(
    directory: &Path,
    graph: &Graph,
    weights: &Weights,
    step: Step,
    existing: Existing,
) -> Result<Checkpoint> {
    let made = !directory.exists();
    fs::create_dir_all(directory).map_err(|source| Error::Io { path: directory.to_owned(), source })?;
    let written = write_into(directory, graph, weights, step, existing);
    if written.is_err() && made {
        // Empty, unless the state file alone could not be written; where it is not, it stays.
        let _ = fs::remove_dir(directory);
    }
    written
}

fn write_into(
    directory: &Path,
    graph: &Graph,
    weights: &Weights,
    step: Step,
    existing: Existing,
) -> Result<Checkpoint> {
    let name = format!("model.ckpt-{}", step.0);
    let prefix = directory.join(&name);
    if existing == Existing::Keep && index_path(&prefix).exists() {
        return Err(Error::Exists { path: prefix });
    }
    // In a directory of its own first: the three files belong together.
    let work = temporary_directory(&prefix)?;
    let fresh = work.path().join(&name);
    write_files(&fresh, graph, weights, step).map_err(|error| error.moved(work.path(), directory))?;
    let written = Checkpoint { prefix };
    // The index comes last: without it the others are no checkpoint.
    for (from, to) in (Checkpoint { prefix: fresh }).files().iter().zip(written.files()) {
        fs::rename(from, &to).map_err(|source| Error::Io { path: to, source })?;
    }
    write_state(directory, &name)?;
    Ok(written)
}

fn write_files(prefix: &Path, graph: &Graph, weights: &Weights, step: Step) -> Result<()> {
    let (inference, weights) = passes::remove_training(graph, weights)?;
    let variables = variables(&inference);
    let mut stored: Vec<Stored> = variables.iter().map(|v| Stored::new(v, v.name.clone())).collect();
    let shape = TensorShape::default();
    let (name, key) = (GLOBAL_STEP.to_owned(), GLOBAL_STEP.to_owned());
    stored.push(Stored { name, key, dtype: DataType::Int64, shape, trainable: false });
    stored.sort_by(|a, b| a.key.cmp(&b.key));

    let mut bundle = BundleWriter::create(prefix)?;
    for Stored { key, .. } in &stored {
        match variables.iter().find(|variable| variable.name == *key) {
            Some(variable) => bundle.add_f32(key, &variable.shape, &variable.value(&weights)?)?,
            None => bundle.add_i64(key, step.0 as i64)?,
        }
    }
    bundle.finish()?;
    let meta = meta_path(prefix);
    let bytes = meta_graph(&inference, &stored, None, None, false).encode_to_vec();
    fs::write(&meta, bytes).map_err(|source| Error::Io { path: meta, source })
}

fn meta_path(prefix: &Path) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(".meta");
    path.into()
}

/// Names `newest` first and keeps the others that the file names and that are still there.
fn write_state(directory: &Path, newest: &str) -> Result<()> {
    let path = directory.join(STATE);
    let before = fs::read_to_string(&path).unwrap_or_default();
    let others = before
        .lines()
        .filter_map(|line| line.strip_prefix("all_model_checkpoint_paths: \"")?.strip_suffix('"'));
    let kept = others.filter(|name| *name != newest && index_path(&directory.join(name)).is_file());
    let mut text = format!("model_checkpoint_path: \"{newest}\"\n");
    for name in kept.chain([newest]) {
        text += &format!("all_model_checkpoint_paths: \"{name}\"\n");
    }
    write_file(&path, Existing::Replace, |file| std::io::Write::write_all(file, text.as_bytes()))
}

/// The newest checkpoint of a directory, as its state file names it: the bundle's prefix.
pub(super) fn latest(directory: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(directory.join(STATE)).ok()?;
    let name =
        text.lines().find_map(|line| line.strip_prefix("model_checkpoint_path: \"")?.strip_suffix('"'))?;
    Some(directory.join(name))
}
