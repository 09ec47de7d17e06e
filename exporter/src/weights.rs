//! Weights of a network out of whatever file has them.

use std::path::Path;

use candle_core::Device;
use tallow_builder::weights::read_safetensors;
use tallow_builder::{Graph, Weights};

use crate::adopt::{Head, adopt};
use crate::error::{Error, Result};
use crate::tensorflow::{bundle_at, read_variables};
use crate::torch::{is_torch_file, read_state_dict};

/// Weights and what came with them.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The network's tensors.
    pub weights: Weights,
    /// What belongs to the training and not to the network: optimiser slots, averages, step counters.
    pub left_out: Vec<String>,
    /// The classes that the file's classifier has, where it was drawn anew because they are not the network's.
    pub other_head: Option<usize>,
}

/// Reads weights, strictly: what is missing, left over or wrongly shaped is an error that lists all of it, and says
/// which network the file is of. Only the classifier may be another one, if `head` says so.
///
/// `path` is a safetensors file or a `.pth` or `.pt` file of PyTorch's, in torchvision's, timm's or
/// efficientnet-pytorch's names (`key` names the state dict in a checkpoint), a checkpoint of TensorFlow's (its prefix, its `.index` or its directory) or a SavedModel. The contents decide, not the
/// name.
///
/// # Errors
/// Where the file is missing, damaged, of no known kind, or does not fit the network.
pub fn read_weights(
    graph: &Graph,
    path: &Path,
    key: Option<&str>,
    head: Head,
    device: &Device,
) -> Result<Imported> {
    if let Some(prefix) = bundle_at(path) {
        return read_variables(graph, &prefix, head, device);
    }
    if path.is_dir() {
        let problem = "holds neither a checkpoint nor a SavedModel: name a file".into();
        return Err(Error::SavedModel { path: path.to_owned(), problem });
    }
    let tensors =
        if is_torch_file(path) { read_state_dict(path, key)? } else { read_safetensors(path, device)? };
    let (weights, other_head) = adopt(graph, tensors, &path.display().to_string(), head, device)?;
    Ok(Imported { weights, left_out: vec![], other_head })
}
