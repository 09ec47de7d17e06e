//! ONNX Runtime through `ort`: on the CPU, or with its CUDA and TensorRT providers.
//! `library` loads it, `gpu` sets up providers and tells what they lack, `plain` and `binding` are the two ways to run,
//! `placement` tells which provider took how many nodes.

mod binding;
pub(crate) mod gpu;
pub(crate) mod library;
pub(crate) mod placement;
mod plain;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use ndarray::ArrayD;
use ort::session::Session;

use super::{Engine, EngineKind, EngineOptions};
use crate::batch::Batch;
use crate::error::{RuntimeError, one_line};
use crate::network::ModelSource;
use crate::onnx::ModelInfo;
use binding::{Bindings, Names};
use library::{LIBRARY_REMEDY, Loaded, load_library};

pub(crate) struct OrtEngine {
    kind: EngineKind,
    file: String,
    version: String,
    description: String,
    names: Names,
    /// `ort` runs a session through `&mut`: a lock each, and several sessions where runs shall overlap.
    sessions: Vec<Mutex<Held>>,
    next: AtomicUsize,
}

/// A session with its bound memory, which goes first.
struct Held {
    bindings: Option<Bindings>,
    session: Session,
}

impl OrtEngine {
    pub(crate) fn load(
        kind: EngineKind,
        library: &Path,
        info: &ModelInfo,
        source: &ModelSource,
        options: &EngineOptions,
    ) -> Result<OrtEngine, RuntimeError> {
        let loaded = available(kind, library, options)?;
        let mut sessions = Vec::new();
        for _ in 0..options.sessions.max(1) {
            let session = open(kind, &loaded, info, source, options, None)?;
            let bindings = match options.binds(kind) {
                true => Some(Bindings::new(kind, options).map_err(|reason| refused(kind, info, reason))?),
                false => None,
            };
            sessions.push(Mutex::new(Held { bindings, session }));
        }
        let device = match kind {
            EngineKind::OrtCuda => format!("CUDA device {}{}", options.gpu.device_id(), options.gpu),
            EngineKind::OrtTensorrt => {
                format!("CUDA device {} with TensorRT{}", options.gpu.device_id(), options.gpu)
            }
            EngineKind::Ort | EngineKind::Tract => "CPU".into(),
        };
        let binding = if options.binding == Some(true) && !kind.is_gpu() { ", IO binding" } else { "" };
        Ok(OrtEngine {
            kind,
            file: info.file.clone(),
            description: format!(
                "ONNX Runtime {} on {device}{binding} ({})",
                loaded.version,
                loaded.path.display()
            ),
            version: format!("ONNX Runtime {}", loaded.version),
            names: Names::of(info),
            sessions,
            next: AtomicUsize::new(0),
        })
    }

    /// A session that is free, or the next in turn once it is.
    fn session(&self) -> MutexGuard<'_, Held> {
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.sessions.len();
        for offset in 0..self.sessions.len() {
            match self.sessions[(first + offset) % self.sessions.len()].try_lock() {
                Ok(session) => return session,
                Err(TryLockError::Poisoned(session)) => return session.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        self.sessions[first].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, reason: impl std::fmt::Display) -> RuntimeError {
        RuntimeError::Engine {
            engine: self.kind,
            file: self.file.clone(),
            action: "run",
            reason: one_line(reason),
        }
    }
}

impl Engine for OrtEngine {
    fn kind(&self) -> EngineKind {
        self.kind
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    fn description(&self) -> String {
        self.description.clone()
    }

    fn run(&self, input: Batch<'_>) -> Result<Vec<ArrayD<f32>>, RuntimeError> {
        let mut held = self.session();
        let Held { bindings, session } = &mut *held;
        match bindings {
            Some(bindings) => bindings.run(session, &self.names, input),
            None => plain::run(session, &self.names, input, None),
        }
        .map_err(|reason| self.failed(reason))
    }
}

impl Names {
    fn of(info: &ModelInfo) -> Names {
        let outputs = info.outputs.iter().map(|output| output.name.clone()).collect();
        Names { input: info.input.name.clone(), outputs }
    }
}

/// Loads the library, once it is known that it can be used for this engine.
fn available(kind: EngineKind, library: &Path, options: &EngineOptions) -> Result<Loaded, RuntimeError> {
    let unavailable =
        |reason: String, remedy: String| RuntimeError::Unavailable { engine: kind, reason, remedy };
    if kind.is_gpu()
        && let Some(missing) = gpu::missing(kind, library, options.gpu.device_id())
    {
        return Err(unavailable(missing.reason, missing.remedy));
    }
    load_library(library).map_err(|reason| unavailable(reason, LIBRARY_REMEDY.to_owned()))
}

/// A session with the engine's providers; `profile` is how the file begins that its profile goes to, if any.
fn open(
    kind: EngineKind,
    loaded: &Loaded,
    info: &ModelInfo,
    source: &ModelSource,
    options: &EngineOptions,
    profile: Option<&Path>,
) -> Result<Session, RuntimeError> {
    let mut builder = Session::builder(&loaded.environment).map_err(|e| refused(kind, info, e))?;
    if let Some(threads) = options.threads {
        builder = builder.with_intra_threads(threads.max(1)).map_err(|e| refused(kind, info, e))?;
    }
    if kind.is_gpu() {
        let providers = gpu::providers(kind, &options.gpu, info.dtype).map_err(|e| {
            let reason = format!("its folder cannot be made: {e}");
            RuntimeError::EngineOption { engine: kind, option: "trt-cache", reason }
        })?;
        builder = builder.with_execution_providers(providers).map_err(|e| RuntimeError::Unavailable {
            engine: kind,
            reason: one_line(e),
            remedy: "`tallow runtime info` shows what was found of CUDA, cuDNN and TensorRT, and where"
                .into(),
        })?;
    }
    if let Some(profile) = profile {
        builder = builder.with_profiling(profile).map_err(|e| refused(kind, info, e))?;
    }
    match source {
        ModelSource::File(path) => builder.commit_from_file(path),
        ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
    }
    .map_err(|e| refused(kind, info, e))
}

fn refused(engine: EngineKind, info: &ModelInfo, reason: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Engine { engine, file: info.file.clone(), action: "load", reason: one_line(reason) }
}
