//! Lowers a layer graph and its weights to files that other engines run: ONNX, and TensorFlow's SavedModel and
//! checkpoints. [`passes`] turns a trained network into its inference graph; [`onnx`] writes that as a self-describing
//! `.onnx`; [`tensorflow`] writes what TensorFlow loads; [`read_weights`] reads weights back from any of
//! these and from PyTorch's files.

mod adopt;
mod advice;
mod atomic;
mod error;
mod kind;
pub mod onnx;
pub mod passes;
mod sound;
pub mod tensorflow;
pub mod torch;
mod weights;

pub use adopt::Head;
pub use atomic::Existing;
pub use error::{Error, Result};
pub use onnx::{OnnxOptions, export_onnx, write_onnx};
pub use weights::{Imported, is_weights, read_weights};
