//! Conformance: one network, one file, the same numbers in candle, ONNX Runtime, tract and candle-onnx.
//! [`verify`] runs an `.onnx` file in each engine on the same images and gives a [`Report`]; [`randomised`] makes
//! weights that leave no batch norm idle. The integration tests of this crate hold the whole zoo against it.

mod candle_onnx_engine;
mod error;
mod outputs;
mod randomised;
mod report;
mod verify;

pub use error::Error;
pub use randomised::randomised;
pub use report::{Outcome, Report, Row};
pub use verify::{VerifyOptions, verify};
