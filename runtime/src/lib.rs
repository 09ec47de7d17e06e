//! Serves `.onnx` classifiers: one type to hand images to, four engines behind it (ONNX Runtime on CUDA, with TensorRT
//! and on the CPU, tract). A file that Tallow exported says itself how its images are prepared and what
//! its classes are called; the libonnxruntime that `ort` needs is found, or installed, here.

mod batch;
pub mod certificate;
mod classifier;
mod cuda;
mod description;
mod engines;
mod error;
pub mod install;
mod library;
mod network;
mod onnx;
mod prediction;
mod report;
mod select;

pub use batch::{Batch, Element};
pub use certificate::{Certificate, Certified, CertifiedEngine};
pub use classifier::{Classifier, ClassifierBuilder};
pub use cuda::driver::GpuDevice;
pub use cuda::libraries::GpuLibrary;
pub use description::{CardDescription, Description, ValueDescription};
pub use engines::gpu::{ArenaGrowth, ConvSearch, GpuOptions};
pub use engines::ort::gpu::Missing;
pub use engines::ort::placement::Placement;
pub use engines::{Engine, EngineChoice, EngineKind, EngineOptions};
pub use error::RuntimeError;
pub use library::{LibrarySearch, SearchStep, find_library};
pub use network::Network;
pub use onnx::{Dim, ModelInfo, TensorInfo};
pub use prediction::Prediction;
pub use report::{DriverReport, RuntimeReport, runtime_report};
pub use select::Selection;
pub use tallow_input::{
    Dtype, InputError, Interpolation, ModelCard, OutputKind, Preprocess, RgbImage, Views,
};
