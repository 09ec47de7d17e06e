//! Why a file could not be verified at all. What one engine makes of it is in the report instead.

/// An error of this crate. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layer graph, its weights, or a pass over them.
    #[error(transparent)]
    Export(#[from] tallow_exporter::Error),

    /// The `.onnx` file cannot be read.
    #[error(transparent)]
    Model(#[from] tallow_runtime::RuntimeError),

    /// The file does not say how large its images are.
    #[error("{file}: the input `{input}` is {shape}; only networks with a fixed image size can be verified")]
    FreeSize {
        /// The file.
        file: String,
        /// The input's name.
        input: String,
        /// Its shape, as the file has it.
        shape: String,
    },

    /// The layer graph is another network's.
    #[error(
        "{file}: takes images of {file_takes}, but network `{network}` takes {network_takes}: another model?"
    )]
    OtherNetwork {
        /// The file.
        file: String,
        /// Channels, rows, columns.
        file_takes: String,
        /// The layer graph's name.
        network: String,
        /// Channels, rows, columns.
        network_takes: String,
    },

    /// An option out of its range.
    #[error("{0}")]
    Option(&'static str),
}
