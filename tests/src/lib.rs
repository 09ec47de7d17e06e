//! Conformance: one network, one file, the same numbers in candle, ONNX Runtime, tract and candle-onnx.
//! [`verify`] runs an `.onnx` file in each engine on the same images and gives a [`Report`]; [`verify_layers`] does so
//! value by value and finds the first layer that differs; [`verify_precisions`] compares kinds of numbers, on the CPU
//! and on GPUs; [`randomised`] makes weights that leave no batch norm idle.
//! The integration tests of this crate hold the whole zoo against it.

mod candle_onnx_engine;
mod candle_side;
mod certify;
mod double;
mod engines;
mod error;
mod file;
mod images;
mod layers;
mod outputs;
mod precision;
mod randomised;
mod report;
mod tensors;
mod verify;

pub use certify::Certifier;
pub use error::Error;
pub use layers::{
    Culprit, Differences, LayerDifference, LayerEngine, LayerOptions, LayerReport, LayerRow, Origin,
    verify_layers,
};
pub use precision::{
    Place, Precision, PrecisionOptions, PrecisionReport, PrecisionRow, Side, verify_precisions,
};
pub use randomised::randomised;
pub use report::{Outcome, OutputRow, Report, Row};
pub use verify::{VerifyOptions, tolerance, verify};
