//! What `tallow runtime info` prints: the engines of this machine, and where their parts were looked for.
//! Loads libonnxruntime, and what its GPU providers need, to ask them, and reports instead of failing.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cuda::driver::{Driver, GpuDevice};
use crate::cuda::libraries::{GpuLibrary, VARIABLE, absent_folders, folders, look_for};
use crate::cuda::version;
use crate::engines::ort::gpu::{Missing, missing, needed_libraries};
use crate::engines::ort::library::{LIBRARY_REMEDY, load_library, providers};
use crate::engines::{EngineChoice, EngineKind, tract};
use crate::error::RuntimeError;
use crate::install::Package;
use crate::library::{LibrarySearch, find_library};

/// The state of the engines on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct RuntimeReport {
    /// Where libonnxruntime was looked for.
    pub search: LibrarySearch,
    /// ONNX Runtime's version, if its library loads.
    pub onnxruntime: Option<String>,
    /// Why the library that was found does not load.
    pub onnxruntime_error: Option<String>,
    /// The execution providers it was built with.
    pub providers: Vec<String>,
    /// NVIDIA's driver and its devices.
    pub driver: DriverReport,
    /// Whether libonnxruntime has providers for GPUs beside it.
    pub gpu_providers: bool,
    /// What the GPU providers need of CUDA, cuDNN and TensorRT; where there are none, what those that can be installed need
    /// of CUDA and cuDNN.
    pub libraries: Vec<GpuLibrary>,
    /// The folders that were looked in for them, after those of the system's loader.
    pub folders: Vec<String>,
    /// What TALLOW_CUDA_LIBRARIES names and is no folder.
    pub absent_folders: Vec<String>,
    /// Why its CUDA provider cannot be used; `None` if all it needs is there.
    pub cuda_missing: Option<Missing>,
    /// As `cuda_missing`, for TensorRT.
    pub tensorrt_missing: Option<Missing>,
    /// tract's version.
    pub tract: String,
}

/// NVIDIA's driver.
#[derive(Debug, Clone, Serialize)]
pub struct DriverReport {
    /// Its version, such as `580.65.06`, where the system tells it.
    pub version: Option<String>,
    /// The newest CUDA that it runs, such as `13.0`.
    pub cuda: Option<String>,
    /// The GPUs that this process sees.
    pub devices: Vec<GpuDevice>,
    /// Why there is no driver, or what it answers.
    pub error: Option<String>,
}

impl DriverReport {
    fn new() -> DriverReport {
        let version = version::driver();
        let driver = match Driver::get() {
            Ok(driver) => driver,
            Err(error) => return DriverReport { version, cuda: None, devices: vec![], error: Some(error) },
        };
        let (major, minor) = driver.cuda_version();
        let (devices, error) = match driver.devices() {
            Ok(devices) => (devices, None),
            Err(error) => (vec![], Some(error)),
        };
        DriverReport { version, cuda: Some(format!("{major}.{minor}")), devices, error }
    }
}

