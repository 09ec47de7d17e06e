//! Where libonnxruntime is looked for, in order: a path that was given, TALLOW_ONNXRUNTIME, ORT_DYLIB_PATH,
//! and the folders in the user's cache that `tallow runtime install` fills, that for GPUs first.
//! The first place that was named decides: a path that does not exist is not passed over for another.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::install::Package;

const TALLOW_VARIABLE: &str = "TALLOW_ONNXRUNTIME";
const ORT_VARIABLE: &str = "ORT_DYLIB_PATH";

/// One place and what was found there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SearchStep {
    /// Who named the place: `EngineOptions::library`, where a caller gave one, `TALLOW_ONNXRUNTIME`, `ORT_DYLIB_PATH`,
    /// `the GPU cache` or `the cache`.
    pub place: &'static str,
    /// The file or folder; `None` where nobody named one.
    pub path: Option<PathBuf>,
    /// `found`, `not set`, `not looked at`, or what is wrong.
    pub outcome: String,
}

/// The search for libonnxruntime, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibrarySearch {
    /// The library, if one was found.
    pub found: Option<PathBuf>,
    /// Every place in order.
    pub steps: Vec<SearchStep>,
}

impl LibrarySearch {
    /// What to do where nothing was found: an installation does not help as long as a variable names another place.
    pub fn remedy(&self) -> String {
        let named = self.steps.iter().find(|step| step.path.is_some()).map(|step| step.place);
        match named {
            Some(place @ (TALLOW_VARIABLE | ORT_VARIABLE)) => {
                format!("correct {place}, or unset it and run `tallow runtime install`")
            }
            _ => format!("run `tallow runtime install`, or name one in {TALLOW_VARIABLE}"),
        }
    }

    /// Why nothing was found, on one line.
    pub fn reason(&self) -> String {
        let looked: Vec<String> = self
            .steps
            .iter()
            .filter_map(|step| {
                Some(format!("{} {}: {}", step.place, step.path.as_ref()?.display(), step.outcome))
            })
            .collect();
        format!(
            "no libonnxruntime ({})",
            if looked.is_empty() { "no place to look".into() } else { looked.join("; ") }
        )
    }
}

/// Looks for libonnxruntime; `given` comes before everything else. A folder stands for the library inside it.
pub fn find_library(given: Option<&Path>) -> LibrarySearch {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // Nobody has to have the one for GPUs, so it decides only where it was installed.
    let for_gpus = library_folder(Package::Gpu).filter(|folder| library_in(folder).is_some());
    // No flag names one: a place that only a caller in Rust can give is told where one did.
    let given = given.map(|path| ("EngineOptions::library", Some(path.to_owned())));
    search(given.into_iter().chain([
        (TALLOW_VARIABLE, variable(TALLOW_VARIABLE)),
        (ORT_VARIABLE, variable(ORT_VARIABLE)),
        ("the GPU cache", for_gpus),
        ("the cache", library_folder(Package::Cpu)),
    ]))
}

fn search(places: impl IntoIterator<Item = (&'static str, Option<PathBuf>)>) -> LibrarySearch {
    let mut found = None;
    let mut decided = false;
    let steps = places.into_iter().map(|(place, path)| {
        let outcome = match &path {
            _ if decided => "not looked at".into(),
            None => "not set".into(),
            Some(path) => {
                decided = true;
                found = library_in(path);
                match (&found, path.exists()) {
                    (Some(_), _) => "found".into(),
                    (None, true) => format!("holds no {DLL_PREFIX}onnxruntime{DLL_SUFFIX}"),
                    (None, false) => "does not exist".into(),
                }
            }
        };
        SearchStep { place, path, outcome }
    });
    let steps = steps.collect();
    LibrarySearch { found, steps }
}

/// The library at a path: the file itself, or the one inside a folder.
pub(crate) fn library_in(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let mut names: Vec<PathBuf> = fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    names.into_iter().find(|file| file.is_file() && is_library(file))
}

/// `libonnxruntime.so`, `libonnxruntime.so.1.32.0`, `libonnxruntime.1.32.0.dylib`, `onnxruntime.dll`.
pub(crate) fn is_library(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let Some(rest) = name.strip_prefix(DLL_PREFIX).and_then(|name| name.strip_prefix("onnxruntime")) else {
        return false;
    };
    rest.starts_with('.') && (rest.ends_with(DLL_SUFFIX) || rest.contains(&format!("{DLL_SUFFIX}.")))
}

/// The folder that an installation fills: `<cache>/tallow/onnxruntime-<version>`, or `onnxruntime-gpu-<version>`.
///
/// `<cache>` is XDG_CACHE_HOME, or `.cache` in the home folder; `None` where neither is known.
pub(crate) fn library_folder(package: Package) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let home = || set("HOME").or_else(|| set("USERPROFILE")).map(|home| home.join(".cache"));
    Some(cache.or_else(home)?.join("tallow").join(format!("{}-{}", package.name(), package.version())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_is_named_decides() {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join(format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}"));
        fs::write(&library, b"").unwrap();
        let folder = Some(dir.path().to_owned());
        let nowhere = Some(PathBuf::from("/nowhere/lib.so"));

        let search1 = search([("a", None), ("b", folder.clone()), ("c", nowhere.clone()), ("d", None)]);
        assert_eq!(search1.found, Some(library.clone()));
        let outcomes: Vec<&str> = search1.steps.iter().map(|step| step.outcome.as_str()).collect();
        assert_eq!(outcomes, ["not set", "found", "not looked at", "not looked at"]);

        let search2 = search([("a", nowhere), ("b", folder.clone()), ("c", None), ("d", None)]);
        assert_eq!(search2.found, None);
        assert_eq!(
            search2.reason(),
            format!(
                "no libonnxruntime (a /nowhere/lib.so: does not exist; b {}: not looked at)",
                dir.path().display()
            )
        );

        fs::remove_file(&library).unwrap();
        let search3 = search([("a", None), ("b", None), ("c", None), ("d", folder)]);
        assert!(search3.reason().contains("holds no "), "{}", search3.reason());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn providers_and_python_modules_are_not_the_library() {
        for (name, is) in [
            ("libonnxruntime.so", true),
            ("libonnxruntime.so.1.32.0", true),
            ("libonnxruntime_providers_shared.so", false),
            ("libonnxruntime_providers_cuda.so", false),
            ("onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so", false),
            ("libonnxruntime.txt", false),
        ] {
            assert_eq!(is_library(Path::new(name)), is, "{name}");
        }
    }
}
