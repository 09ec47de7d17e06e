//! ONNX Runtime through `ort`, its library loaded at run time; on the CPU or with the CUDA provider.
//! A library is always opened by path with an error to report, because `ort` by itself would panic without one.
//! A process holds one library; it stays loaded.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use ndarray::ArrayD;
use ort::environment::Environment;
use ort::ep::{CPU, CUDA, ExecutionProvider};
use ort::session::Session;
use ort::value::TensorRef;

use super::{Engine, EngineKind, EngineOptions};
use crate::batch::Batch;
use crate::error::{RuntimeError, one_line};
use crate::network::ModelSource;
use crate::onnx::ModelInfo;

/// What to do about a missing library.
const LIBRARY_REMEDY: &str =
    "name another in TALLOW_ONNXRUNTIME, or unset it and run `tallow runtime install`";

/// The library of this process.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) path: PathBuf,
    pub(crate) environment: Environment,
    pub(crate) version: String,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

/// Loads libonnxruntime, or returns it if it is loaded already.
///
/// # Errors
/// A text that says why this file cannot be used.
pub(crate) fn load_library(path: &Path) -> Result<Loaded, String> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        let same = loaded.path == path || same_file(&loaded.path, &path);
        return if same {
            Ok(loaded.clone())
        } else {
            Err(format!(
                "this process has already loaded {}, and cannot load {} beside it",
                loaded.path.display(),
                path.display()
            ))
        };
    }
    let builder = ort::init_from(&path).map_err(one_line)?;
    let environment = builder.with_name("tallow").with_telemetry(false).build().map_err(one_line)?;
    let version = version_of(&path, ort::info());
    Ok(loaded.insert(Loaded { path, environment, version }).clone())
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// The release, which `ort` does not pass on: from the file's name (`libonnxruntime.so.1.32.0`), else from the
/// branch or the commit in the build's description (`ORT Build Info: git-branch=rel-1.32.0, git-commit-id=…`).
fn version_of(path: &Path, build_info: &str) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let numbers: Vec<&str> = name.split('.').filter(|part| digits(part)).collect();
    if numbers.len() > 1 {
        return numbers.join(".");
    }
    let entry = |key: &str| build_info.split([',', ' ']).find_map(|entry| entry.strip_prefix(key));
    match entry("git-branch=rel-") {
        Some(release) if digits(release) => release.to_owned(),
        _ => format!("commit {}", entry("git-commit-id=").unwrap_or("unknown")),
    }
}

/// The execution providers that the loaded library was built with, of the two that this crate uses.
pub(crate) fn providers() -> Vec<&'static str> {
    fn named<P: ExecutionProvider>() -> Option<&'static str> {
        P::is_available().unwrap_or(false).then_some(P::NAME)
    }
    [named::<CUDA>(), named::<CPU>()].into_iter().flatten().collect()
}

