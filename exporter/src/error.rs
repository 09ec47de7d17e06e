//! What can go wrong on the way from a network to a file. Every text is one line.

use std::path::{Path, PathBuf};

/// An error of this crate. Each names the layer, option or file it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network or its weights are not usable, or a weights file is not. Boxed, for it is the largest by far.
    #[error(transparent)]
    Network(Box<tallow_builder::Error>),

    /// Weights of another network than the one they are for.
    #[error("{origin} does not fit network `{network}`: {advice} ({differences})")]
    OtherNetwork {
        /// The file.
        origin: String,
        /// The network.
        network: String,
        /// Missing, unexpected and wrongly shaped tensors.
        differences: Box<tallow_builder::weights::Differences>,
        /// Which network the weights are of, as far as their shapes tell.
        advice: String,
    },

    /// Weights that no network can compute with.
    #[error("{origin}: {problem}")]
    Unsound {
        /// The file.
        origin: String,
        /// The tensor, what is wrong with it and what to do.
        problem: String,
    },

    /// An operator set that is not written here.
    #[error("opset {requested} is not supported: choose one from {min} to {max}")]
    Opset {
        /// What was asked for.
        requested: u32,
        /// The oldest.
        min: u32,
        /// The newest.
        max: u32,
    },

    /// An option that does not go with the network.
    #[error("network `{network}`: {problem}")]
    Option {
        /// The network's name.
        network: String,
        /// The option and why it cannot be.
        problem: String,
    },

    /// The model card describes another network than this one.
    #[error("the model card does not fit network `{network}`: {problem}")]
    Card {
        /// The network's name.
        network: String,
        /// The field and both values.
        problem: String,
    },

    /// A file of TensorFlow's that cannot be read or written.
    #[error(transparent)]
    TensorFlow(tallow_tensorflow::Error),

    /// A file that is none of PyTorch's weights, or a damaged one.
    #[error("{}: not readable as PyTorch weights: {problem}", path.display())]
    Torch {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },

    /// A file or directory without weights that can be read.
    #[error("{}: {problem}", path.display())]
    NoWeights {
        /// The file or directory.
        path: PathBuf,
        /// What it is and what to give instead.
        problem: String,
    },

    /// A key for a file that is no checkpoint of PyTorch's.
    #[error("{}: a key names the state dict in a checkpoint of PyTorch's, and this is none: leave --key out", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },

    /// Weights whose batch normalisation is gone, for a network that has it.
    #[error("{}: batch normalisation is folded into the convolutions there, and network `{network}` has it as layers: \
             export without --fold what this was made from; predict with it as it is", path.display())]
    Folded {
        /// The file.
        path: PathBuf,
        /// The network's name.
        network: String,
    },

    /// A layer whose numbers cannot be exported.
    #[error("layer `{layer}`: {problem}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// What is wrong.
        problem: String,
    },

    /// Something is in the way and may not be replaced.
    #[error("{}: already exists; choose another path, or pass --force to replace it", path.display())]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },

    /// The folder to write into does not exist.
    #[error("{}: the folder {} does not exist: create it first", path.display(), folder.display())]
    NoFolder {
        /// What was to be written.
        path: PathBuf,
        /// The folder that is missing.
        folder: PathBuf,
    },

    /// A folder or a device is where a file was to go.
    #[error("{}: is no regular file, so it is not replaced by one: name a file", path.display())]
    NoFile {
        /// What is in the way.
        path: PathBuf,
    },

    /// A file that cannot be read, written or renamed.
    #[error("{}: {}", path.display(), tallow_builder::files::explained(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },

    /// A file that is not an ONNX model, or a damaged one.
    #[error("{}: not a readable ONNX model: {problem}: export it again", path.display())]
    Onnx {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },

    /// A directory that is no SavedModel of Tallow's, or a damaged one.
    #[error("{}: {problem}", path.display())]
    SavedModel {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The same error about the place where a file was to go, for a file that was being made at a temporary one.
    pub(crate) fn moved(self, from: &Path, to: &Path) -> Self {
        let moved = |path: PathBuf| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path,
        };
        match self {
            Self::Io { path, source } => Self::Io { path: moved(path), source },
            Self::Network(error) => match *error {
                tallow_builder::Error::Io { path, source } => Self::Io { path: moved(path), source },
                other => other.into(),
            },
            other => other,
        }
    }
}

impl From<tallow_builder::Error> for Error {
    fn from(error: tallow_builder::Error) -> Self {
        Self::Network(Box::new(error))
    }
}

impl From<tallow_tensorflow::Error> for Error {
    fn from(error: tallow_tensorflow::Error) -> Self {
        match error {
            tallow_tensorflow::Error::Io { path, source } => Self::Io { path, source },
            other => Self::TensorFlow(other),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        tallow_builder::Error::from(error).into()
    }
}
