//! What can go wrong between a network's description and its numbers.

use std::path::PathBuf;

use crate::graph::Shape;

/// An error of this crate. Each names the layer, tensor or file it is about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer does not accept the shape that reaches it.
    #[error("layer `{layer}` ({op}) does not accept {actual}: {expected}")]
    Shape {
        /// The layer's name.
        layer: String,
        /// The operation, such as `conv2d`.
        op: &'static str,
        /// What reaches it.
        actual: ShapeList,
        /// What it needs, in words with numbers.
        expected: String,
    },

    /// An attribute is out of its range, whatever the input.
    #[error("layer `{layer}` ({op}): {problem}")]
    Attribute {
        /// The layer's name.
        layer: String,
        /// The operation, such as `conv2d`.
        op: &'static str,
        /// The attribute and why it cannot be.
        problem: String,
    },

    /// The graph as a whole is not well formed (names, order, output).
    #[error("network `{network}`: {problem}")]
    Graph {
        /// The network's name.
        network: String,
        /// What is wrong.
        problem: String,
    },

    /// Weights that do not fit the network, all differences at once.
    #[error("{origin} does not fit network `{network}`: {differences}")]
    Weights {
        /// The file, or a word for where the weights came from.
        origin: String,
        /// The network's name.
        network: String,
        /// Missing, unexpected and wrongly shaped tensors.
        differences: Box<crate::weights::Differences>,
    },

    /// A weights file that cannot be read as safetensors.
    #[error(
        "{}: not a readable safetensors file ({problem}): take another copy of it, or save the weights again; \
         `tallow import` makes one of PyTorch's and TensorFlow's files",
        path.display()
    )]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },

    /// A file that cannot be opened, written or renamed.
    #[error("{}: {}", path.display(), crate::files::explained(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },

    /// An input tensor that does not fit the network.
    #[error("network `{network}` takes images of shape [N, {}], got {actual:?}", expected.dims_text())]
    Input {
        /// The network's name.
        network: String,
        /// The shape of one sample.
        expected: Shape,
        /// The tensor's whole shape.
        actual: Vec<usize>,
    },

    /// An error of candle or of a kernel, at a layer.
    #[error("layer `{layer}`: {source}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// The reason.
        source: candle_core::Error,
    },

    /// An error of candle outside any layer.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Shapes that reach a layer, for messages.
#[derive(Debug, Clone)]
pub struct ShapeList(pub Vec<Shape>);

impl std::fmt::Display for ShapeList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.0.iter().map(Shape::to_string).collect();
        f.write_str(&texts.join(" and "))
    }
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
