//! Runs kernels on the host, by a C++ compiler and a few definitions in place of CUDA's ([`host.hpp`](self)).

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::Library;

use crate::error::{Error, Result};
use crate::launch::{Arg, Launch, Source, Variant};

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread emulates a GPU.
pub fn is_active() -> bool {
    ACTIVE.get()
}

/// Runs `body` with the kernels for GPUs on tensors of the CPU: to test them where there is no GPU.
pub fn emulated<R>(body: impl FnOnce() -> R) -> R {
    within(true, body)
}

/// Runs `body` with the kernels for the CPU, also within [`emulated`].
pub fn suspended<R>(body: impl FnOnce() -> R) -> R {
    within(false, body)
}

fn within<R>(active: bool, body: impl FnOnce() -> R) -> R {
    /// Ends the emulation also where `body` panics, as tests do.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _restore = Restore(ACTIVE.replace(active));
    body()
}

/// What a compiled source exports for each of its kernels.
type Entry = unsafe extern "C" fn(arguments: *const *const c_void, grid: *const u32, threads: u32);

type Libraries = Mutex<HashMap<(&'static str, Variant), Arc<Library>>>;

/// Runs a launch to its end.
///
/// # Errors
/// Where there is no C++ compiler, or the source does not compile.
pub(crate) fn run(launch: &Launch) -> Result<()> {
    let library = library(launch.source, launch.variant)?;
    let symbol = format!("emulate_{}", launch.kernel);
    let load = |source| Error::Load { what: symbol.clone(), source };
    // SAFETY: `exported` gave the function this type.
    let entry = unsafe { library.get::<Entry>(symbol.as_bytes()) }.map_err(load)?;
    let arguments: Vec<*const c_void> = launch.arguments.iter().map(address).collect();
    // SAFETY: the arguments are the kernel's, and their buffers live: the same holds for a launch on a GPU.
    unsafe { entry(arguments.as_ptr(), launch.grid.as_ptr(), launch.threads) };
    Ok(())
}

/// Where an argument's value is.
pub(crate) fn address(argument: &Arg) -> *const c_void {
    match argument {
        Arg::Pointer(value) => std::ptr::from_ref(value).cast(),
        Arg::Long(value) => std::ptr::from_ref(value).cast(),
        Arg::Int(value) => std::ptr::from_ref(value).cast(),
        Arg::Float(value) => std::ptr::from_ref(value).cast(),
    }
}

fn library(source: &'static Source, variant: Variant) -> Result<Arc<Library>> {
    static LIBRARIES: OnceLock<Libraries> = OnceLock::new();
    let libraries = LIBRARIES.get_or_init(Libraries::default);
    let key = (source.name, variant);
    if let Some(library) = libraries.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(library.clone());
    }
    // Not under the lock, so that tests compile in parallel; at worst two compile the same.
    let library = Arc::new(compile(source, variant)?);
    Ok(libraries.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(library).clone())
}

fn compile(source: &'static Source, variant: Variant) -> Result<Library> {
    let failed = |log: String| Error::Compile { source_name: source.name, log };
    let text = variant.text(source).map_err(|error| failed(error.to_string()))?;
    let text = format!("{}\n{text}", include_str!("host.hpp"));
    let folder = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let (code, library) = (folder.path().join("kernels.cpp"), folder.path().join("kernels.so"));
    std::fs::write(&code, text).map_err(|source| Error::Io { path: code.clone(), source })?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
    let output = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-o"])
        .args([&library, &code])
        .output()
        .map_err(|source| Error::Compiler { compiler, source })?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    load(&library)
}

fn load(path: &Path) -> Result<Library> {
    // SAFETY: it was compiled a moment ago from our own text, and has no initialisers.
    unsafe { Library::new(path) }.map_err(|source| Error::Load { what: path.display().to_string(), source })
}
