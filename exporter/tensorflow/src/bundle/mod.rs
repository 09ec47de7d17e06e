//! Tensor bundles: `<prefix>.index`, a table of where each tensor is, and `<prefix>.data-00000-of-00001`, the bytes.
//! The variables of a SavedModel and the checkpoints of TensorFlow 1 and 2 are bundles.

mod reader;
mod slices;
mod writer;

use std::path::{Path, PathBuf};

pub use reader::{BundleReader, TensorData};
pub use writer::BundleWriter;

/// `<prefix>.index`.
pub fn index_path(prefix: &Path) -> PathBuf {
    with_suffix(prefix, ".index")
}

/// `<prefix>.data-<shard>-of-<shards>`.
pub fn data_path(prefix: &Path, shard: usize, shards: usize) -> PathBuf {
    with_suffix(prefix, &format!(".data-{shard:05}-of-{shards:05}"))
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
