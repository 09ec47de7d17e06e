//! What every engine can do, their names, and the options they share.
//! One file an engine: `ort.rs` (ONNX Runtime, CPU and CUDA) and `tract.rs`.

pub(crate) mod ort;
pub(crate) mod tract;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ndarray::ArrayD;

use crate::batch::Batch;
use crate::error::RuntimeError;

/// A loaded network that can be run from several threads at a time.
pub trait Engine: Send + Sync {
    /// Which engine this is.
    fn kind(&self) -> EngineKind;

    /// The library and its version, such as `tract 0.23.9`.
    fn version(&self) -> String;

    /// What runs the network, in words: library, version, device.
    fn description(&self) -> String;

    /// Runs a batch and returns every float32 output, in the order of
    /// [`ModelInfo::outputs`](crate::ModelInfo).
    ///
    /// The elements and the shape were checked against the graph before.
    ///
    /// # Errors
    /// [`RuntimeError::Engine`] with the engine's reason.
    fn run(&self, input: Batch<'_>) -> Result<Vec<ArrayD<f32>>, RuntimeError>;
}

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// ONNX Runtime with its CUDA provider.
    OrtCuda,
    /// ONNX Runtime on the CPU.
    Ort,
    /// tract, compiled in.
    Tract,
}

impl EngineKind {
    /// All, the one preferred by `auto` first.
    pub const ALL: [EngineKind; 3] = [EngineKind::OrtCuda, EngineKind::Ort, EngineKind::Tract];
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EngineKind::OrtCuda => "ort-cuda",
            EngineKind::Ort => "ort",
            EngineKind::Tract => "tract",
        })
    }
}

/// Which engine to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The first of [`EngineKind::ALL`] that can run the model; says which and why.
    #[default]
    Auto,
    /// This one, or an error.
    Named(EngineKind),
}

impl FromStr for EngineChoice {
    type Err = RuntimeError;

    fn from_str(name: &str) -> Result<EngineChoice, RuntimeError> {
        if name == "auto" {
            return Ok(EngineChoice::Auto);
        }
        let kind = EngineKind::ALL.into_iter().find(|kind| kind.to_string() == name);
        kind.map(EngineChoice::Named).ok_or_else(|| RuntimeError::UnknownEngine { name: name.to_owned() })
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineChoice::Auto => f.pad("auto"),
            EngineChoice::Named(kind) => kind.fmt(f),
        }
    }
}

/// How engines are set up. The defaults suit one model on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// libonnxruntime, or a folder that holds it; `None` looks in the usual places (see
    /// [`find_library`](crate::find_library)).
    pub library: Option<PathBuf>,
    /// Threads for one run; `None` takes the machine's cores.
    pub threads: Option<usize>,
    /// ONNX Runtime sessions to hold. A session runs one batch at a time, so that many threads can run at
    /// once; each holds its own copy of the weights. tract needs no such limit.
    pub sessions: usize,
    /// The CUDA device.
    pub cuda_device: i32,
    /// The most bytes that ONNX Runtime's memory arena may take on the CUDA device.
    pub cuda_memory_limit: Option<usize>,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { library: None, threads: None, sessions: 1, cuda_device: 0, cuda_memory_limit: None }
    }
}
