//! The execution providers on a GPU: how they are set up, and why they cannot be used on this machine.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch, TensorRT};
use tallow_input::Dtype;

use crate::cuda::driver::{Driver, REMEDY as DRIVER_REMEDY};
use crate::cuda::libraries::{GpuLibrary, VARIABLE, folders, look_for};
use crate::engines::EngineKind;
use crate::engines::gpu::{ArenaGrowth, ConvSearch, GpuOptions};

/// Why an engine cannot be used, and what to do. Serialised as a text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(into = "String")]
pub struct Missing {
    /// What is missing.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

impl From<Missing> for String {
    fn from(missing: Missing) -> String {
        missing.to_string()
    }
}

/// The providers of an engine, the preferred one first. What none of them runs falls to the CPU.
///
/// # Errors
/// Where the folder for TensorRT's engines cannot be made.
pub(super) fn providers(
    engine: EngineKind,
    options: &GpuOptions,
    dtype: Dtype,
) -> std::io::Result<Vec<ExecutionProviderDispatch>> {
    Ok(match engine {
        EngineKind::OrtCuda => vec![cuda(options).build().error_on_failure()],
        EngineKind::OrtTensorrt => {
            let tensorrt = tensorrt(options, dtype)?.build().error_on_failure();
            vec![tensorrt, cuda(options).build().error_on_failure()]
        }
        EngineKind::Ort | EngineKind::Tract => vec![],
    })
}

fn cuda(options: &GpuOptions) -> CUDA {
    // Said in any case: ONNX Runtime's own default is on (cuda_execution_provider_info.h), other than `ort` documents.
    let mut cuda = CUDA::default().with_device_id(options.device_id()).with_tf32(options.tf32);
    if let Some(limit) = options.memory_limit {
        cuda = cuda.with_memory_limit(limit);
    }
    if let Some(growth) = options.arena {
        cuda = cuda.with_arena_extend_strategy(match growth {
            ArenaGrowth::PowerOfTwo => ArenaExtendStrategy::NextPowerOfTwo,
            ArenaGrowth::AsRequested => ArenaExtendStrategy::SameAsRequested,
        });
    }
    if let Some(search) = options.conv_search {
        cuda = cuda.with_conv_algorithm_search(match search {
            ConvSearch::Exhaustive => ConvAlgorithmSearch::Exhaustive,
            ConvSearch::Heuristic => ConvAlgorithmSearch::Heuristic,
            ConvSearch::Default => ConvAlgorithmSearch::Default,
        });
    }
    if options.nhwc {
        cuda = cuda.with_prefer_nhwc(true);
    }
    if options.cuda_graph {
        cuda = cuda.with_cuda_graph(true);
    }
    cuda
}

fn tensorrt(options: &GpuOptions, dtype: Dtype) -> std::io::Result<TensorRT> {
    // TensorRT refuses the float16 layers of a file unless it is allowed to use them.
    let half = options.fp16 || dtype == Dtype::F16;
    let mut tensorrt = TensorRT::default().with_device_id(options.device_id()).with_fp16(half);
    if let Some(folder) = &options.engine_cache {
        std::fs::create_dir_all(folder)?;
        let folder = folder.display();
        tensorrt = tensorrt.with_engine_cache(true).with_engine_cache_path(&folder);
        // What was measured of single layers helps the next engine, too.
        tensorrt = tensorrt.with_timing_cache(true).with_timing_cache_path(&folder);
    }
    Ok(tensorrt)
}

/// The file of a provider, beside libonnxruntime or beside what its link leads to.
fn provider_file(library: &Path, provider: &str) -> Result<PathBuf, String> {
    let name = format!("{DLL_PREFIX}onnxruntime_providers_{provider}{DLL_SUFFIX}");
    let real = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let places = [library.with_file_name(&name), real.with_file_name(&name)];
    let found = places.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not beside {}", library.display()))
}

/// The files of an engine's providers.
fn provider_files(engine: EngineKind, library: &Path) -> Result<Vec<PathBuf>, String> {
    let names: &[&str] = match engine {
        EngineKind::OrtCuda => &["shared", "cuda"],
        EngineKind::OrtTensorrt => &["shared", "cuda", "tensorrt"],
        EngineKind::Ort | EngineKind::Tract => &[],
    };
    // The one that gives an engine its name is the one to ask for first.
    names.iter().rev().map(|name| provider_file(library, name)).collect()
}

/// What the engine's providers need of CUDA, cuDNN and TensorRT, found or not; those that are found are loaded. `None`
/// where the provider itself is not there.
pub(crate) fn needed_libraries(engine: EngineKind, library: &Path) -> Option<Vec<GpuLibrary>> {
    let mut libraries: Vec<GpuLibrary> = vec![];
    for provider in provider_files(engine, library).ok()?.iter().rev() {
        for found in look_for(Some(provider), &folders(Some(library))) {
            match libraries.iter_mut().find(|known| known.name == found.name) {
                Some(known) => known.required |= found.required,
                None => libraries.push(found),
            }
        }
    }
    Some(libraries)
}

/// Why `engine` cannot be used with the library at `library`, in the order in which its parts are needed. Loads what it
/// finds, so that the provider finds it.
pub(crate) fn missing(engine: EngineKind, library: &Path, device: i32) -> Option<Missing> {
    let missing = |reason: String, remedy: &str| Some(Missing { reason, remedy: remedy.to_owned() });
    if let Err(reason) = provider_files(engine, library) {
        return missing(
            reason,
            "run `tallow runtime install --gpu`, name the library of an onnxruntime-gpu package in TALLOW_ONNXRUNTIME, \
             or use --engine ort",
        );
    }
    let driver = match Driver::get() {
        Ok(driver) => driver,
        Err(reason) => return missing(reason, DRIVER_REMEDY),
    };
    let devices = match driver.devices() {
        Ok(devices) => devices,
        Err(reason) => return missing(reason, DRIVER_REMEDY),
    };
    if !devices.iter().any(|known| known.id == device) {
        let reason = format!("there is no CUDA device {device}, but {}", count(devices.len()));
        return missing(reason, "choose another with --cuda-device, or look at CUDA_VISIBLE_DEVICES");
    }
    let libraries = needed_libraries(engine, library).unwrap_or_default();
    if let Some(reason) = old_driver(&libraries, driver.cuda_version()) {
        return missing(reason, "update NVIDIA's driver, or use --engine ort");
    }
    absent(&libraries, &folders(Some(library)))
}

fn count(devices: usize) -> String {
    match devices {
        0 => "none".into(),
        1 => "one, 0".into(),
        n => format!("{n}, 0 to {}", n - 1),
    }
}

/// Drivers run what was built for their CUDA and older ones.
fn old_driver(libraries: &[GpuLibrary], (major, minor): (i32, i32)) -> Option<String> {
    let version = |library: &GpuLibrary| library.name.strip_prefix("libcudart.so.")?.parse::<i32>().ok();
    let needed = libraries.iter().find_map(version)?;
    (major < needed)
        .then(|| format!("the NVIDIA driver runs CUDA {major}.{minor}, the provider needs {needed}"))
}

/// The required libraries that were not found.
fn absent(libraries: &[GpuLibrary], folders: &[PathBuf]) -> Option<Missing> {
    let absent: Vec<&GpuLibrary> =
        libraries.iter().filter(|library| library.required && library.path.is_none()).collect();
    if absent.is_empty() {
        return None;
    }
    let names: Vec<&str> = absent.iter().map(|library| library.name.as_str()).collect();
    let mut of: Vec<&str> = absent.iter().map(|library| library.of).collect();
    of.sort_unstable();
    of.dedup();
    let looked: Vec<String> = folders.iter().map(|folder| format!(", {}", folder.display())).collect();
    Some(Missing {
        reason: format!("not found: {} (looked where the loader does{})", names.join(", "), looked.concat()),
        remedy: format!(
            "install {} in these versions and name the folders in {VARIABLE} or the loader's path, or use --engine ort",
            of.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(name: &str, of: &'static str, required: bool, there: bool) -> GpuLibrary {
        let path = there.then(|| PathBuf::from(name));
        GpuLibrary { name: name.into(), of, required, path, version: None }
    }

    #[test]
    fn what_is_missing_is_named_with_the_places_and_the_remedy() {
        let libraries = [
            library("libcublas.so.13", "CUDA", true, false),
            library("libcudart.so.13", "CUDA", true, true),
            library("libcudnn.so.9", "cuDNN", true, false),
            library("libcufft.so.12", "CUDA", false, false),
        ];
        let missing = absent(&libraries, &["/opt/cuda/lib64".into()]).unwrap();
        assert_eq!(
            missing.reason,
            "not found: libcublas.so.13, libcudnn.so.9 (looked where the loader does, /opt/cuda/lib64)"
        );
        assert!(missing.remedy.starts_with("install CUDA, cuDNN in these versions"), "{}", missing.remedy);
        assert_eq!(absent(&libraries[1..2], &[]), None);
        let text = old_driver(&libraries, (12, 8)).unwrap();
        assert_eq!(text, "the NVIDIA driver runs CUDA 12.8, the provider needs 13");
        assert_eq!(old_driver(&libraries, (13, 0)), None);
    }

    #[test]
    fn a_library_without_providers_is_told_which_file_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libonnxruntime.so");
        let missing = missing(EngineKind::OrtTensorrt, &library, 0).unwrap();
        let file = format!("{DLL_PREFIX}onnxruntime_providers_tensorrt{DLL_SUFFIX}");
        assert_eq!(missing.reason, format!("{file} is not beside {}", library.display()));
        assert!(missing.remedy.contains("tallow runtime install --gpu"), "{}", missing.remedy);
        assert!(needed_libraries(EngineKind::OrtCuda, &library).is_none());
    }
}
