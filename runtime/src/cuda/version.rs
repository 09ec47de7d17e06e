//! Which versions of CUDA, cuDNN and the driver are here: asked of the libraries that were found, which are never linked,
//! and of the kernel.

use std::path::Path;

use libloading::Library;

/// Where the driver's part in Linux's kernel says what it is.
const KERNEL_MODULE: &str = "/proc/driver/nvidia/version";

/// The driver's version, such as `580.65.06`, where the kernel tells it.
pub(crate) fn driver() -> Option<String> {
    kernel_module(&std::fs::read_to_string(KERNEL_MODULE).ok()?)
}

fn kernel_module(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// The version that a library tells of itself: CUDA's runtime and cuDNN do. It has been loaded before.
pub(super) fn of_library(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    if name.contains("cudart") {
        // SAFETY: the library is loaded already, so that no initialiser runs.
        let library = unsafe { Library::new(path) }.ok()?;
        type Get = unsafe extern "C" fn(*mut i32) -> i32;
        let mut version = 0;
        // SAFETY: cuda_runtime_api.h declares the function so; it writes a number to where it is told to.
        let status = unsafe { library.get::<Get>(b"cudaRuntimeGetVersion").ok()?(&mut version) };
        return (status == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10));
    }
    // libcudnn itself hands on to this one, and ends the process where that is not there.
    if name.contains("cudnn_graph") {
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }.ok()?;
        type Get = unsafe extern "C" fn() -> usize;
        // SAFETY: cudnn_graph.h declares the function so.
        let version = unsafe { library.get::<Get>(b"cudnnGetVersion").ok()?() };
        return Some(cudnn(version));
    }
    None
}

/// A version as cudnn_version.h composes it since cuDNN 9.
fn cudnn(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version % 10_000 / 100, version % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_drivers_version() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n\
                      GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";
        assert_eq!(kernel_module(closed).as_deref(), Some("535.104.05"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)";
        assert_eq!(kernel_module(open).as_deref(), Some("580.65.06"));
        assert_eq!(kernel_module("GCC version:  gcc version 12.2.0"), None);
    }

    #[test]
    fn versions_are_taken_apart_and_other_libraries_tell_none() {
        assert_eq!(cudnn(92_000), "9.20.0");
        assert_eq!(cudnn(90_105), "9.1.5");
        assert_eq!(of_library(Path::new("/nowhere/libcublas.so.13")), None);
        assert_eq!(of_library(Path::new("/nowhere/libcudart.so.13")), None);
    }
}