/// Looks at the engines of this machine; `library` as in
/// [`EngineOptions::library`](crate::EngineOptions::library), `device` the GPU that engines on one would use.
pub fn runtime_report(library: Option<&Path>, device: i32) -> RuntimeReport {
    let search = find_library(library);
    let why_not = |kind: EngineKind| match &search.found {
        Some(path) => missing(kind, path, device),
        None => Some(Missing { reason: search.reason(), remedy: search.remedy() }),
    };
    // Before libonnxruntime is asked, for what it finds depends on what is loaded.
    let (cuda_missing, tensorrt_missing) = (why_not(EngineKind::OrtCuda), why_not(EngineKind::OrtTensorrt));
    let found = search.found.as_deref();
    let looked = folders(found);
    let kinds = [EngineKind::OrtTensorrt, EngineKind::OrtCuda];
    let needed = found.and_then(|path| kinds.into_iter().find_map(|kind| needed_libraries(kind, path)));
    let gpu_providers = needed.is_some();
    let libraries = needed
        .unwrap_or_else(|| if Package::Gpu.is_published_here() { look_for(None, &looked) } else { vec![] });
    let loaded = search.found.as_deref().map(load_library);
    let (onnxruntime, onnxruntime_error) = match loaded {
        Some(Ok(loaded)) => (Some(loaded.version), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    let built_with = if onnxruntime.is_some() { providers() } else { Vec::new() };
    RuntimeReport {
        providers: built_with.into_iter().map(str::to_owned).collect(),
        onnxruntime,
        onnxruntime_error,
        driver: DriverReport::new(),
        gpu_providers,
        libraries,
        folders: texts(looked),
        absent_folders: texts(absent_folders()),
        cuda_missing,
        tensorrt_missing,
        tract: tract::VERSION.to_owned(),
        search,
    }
}

fn texts(paths: Vec<PathBuf>) -> Vec<String> {
    paths.iter().map(|path| path.display().to_string()).collect()
}

impl RuntimeReport {
    /// Whether an engine that is named can be used; `auto` always finds one.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] with what is missing and the remedy.
    pub fn check(&self, engine: EngineChoice) -> Result<(), RuntimeError> {
        let EngineChoice::Named(engine) = engine else { return Ok(()) };
        let missing = match engine {
            EngineKind::OrtCuda => self.cuda_missing.clone(),
            EngineKind::OrtTensorrt => self.tensorrt_missing.clone(),
            EngineKind::Ort => match &self.onnxruntime_error {
                Some(reason) => Some(Missing { reason: reason.clone(), remedy: LIBRARY_REMEDY.into() }),
                None if self.onnxruntime.is_some() => None,
                None => Some(Missing { reason: self.search.reason(), remedy: self.search.remedy() }),
            },
            EngineKind::Tract => None,
        };
        match missing {
            Some(Missing { reason, remedy }) => Err(RuntimeError::Unavailable { engine, reason, remedy }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RuntimeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "libonnxruntime was looked for in:")?;
        for step in &self.search.steps {
            let path = step.path.as_ref().map_or(String::new(), |path| format!("  {}", path.display()));
            writeln!(f, "  {:<20} {}{path}", step.place, step.outcome)?;
        }
        self.driver.fmt(f)?;
        if !self.libraries.is_empty() {
            match self.gpu_providers {
                true => writeln!(f, "the GPU providers need:")?,
                false => writeln!(
                    f,
                    "the GPU providers, which `tallow runtime install --gpu` installs, would need:"
                )?,
            }
            for library in &self.libraries {
                let GpuLibrary { name, of, required, path, version } = library;
                let outcome = match (path, required) {
                    (Some(path), _) => {
                        let version = version.as_ref().map(|version| format!("  ({of} {version})"));
                        format!("{}{}", path.display(), version.unwrap_or_default())
                    }
                    (None, _) if !self.gpu_providers => "not found".into(),
                    (None, true) => "NOT FOUND".into(),
                    (None, false) => "not found (opened where an operator needs it)".into(),
                };
                writeln!(f, "  {of:<9} {name:<38} {outcome}")?;
            }
            let looked = self.folders.iter().map(|folder| format!(", {folder}")).collect::<String>();
            writeln!(f, "  looked where the loader does{looked}")?;
        }
        for folder in &self.absent_folders {
            writeln!(f, "  {VARIABLE} names {folder}, which is no folder")?;
        }
        match (&self.onnxruntime, &self.onnxruntime_error) {
            (Some(version), _) => {
                writeln!(
                    f,
                    "ort           ONNX Runtime {version}, providers: {}",
                    self.providers.join(", ")
                )?;
            }
            (None, Some(reason)) => writeln!(f, "ort           the library does not load: {reason}")?,
            (None, None) => writeln!(f, "ort           not available: {}", self.search.remedy())?,
        }
        for (engine, missing) in
            [(EngineKind::OrtCuda, &self.cuda_missing), (EngineKind::OrtTensorrt, &self.tensorrt_missing)]
        {
            match missing {
                Some(reason) => writeln!(f, "{engine:<13} not available: {reason}")?,
                None => writeln!(f, "{engine:<13} all that it needs is there")?,
            }
        }
        write!(f, "tract         {}", self.tract)
    }
}

impl fmt::Display for DriverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        match (&self.cuda, &self.error) {
            (Some(cuda), None) => writeln!(f, "NVIDIA driver{version} runs CUDA up to {cuda}")?,
            (Some(cuda), Some(error)) => {
                writeln!(f, "NVIDIA driver{version} runs CUDA up to {cuda}, but: {error}")?
            }
            (None, Some(error)) if version.is_empty() => writeln!(f, "NVIDIA driver: none ({error})")?,
            (None, Some(error)) => writeln!(f, "NVIDIA driver{version} does not work here: {error}")?,
            (None, None) => {}
        }
        for GpuDevice { id, name, memory } in &self.devices {
            writeln!(f, "  device {id}: {name}, {:.1} GiB", *memory as f64 / f64::from(1 << 30))?;
        }
        Ok(())
    }
}
