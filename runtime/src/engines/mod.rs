//! What every engine can do, their names, and the options they share.
//! `ort/` is ONNX Runtime on the CPU, CUDA and TensorRT, `tract/` tract; `gpu.rs` has the options of the GPU.

pub(crate) mod gpu;
pub(crate) mod ort;
pub(crate) mod tract;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use gpu::GpuOptions;
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
    /// ONNX Runtime with its TensorRT provider, and CUDA for what TensorRT does not run.
    OrtTensorrt,
    /// ONNX Runtime on the CPU.
    Ort,
    /// tract, compiled in.
    Tract,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 4] =
        [EngineKind::OrtCuda, EngineKind::OrtTensorrt, EngineKind::Ort, EngineKind::Tract];

    /// Those that `auto` tries, in this order. TensorRT is not among them: it builds an engine for minutes before its
    /// first batch, and its numbers differ (TF32), so it runs where it is asked for by name.
    pub const AUTO: [EngineKind; 3] = [EngineKind::OrtCuda, EngineKind::Ort, EngineKind::Tract];

    /// Whether it runs on a GPU.
    pub fn is_gpu(self) -> bool {
        matches!(self, EngineKind::OrtCuda | EngineKind::OrtTensorrt)
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EngineKind::OrtCuda => "ort-cuda",
            EngineKind::OrtTensorrt => "ort-tensorrt",
            EngineKind::Ort => "ort",
            EngineKind::Tract => "tract",
        })
    }
}

/// Which engine to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// The first of [`EngineKind::AUTO`] that can run the model; says which and why.
    #[default]
    Auto,
    /// This one, or an error.
    Named(EngineKind),
}

impl FromStr for EngineChoice {
    type Err = RuntimeError;

    /// The names that are printed; `cuda` and `tensorrt` are understood, too.
    fn from_str(name: &str) -> Result<EngineChoice, RuntimeError> {
        match name {
            "auto" => return Ok(EngineChoice::Auto),
            "cuda" => return Ok(EngineChoice::Named(EngineKind::OrtCuda)),
            "tensorrt" => return Ok(EngineChoice::Named(EngineKind::OrtTensorrt)),
            _ => {}
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
    /// Whether ONNX Runtime's inputs and outputs lie in memory that is allocated once for each batch size and bound to
    /// the session, on a GPU beside pinned memory on the host. `None` binds on a GPU, where it saves a copy and an
    /// allocation each run, and not on a CPU, where it costs a copy. tract has no such thing.
    pub binding: Option<bool>,
    /// What an engine on a GPU is told.
    pub gpu: GpuOptions,
}

impl EngineOptions {
    /// Refuses what `engine` does not take.
    ///
    /// # Errors
    /// [`RuntimeError::EngineOption`].
    pub fn check(&self, engine: EngineKind) -> Result<(), RuntimeError> {
        let refuse = |option, reason: &str| {
            Err(RuntimeError::EngineOption { engine, option, reason: reason.to_owned() })
        };
        match (self.binding, engine) {
            (Some(true), EngineKind::Tract) => return refuse("io-binding", "it is for ONNX Runtime"),
            (Some(false), _) if self.gpu.cuda_graph => {
                return refuse(
                    "cuda-graph",
                    "it replays kernels on fixed addresses, which IO binding provides: leave io-binding on",
                );
            }
            _ => {}
        }
        if self.gpu.cuda_graph && self.sessions > 1 {
            return refuse(
                "cuda-graph",
                "CUDA records nothing while another session computes: use one session",
            );
        }
        self.gpu.check(engine)
    }

    /// Whether inputs and outputs are bound in `engine`.
    pub fn binds(&self, engine: EngineKind) -> bool {
        self.binding.unwrap_or(engine.is_gpu())
    }
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { library: None, threads: None, sessions: 1, binding: None, gpu: GpuOptions::default() }
    }
}
