//! Looks for the libraries of CUDA, cuDNN and TensorRT that an execution provider needs: where the system's loader
//! looks, then in the folders that are known or named. What is in such a folder only is loaded from there, so that the
//! provider finds it in memory; a CUDA out of PyPI's wheels is in no place that the loader knows.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use ort::ep::cuda::{CUDA_DYLIBS, CUDNN_DYLIBS};
use ort::util::preload_dylib;
use serde::Serialize;

use super::driver;
use super::{elf, version};

/// Folders with libraries of CUDA, cuDNN and TensorRT, separated as in PATH.
pub(crate) const VARIABLE: &str = "TALLOW_CUDA_LIBRARIES";

/// A library that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuLibrary {
    /// Its file's name, with the version that is needed.
    pub name: String,
    /// Which software it is of: `driver`, `CUDA`, `cuDNN` or `TensorRT`.
    pub of: &'static str,
    /// Whether nothing runs without it; the others are opened when a network needs them.
    pub required: bool,
    /// Where it is; `None` where it was not found.
    pub path: Option<PathBuf>,
    /// Its version, where it tells it: CUDA's runtime and cuDNN do.
    pub version: Option<String>,
}

/// The folders that are looked in after the loader's own: [`VARIABLE`], CUDA_HOME, CUDA_PATH, where CUDA installs
/// itself, and that of libonnxruntime, if there is one.
pub(crate) fn folders(library: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = named();
    let roots = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let installed = (!cfg!(windows)).then(|| PathBuf::from("/usr/local/cuda"));
    let inside = if cfg!(windows) { ["bin", "bin/x64"] } else { ["lib64", "lib"] };
    for root in roots.chain(installed) {
        folders.extend(inside.map(|folder| root.join(folder)));
    }
    folders.extend(library.and_then(Path::parent).map(Path::to_owned));
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The folders in [`VARIABLE`].
fn named() -> Vec<PathBuf> {
    let named = env::var_os(VARIABLE).unwrap_or_default();
    env::split_paths(&named).filter(|folder| !folder.as_os_str().is_empty()).collect()
}

/// Those of them that are no folders: they would be passed over in silence.
pub(crate) fn absent_folders() -> Vec<PathBuf> {
    named().into_iter().filter(|folder| !folder.is_dir()).collect()
}

/// Looks for what the provider's file needs, and what it opens by itself, and loads it. Without a provider it is what
/// one for CUDA opens, in the versions that are installed here.
pub(crate) fn look_for(provider: Option<&Path>, folders: &[PathBuf]) -> Vec<GpuLibrary> {
    wanted(provider).into_iter().map(|(name, required)| find(name, required, folders)).collect()
}

/// Names and whether they are required; dependencies come before what depends on them.
fn wanted(provider: Option<&Path>) -> Vec<(String, bool)> {
    let needed = provider.and_then(|provider| elf::needed(provider).ok()).unwrap_or_default();
    let mut wanted: Vec<(String, bool)> =
        needed.into_iter().filter(|name| software(name).is_some()).map(|name| (name, true)).collect();
    // The provider opens cuDNN itself. Without it no convolution runs; the rest is opened for operators that need it.
    for &name in CUDA_DYLIBS.iter().chain(CUDNN_DYLIBS) {
        let stem = name.split('.').next().unwrap_or(name);
        if !wanted.iter().any(|(known, _)| known.split('.').next() == Some(stem)) {
            wanted.push((name.to_owned(), Some(&name) == CUDNN_DYLIBS.first()));
        }
    }
    wanted
}

/// Which software a library is of; `None` for the system's.
fn software(name: &str) -> Option<&'static str> {
    let stem = name.strip_prefix("lib").unwrap_or(name);
    match stem {
        _ if name == driver::LIBRARY => Some("driver"),
        _ if stem.starts_with("cudnn") => Some("cuDNN"),
        _ if stem.starts_with("nvinfer") || stem.starts_with("nvonnxparser") => Some("TensorRT"),
        _ if stem.starts_with("cu") || stem.starts_with("nvrtc") || stem.starts_with("nvJitLink") => {
            Some("CUDA")
        }
        _ => None,
    }
}

fn find(name: String, required: bool, folders: &[PathBuf]) -> GpuLibrary {
    let path = if preload_dylib(name.as_str()).is_ok() {
        Some(loaded_from(&name).unwrap_or_else(|| PathBuf::from(&name)))
    } else {
        let places = folders.iter().map(|folder| folder.join(&name));
        places.filter(|path| path.is_file()).find(|path| preload_dylib(path.as_path()).is_ok())
    };
    let version = path.as_deref().and_then(version::of_library);
    GpuLibrary { of: software(&name).unwrap_or("CUDA"), name, required, path, version }
}

/// The file that a library in memory came from, as Linux tells it.
fn loaded_from(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    // Links are resolved there: `libcudart.so.13` is `libcudart.so.13.0.96`.
    let is_it = |path: &&str| path.rsplit('/').next().is_some_and(|file| file.starts_with(name));
    let path = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).find(is_it)?;
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_in_a_folder_and_a_missing_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        // Any library that is no text will do; this one has another name than any that the loader knows.
        fs::write(folder.path().join("libcublas.so.99"), "no library").unwrap();
        let folders = [folder.path().to_owned()];
        let broken = find("libcublas.so.99".into(), true, &folders);
        assert_eq!((broken.of, broken.path), ("CUDA", None), "a damaged file is not there");
        assert_eq!(software("libcudnn_graph.so.9"), Some("cuDNN"));
        assert_eq!(software("libnvinfer.so.10"), Some("TensorRT"));
        assert_eq!(software("libstdc++.so.6"), None);
    }

    #[test]
    fn what_convolutions_need_is_required_and_named_once() {
        let wanted = wanted(None);
        let required: Vec<&str> = wanted.iter().filter(|(_, r)| *r).map(|(name, _)| &**name).collect();
        assert_eq!(required, [CUDNN_DYLIBS[0]]);
        let names: std::collections::HashSet<&String> = wanted.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), wanted.len());
    }
}
