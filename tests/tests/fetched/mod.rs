//! What tests fetch from PyPI once and keep in the user's cache, and how those report that lack it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

/// Written last, with the requirements that were fetched.
const COMPLETE: &str = "complete.txt";

/// A folder in the user's cache for what a file of requirements lists.
pub struct Fetched {
    pub folder: PathBuf,
    pub requirements: PathBuf,
    wanted: String,
}

impl Fetched {
    /// The folder `tallow/<name>` for `tests/<name>/requirements.txt`.
    pub fn new(name: &str) -> Result<Self, String> {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("requirements.txt");
        let wanted =
            fs::read_to_string(&requirements).map_err(|e| format!("{}: {e}", requirements.display()))?;
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        let folder = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("tallow").join(name);
        Ok(Self { folder, requirements, wanted })
    }

    /// Whether everything is there.
    pub fn is_complete(&self) -> bool {
        fs::read_to_string(self.folder.join(COMPLETE)).is_ok_and(|fetched| fetched == self.wanted)
    }

    /// Says that everything is there from now on.
    pub fn complete(&self) -> Result<(), String> {
        let file = self.folder.join(COMPLETE);
        fs::write(&file, &self.wanted).map_err(|e| format!("{}: {e}", file.display()))
    }
}

/// A test that cannot run: ignored, or failed where the variable `require` is 1.
pub fn without(name: &str, reason: &str, require: &str) -> Trial {
    if std::env::var(require).is_ok_and(|value| value == "1") {
        let reason = format!("{reason} ({require} is set)");
        return Trial::test(name, move || Err(reason.into()));
    }
    Trial::test(name, || Ok(())).with_ignored_flag(true)
}

/// Runs a command; an error is the last line of what it says.
pub fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(format!("{name}: {last}"))
}
