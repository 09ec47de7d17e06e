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

    /// The `.onnx` file cannot be read.
    #[error("{file}: cannot read the model: {source}")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },

    /// The `.onnx` file is damaged, or lacks its weights.
    #[error("{file}: {problem}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },

    /// Layers of a float16 file are asked for.
    #[error(
        "{file}: computes in float16, and --layers compares in float32: leave --layers out, or verify the float32 file"
    )]
    HalfLayers {
        /// The file.
        file: String,
    },

    /// A file of results cannot be written.
    #[error("{}: {}", path.display(), tallow_builder::files::explained(source))]
    Write {
        /// The file or folder.
        path: std::path::PathBuf,
        /// The reason.
        source: std::io::Error,
    },

    /// The folder for tensors holds something already.
    #[error("{}: is not empty: name a new folder for the tensors", path.display())]
    NotEmpty {
        /// The folder.
        path: std::path::PathBuf,
    },

    /// The file takes images of another size than was said.
    #[error("{file}: the input `{input}` is {shape}, another size than the one given: leave that out")]
    OtherSize {
        /// The file.
        file: String,
        /// The input's name.
        input: String,
        /// Its shape, as the file has it.
        shape: String,
    },

    /// The file does not say how large its images are.
    #[error(
        "{file}: the input `{input}` is {shape}: say how large images are, with --size PIXELS or --size HEIGHTxWIDTH"
    )]
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