/// Why the CUDA provider cannot be used with the library at `path`, as far as can be seen without trying.
pub(crate) fn cuda_missing(path: &Path) -> Option<String> {
    let provider =
        format!("{}onnxruntime_providers_cuda{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let beside = [path, &real].iter().any(|p| p.with_file_name(&provider).is_file());
    (!beside).then(|| format!("{provider} is not beside {}", path.display()))
}

pub(crate) struct OrtEngine {
    kind: EngineKind,
    file: String,
    version: String,
    description: String,
    input: String,
    outputs: Vec<String>,
    /// `ort` runs a session through `&mut`: a lock each, and several sessions where runs shall overlap.
    sessions: Vec<Mutex<Session>>,
    next: AtomicUsize,
}

impl OrtEngine {
    pub(crate) fn load(
        kind: EngineKind,
        library: &Path,
        info: &ModelInfo,
        source: &ModelSource,
        options: &EngineOptions,
    ) -> Result<OrtEngine, RuntimeError> {
        let unavailable = |reason: String, remedy: &str| RuntimeError::Unavailable {
            engine: kind,
            reason,
            remedy: remedy.to_owned(),
        };
        let cuda_remedy =
            "point TALLOW_ONNXRUNTIME at the library of an onnxruntime-gpu package, or use --engine ort";
        if kind == EngineKind::OrtCuda
            && let Some(reason) = cuda_missing(library)
        {
            return Err(unavailable(reason, cuda_remedy));
        }
        let loaded = load_library(library).map_err(|reason| unavailable(reason, LIBRARY_REMEDY))?;
        let refused = |e: &dyn std::fmt::Display| RuntimeError::Engine {
            engine: kind,
            file: info.file.clone(),
            action: "load",
            reason: one_line(e),
        };
        let mut sessions = Vec::new();
        for _ in 0..options.sessions.max(1) {
            let mut builder = Session::builder(&loaded.environment).map_err(|e| refused(&e))?;
            if let Some(threads) = options.threads {
                builder = builder.with_intra_threads(threads.max(1)).map_err(|e| refused(&e))?;
            }
            if kind == EngineKind::OrtCuda {
                let mut cuda = CUDA::default().with_device_id(options.cuda_device);
                if let Some(limit) = options.cuda_memory_limit {
                    cuda = cuda.with_memory_limit(limit);
                }
                builder = builder
                    .with_execution_providers([cuda.build().error_on_failure()])
                    .map_err(|e| unavailable(one_line(e), cuda_remedy))?;
            }
            let session = match source {
                ModelSource::File(path) => builder.commit_from_file(path),
                ModelSource::Bytes(bytes) => builder.commit_from_memory(bytes),
            };
            sessions.push(Mutex::new(session.map_err(|e| refused(&e))?));
        }
        let device = match kind {
            EngineKind::OrtCuda => format!("CUDA device {}", options.cuda_device),
            _ => "CPU".into(),
        };
        Ok(OrtEngine {
            kind,
            file: info.file.clone(),
            description: format!("ONNX Runtime {} on {device} ({})", loaded.version, loaded.path.display()),
            version: format!("ONNX Runtime {}", loaded.version),
            input: info.input.name.clone(),
            outputs: info.outputs.iter().map(|output| output.name.clone()).collect(),
            sessions,
            next: AtomicUsize::new(0),
        })
    }

    /// A session that is free, or the next in turn once it is.
    fn session(&self) -> MutexGuard<'_, Session> {
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
        let (floats, pixels);
        let inputs = match &input {
            Batch::Floats(images) => {
                floats = images.as_standard_layout();
                let tensor = TensorRef::from_array_view(floats.view()).map_err(|e| self.failed(e))?;
                ort::inputs![self.input.as_str() => tensor]
            }
            Batch::Pixels(images) => {
                pixels = images.as_standard_layout();
                let tensor = TensorRef::from_array_view(pixels.view()).map_err(|e| self.failed(e))?;
                ort::inputs![self.input.as_str() => tensor]
            }
        };
        let mut session = self.session();
        let results = session.run(inputs).map_err(|e| self.failed(e))?;
        let output = |name: &String| {
            let value =
                results.get(name).ok_or_else(|| self.failed(format!("no output `{name}` came back")))?;
            Ok(value.try_extract_array::<f32>().map_err(|e| self.failed(e))?.to_owned())
        };
        self.outputs.iter().map(output).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::version_of;

    #[test]
    fn the_release_is_read_from_the_file_name_or_the_build_info() {
        let info = "ORT Build Info: git-branch=HEAD, git-commit-id=fab30a4, build type=Release";
        assert_eq!(version_of(Path::new("/x/libonnxruntime.so.1.32.0"), info), "1.32.0");
        assert_eq!(version_of(Path::new("/x/libonnxruntime.1.32.0.dylib"), info), "1.32.0");
        assert_eq!(version_of(Path::new("/x/libonnxruntime.so.1"), info), "commit fab30a4");
        let info = "ORT Build Info: git-branch=rel-1.31.1, git-commit-id=26250ae, build type=Release";
        assert_eq!(version_of(Path::new("/x/onnxruntime.dll"), info), "1.31.1");
    }
}
