//! Lowers a layer graph and its weights to files that other engines run: ONNX, and TensorFlow's SavedModel and
//! checkpoints. [`passes`] turns a trained network into its inference graph; [`onnx`] writes that as a self-describing
//! `.onnx`; [`tensorflow`] writes what TensorFlow loads, and reads weights back.

mod atomic;
mod error;
pub mod onnx;
pub mod passes;
pub mod tensorflow;

pub use atomic::Existing;
pub use error::{Error, Result};
pub use onnx::{OnnxOptions, export_onnx, write_onnx};
