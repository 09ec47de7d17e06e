//! Lowers a layer graph and its weights to files that other engines run: ONNX and a model directory around it.
//! [`passes`] turns a trained network into its inference graph; [`onnx`] writes that as a self-describing `.onnx`;
//! [`ModelDir`] is the directory that holds it with its weights, labels and layer graph.

mod atomic;
mod error;
mod model_dir;
pub mod onnx;
pub mod passes;

pub use atomic::Existing;
pub use error::{Error, Result};
pub use model_dir::ModelDir;
pub use onnx::{OnnxOptions, export_onnx, write_onnx};
