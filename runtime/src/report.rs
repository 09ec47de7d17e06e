//! What `tallow runtime info` prints: the engines of this machine, and where their parts were looked for.
//! Loads libonnxruntime to ask it, and reports instead of failing.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::engines::ort::{cuda_missing, load_library, providers};
use crate::engines::tract;
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
    /// Why its CUDA provider cannot be used; `None` if its files are there (a driver is not looked for).
    pub cuda_missing: Option<String>,
    /// tract's version.
    pub tract: String,
}

/// Looks at the engines of this machine; `library` as in
/// [`EngineOptions::library`](crate::EngineOptions::library).
pub fn runtime_report(library: Option<&Path>) -> RuntimeReport {
    let search = find_library(library);
    let loaded = search.found.as_deref().map(load_library);
    let (onnxruntime, onnxruntime_error) = match loaded {
        Some(Ok(loaded)) => (Some(loaded.version), None),
        Some(Err(reason)) => (None, Some(reason)),
        None => (None, None),
    };
    let built_with = if onnxruntime.is_some() { providers() } else { Vec::new() };
    RuntimeReport {
        cuda_missing: match &search.found {
            Some(path) => cuda_missing(path),
            None => Some("no libonnxruntime".into()),
        },
        providers: built_with.into_iter().map(str::to_owned).collect(),
        onnxruntime,
        onnxruntime_error,
        tract: tract::VERSION.to_owned(),
        search,
    }
}

impl fmt::Display for RuntimeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "libonnxruntime was looked for in:")?;
        for step in &self.search.steps {
            let path = step.path.as_ref().map_or(String::new(), |path| format!("  {}", path.display()));
            writeln!(f, "  {:<20} {}{path}", step.place, step.outcome)?;
        }
        match (&self.onnxruntime, &self.onnxruntime_error) {
            (Some(version), _) => {
                writeln!(f, "ort       ONNX Runtime {version}, providers: {}", self.providers.join(", "))?;
            }
            (None, Some(reason)) => writeln!(f, "ort       the library does not load: {reason}")?,
            (None, None) => writeln!(f, "ort       not available: {}", self.search.remedy())?,
        }
        match &self.cuda_missing {
            Some(reason) => writeln!(f, "ort-cuda  not available: {reason}")?,
            None => writeln!(f, "ort-cuda  its provider library is there")?,
        }
        write!(f, "tract     {}", self.tract)
    }
}
