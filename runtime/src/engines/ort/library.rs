//! libonnxruntime, loaded at run time and never linked. A library is always opened by path with an error to report,
//! because `ort` by itself would panic without one. A process holds one library; it stays loaded.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{CPU, CUDA, ExecutionProvider, TensorRT};

use crate::error::one_line;

/// What to do about a missing library.
pub(crate) const LIBRARY_REMEDY: &str =
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

/// The execution providers that the loaded library was built with, of those that this crate uses.
pub(crate) fn providers() -> Vec<&'static str> {
    fn named<P: ExecutionProvider>() -> Option<&'static str> {
        P::is_available().unwrap_or(false).then_some(P::NAME)
    }
    [named::<TensorRT>(), named::<CUDA>(), named::<CPU>()].into_iter().flatten().collect()
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
