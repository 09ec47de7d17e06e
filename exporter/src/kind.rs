//! What kind of file weights are to be read from, by its content: one that can be read, or what it is instead and what
//! to give in its place.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use prost::Message;
use tallow_tensorflow::proto::{GraphDef, MetaGraphDef, SavedModel};
use zip::ZipArchive;

use crate::torch;

/// The bytes at the start that are looked at.
const START: u64 = 64;
/// What a zip archive begins with.
pub(crate) const ZIP: &[u8] = b"PK\x03\x04";
/// What a table of TensorFlow's ends in.
const TABLE: [u8; 8] = 0xdb47_7524_8b80_fb57_u64.to_le_bytes();

const KERAS: &str = "load it in Keras and save its variables as a checkpoint, \
    tf.train.Checkpoint(model=model).write(\"PREFIX\"), or as safetensors";
const NUMPY: &str = "is an array file of NumPy's: save the tensors by name with safetensors.numpy.save_file";
const PICKLE: &str = "is a Python pickle that torch.save did not write: load it in Python and save its tensors by \
    name with torch.save";

/// Files that are told by their first bytes, and what is to be said of each.
const STARTS: [(&[u8], &str); 9] = [
    (b"\x93NUMPY", NUMPY),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    // Protocol 0, of a dictionary.
    (b"(dp", PICKLE),
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS and not the file itself: fetch that with `git lfs pull`",
    ),
    (b"model_checkpoint_path:", "is the list of a folder's checkpoints: name the folder"),
    (b"<", "is a web page or XML: download the file itself"),
];

/// How a file is read, or why not.
pub(crate) enum Kind {
    /// Safetensors, though perhaps damaged.
    Safetensors,
    /// Something that `torch.save` wrote, or an archive that it might have.
    Torch,
    /// Neither: what it is, and the remedy.
    Other(String),
}

/// Looks at a file.
pub(crate) fn kind_of(path: &Path) -> io::Result<Kind> {
    let mut file = File::open(path)?;
    let mut start = vec![];
    file.by_ref().take(START).read_to_end(&mut start)?;
    // The length of the header, and the header: JSON.
    if start.get(8) == Some(&b'{') {
        return Ok(Kind::Safetensors);
    }
    if start.starts_with(torch::LEGACY) {
        return Ok(Kind::Torch);
    }
    if start.starts_with(ZIP) {
        return Ok(archive(file).map_or(Kind::Torch, Kind::Other));
    }
    Ok(Kind::Other(other(path, &mut file, &start)?))
}

/// What an archive is that is not `torch.save`'s.
fn archive(file: File) -> Option<String> {
    let archive = ZipArchive::new(file).ok()?;
    let names: Vec<_> = archive.file_names().filter_map(Result::ok).collect();
    if names.iter().any(|name| name.ends_with(".weights.h5")) {
        return Some(format!("is a model of Keras's (.keras): {KERAS}"));
    }
    names.iter().all(|name| name.ends_with(".npy")).then(|| NUMPY.to_owned())
}

fn other(path: &Path, file: &mut File, start: &[u8]) -> io::Result<String> {
    if start.is_empty() {
        return Ok("is empty: take another copy of it".into());
    }
    if start.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Ok(format!("is an HDF5 file, such as Keras writes (.h5): {KERAS}"));
    }
    if let Some((_, text)) = STARTS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Ok((*text).to_owned());
    }
    if start.get(4..8) == Some(b"TFL3") {
        return Ok("is a model of TensorFlow Lite's: give what it was converted from".into());
    }
    if ends_in_table(file)? {
        return Ok(
            "is a checkpoint in TensorFlow's first format, a single file without .index: restore it with \
                   tf.compat.v1.train.Saver and save it again, which writes the second"
                .into(),
        );
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some((prefix, _)) = name.rsplit_once(".data-").filter(|(_, shard)| shard.contains("-of-")) {
        return Ok(format!("is the data of a checkpoint: copy {prefix}.index beside it and name that"));
    }
    let message = protobuf(path, start)?.unwrap_or(
        "is no file of weights that is known here, neither safetensors nor PyTorch's nor TensorFlow's: take another \
         copy of it, or give another file",
    );
    Ok(message.to_owned())
}

fn ends_in_table(file: &mut File) -> io::Result<bool> {
    let mut end = [0; TABLE.len()];
    let long = file.metadata()?.len() >= end.len() as u64;
    if long {
        file.seek(SeekFrom::End(-(end.len() as i64)))?;
        file.read_exact(&mut end)?;
    }
    Ok(long && end == TABLE)
}

/// What a protocol buffer is. Only those are read whole whose first byte may begin one of the messages.
fn protobuf(path: &Path, start: &[u8]) -> io::Result<Option<&'static str>> {
    const NUMBER: u8 = 0x08;
    const MESSAGE: u8 = 0x0a;
    let has_nodes = |graph: &GraphDef| {
        !graph.node.is_empty() && graph.node.iter().all(|node| !node.name.is_empty() && !node.op.is_empty())
    };
    Ok(match start[0] {
        // A SavedModel begins with its version, 1; an ONNX model with its own, which began at 3.
        NUMBER if start.get(1) == Some(&1) => {
            let model = SavedModel::decode(&fs::read(path)?[..]);
            model.is_ok_and(|model| !model.meta_graphs.is_empty()).then_some(
                "is the graph of a SavedModel, whose weights are in variables/: copy that beside it and name the folder \
                 of both",
            )
        }
        NUMBER if start.get(1).is_some_and(|version| (3..32).contains(version)) => Some(
            "looks like an ONNX model, which is made for inference: give the weights that it was exported from",
        ),
        MESSAGE => {
            let bytes = fs::read(path)?;
            let meta = MetaGraphDef::decode(&bytes[..]).ok().and_then(|meta| meta.graph_def);
            if meta.as_ref().is_some_and(has_nodes) {
                Some(
                    "is the graph of a checkpoint without its weights: copy its .index and .data files beside it and \
                      name the .index",
                )
            } else if GraphDef::decode(&bytes[..]).as_ref().is_ok_and(has_nodes) {
                Some(
                    "is a graph of TensorFlow's (frozen, if it has weights): give the checkpoint or the SavedModel that \
                      it was made from",
                )
            } else {
                None
            }
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests;
