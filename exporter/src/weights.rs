//! Weights of a network out of whatever file has them.

use std::path::{Path, PathBuf};

use candle_core::Device;
use tallow_builder::weights::read_safetensors;
use tallow_builder::{Graph, Weights};

use crate::adopt::{Head, adopt};
use crate::error::{Error, Result};
use crate::kind::{Kind, kind_of};
use crate::sound;
use crate::tensorflow::{bundle_at, checkpoints, is_saved_model, read_variables};
use crate::torch::read_state_dict;

/// Weights and what came with them.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The network's tensors.
    pub weights: Weights,
    /// What belongs to the training and not to the network: optimiser slots, averages, step counters.
    pub left_out: Vec<String>,
    /// The file, or the prefix of the checkpoint's files.
    pub source: PathBuf,
    /// The classes that the file's classifier has, where it was drawn anew because they are not the network's.
    pub other_head: Option<usize>,
}

/// Reads weights, strictly: what is missing, left over or wrongly shaped is an error that lists all of it, and says
/// which network the file is of. Only the classifier may be another one, if `head` says so.
///
/// `path` is a safetensors file or a `.pth` or `.pt` file of PyTorch's, in torchvision's, timm's or
/// efficientnet-pytorch's names (`key` says where the state dict is in a checkpoint, see [`read_state_dict`]), a
/// checkpoint of TensorFlow's or a SavedModel (see [`bundle_at`]). The contents decide, not the name.
///
/// # Errors
/// Where the file is missing, damaged, of no kind that can be read, or does not fit the network; where numbers in it are
/// whole, NaN or infinite; where there is a `key` and the file is not PyTorch's.
pub fn read_weights(
    graph: &Graph,
    path: &Path,
    key: Option<&str>,
    head: Head,
    device: &Device,
) -> Result<Imported> {
    let bundle = bundle_at(path);
    let kind = match &bundle {
        None if path.is_dir() => return Err(no_weights_in(path)),
        None => Some(kind_of(path).map_err(|source| Error::Io { path: path.to_owned(), source })?),
        Some(_) => None,
    };
    if let Some(Kind::Other(problem)) = kind {
        return Err(Error::NoWeights { path: path.to_owned(), problem });
    }
    if key.is_some() && !matches!(kind, Some(Kind::Torch)) {
        return Err(Error::Key { path: path.to_owned() });
    }
    let imported = match (bundle, kind) {
        (Some(prefix), _) => read_variables(graph, &prefix, head, device)?,
        (None, kind) => {
            let tensors = match kind {
                Some(Kind::Torch) => read_state_dict(path, key)?,
                _ => read_safetensors(path, device)?,
            };
            let (weights, other_head) = adopt(graph, tensors, &path.display().to_string(), head, device)?;
            Imported { weights, left_out: vec![], source: path.to_owned(), other_head }
        }
    };
    sound::refuse_not_finite(&imported.weights, &imported.source.display().to_string())?;
    Ok(imported)
}

/// Whether a file looks like weights that [`read_weights`] reads; by its first bytes, so that it may be damaged.
pub fn is_weights(path: &Path) -> bool {
    path.is_file() && matches!(kind_of(path), Ok(Kind::Safetensors | Kind::Torch))
}

/// The error about a directory without a tensor bundle, or with too many.
fn no_weights_in(path: &Path) -> Error {
    let name = |prefix: &PathBuf| prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let problem = match (checkpoints(path, ".index").as_slice(), checkpoints(path, ".data-").as_slice()) {
        ([first, _, ..], _) => {
            format!("holds several checkpoints: name one of them, such as {}", first.display())
        }
        (_, [part, ..]) => {
            let part = name(part);
            format!("holds data of the checkpoint {part}, but no {part}.index: copy that too")
        }
        _ if is_saved_model(path) => {
            "is a SavedModel without its weights: copy its variables/ folder too".into()
        }
        _ => "holds neither a checkpoint nor a SavedModel: name a file".into(),
    };
    Error::NoWeights { path: path.to_owned(), problem }
}
