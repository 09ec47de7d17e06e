//! What a command may be pointed at: a run directory, a SavedModel, an `.onnx` file, a network of the zoo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::Device;
use tallow_builder::{Graph, Weights};
use tallow_exporter::is_weights;
use tallow_exporter::tensorflow::SavedModel;
use tallow_hub::HUB;
use tallow_input::{CERTIFICATE_KEY, ModelCard};
use tallow_runtime::{Certified, ModelInfo};
use tallow_trainer::RunDir;
use tallow_trainer::checkpoint::Checkpoint;

use crate::output::note;

/// A network with its weights and the card that describes it.
pub struct Trained {
    pub graph: Graph,
    pub weights: Weights,
    pub card: ModelCard,
    /// Steps of the optimiser, 0 where nobody knows.
    pub steps: u64,
}

/// Whether `path` holds a training run.
pub fn is_run(path: &Path) -> bool {
    RunDir::open(path).is_ok()
}

/// A trained network out of a run directory (its best checkpoint) or a SavedModel.
pub fn open_trained(path: &Path) -> Result<Trained> {
    if is_run(path) {
        return open_run(path);
    }
    if path.is_file() {
        bail!("{} is a file: name the run directory or the SavedModel it came from", path.display());
    }
    if !path.exists() {
        bail!("{} does not exist: name a run directory, such as runs/quickstart", path.display());
    }
    if !SavedModel::is_at(path) {
        bail!(
            "{} is neither a run directory nor a SavedModel of Tallow's: name one, such as runs/quickstart",
            path.display()
        );
    }
    let model = SavedModel::open(path)?;
    let weights = model.load_weights(&Device::Cpu)?;
    Ok(Trained { graph: model.graph().clone(), weights, card: model.card().clone(), steps: 0 })
}

/// The error for a run without a checkpoint.
pub fn no_checkpoint(run: &Path) -> anyhow::Error {
    let config = run.join("config.toml");
    let (run, config) = (run.display(), config.display());
    anyhow!(
        "{run} has no checkpoint: it stopped before its first; start it anew with `tallow train --config {config} --run \
         {run}`"
    )
}

fn open_run(path: &Path) -> Result<Trained> {
    let run = RunDir::open(path)?;
    let config = run.config()?;
    let graph = run.graph()?;
    if !run.has_checkpoint() {
        return Err(no_checkpoint(path));
    }
    let (weights, position) = Checkpoint::read_weights(&run.best(), &graph, &Device::Cpu)?;
    let mut card = ModelCard::new(graph.name(), run.labels()?, config.preprocess()?);
    card.dataset = Some(config.data_name());
    if let Some(best) = position.best {
        let found = best.validation;
        let metrics = [
            ("epoch", best.epoch as f64),
            ("validation_loss", found.loss),
            ("validation_top1", found.top1),
            ("validation_top5", found.top5),
        ];
        card.metrics = metrics.map(|(name, value)| (name.to_owned(), value)).into();
    }
    Ok(Trained { graph, weights, card, steps: position.steps })
}

/// The run or SavedModel that an `.onnx` file lies in, if it does: candle's side of a comparison.
pub fn origin_of(onnx: &Path) -> Option<PathBuf> {
    if let Some(model) = SavedModel::around(onnx) {
        return Some(model);
    }
    let parent = match onnx.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    parent.join("network.json").is_file().then(|| parent.to_owned())
}

/// Whether `path` names weights, in a file or of the hub, where a command may want a model.
pub fn names_weights(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(HUB)) || is_weights(path)
}

/// The flags that name weights where a command takes them.
pub fn weights_flags(weights: &Path) -> String {
    let describes_itself = weights.to_str().is_some_and(|name| name.starts_with(HUB));
    format!("--weights {}{}", weights.display(), if describes_itself { "" } else { " --model NETWORK" })
}

/// The `.onnx` file that `path` names: itself, or the one in a run directory or SavedModel.
pub fn onnx_file(path: &Path) -> Result<PathBuf> {
    if names_weights(path) {
        bail!(
            "{} names weights, not an ONNX model: make one of them with `tallow export {} -o model.onnx`",
            path.display(),
            weights_flags(path)
        );
    }
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    if SavedModel::is_at(path) {
        return Ok(SavedModel::open(path)?.onnx_path());
    }
    let file = path.join("model.onnx");
    if file.is_file() {
        return Ok(file);
    }
    if is_run(path) {
        bail!("{} has no model.onnx yet: run `tallow export {}` first", path.display(), path.display());
    }
    bail!("{} holds no model.onnx: name an .onnx file, a run directory or a SavedModel", path.display())
}

/// Notes on standard error where `file` has a certificate that is not about it any more. Only a file with a certificate
/// is read and hashed for that.
pub fn note_if_altered(file: &Path, info: &ModelInfo) {
    if !info.props.iter().any(|(key, _)| key == CERTIFICATE_KEY) {
        return;
    }
    // The model runs already: what cannot be read now is no reason to stop.
    let certified = std::fs::read(file).ok().and_then(|bytes| Certified::read(&info.file, &bytes).ok());
    if matches!(certified, Some(Certified::Altered(_))) {
        note!(
            "{}: was changed after it was verified (its certificate says ALTERED); verify it again with `tallow verify`",
            file.display()
        );
    }
}

/// The first of `path`, `path-2`, `path-3`, … that does not exist: nothing is overwritten.
pub fn free(path: &Path) -> PathBuf {
    let numbered = (2..).map(|n| PathBuf::from(format!("{}-{n}", path.display())));
    std::iter::once(path.to_owned()).chain(numbered).find(|path| !path.exists()).expect("numbers do not end")
}

/// Class names from a text file, one a line. Empty lines at the end are no names.
pub fn read_labels(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end().lines().map(str::to_owned).collect())
}
