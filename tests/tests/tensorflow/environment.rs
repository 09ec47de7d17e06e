//! The Python environment that has TensorFlow: found, or made once and kept in the user's cache. And a browser to look
//! at TensorBoard with: found, or not.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};

use crate::fetched::{Fetched, run, without};

/// Names a Python that has what `requirements.txt` lists.
const PYTHON: &str = "TALLOW_TENSORFLOW_PYTHON";
/// Set to 1 to make a missing environment a failure.
const REQUIRE: &str = "TALLOW_REQUIRE_TENSORFLOW";
/// Set to 1 to make a missing browser a failure.
const REQUIRE_BROWSER: &str = "TALLOW_REQUIRE_CHROMIUM";
/// What Chromium is called.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// The environment, or why there is none.
pub struct Environment(Result<Arc<Python>, String>);

impl Environment {
    /// For listing tests.
    pub fn unmade() -> Self {
        Self(Err("not made to list tests".into()))
    }

    /// Finds or makes the environment.
    pub fn prepare() -> Self {
        let python = prepare();
        if let Err(reason) = &python {
            println!("TensorFlow's tests do not run: {reason}");
        }
        Self(python.map(Arc::new))
    }

    /// A test that needs the environment.
    pub fn trial(
        &self,
        name: &str,
        test: impl FnOnce(&Python) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        match &self.0 {
            Ok(python) => {
                let python = python.clone();
                Trial::test(name, move || test(&python))
            }
            Err(reason) => without(name, reason, REQUIRE),
        }
    }

    /// A test that needs the environment and Chromium, whose program it is given.
    pub fn browser_trial(
        &self,
        name: &str,
        test: impl FnOnce(&Python, &Path) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let programs =
            std::env::split_paths(&folders).flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
        match programs.into_iter().find(|program| program.is_file()) {
            Some(browser) => self.trial(name, move |python| test(python, &browser)),
            None => without(name, "Chromium is not on the PATH", REQUIRE_BROWSER),
        }
    }
}

/// A Python with TensorFlow.
pub struct Python(PathBuf);

impl Python {
    /// Runs a script of `tests/tensorflow`. What it prints is shown; it fails by its exit status.
    pub fn run(&self, script: &str, arguments: &[&OsStr]) -> Result<(), Failed> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tensorflow").join(script);
        let mut command = Command::new(&self.0);
        command.arg(&script).args(arguments);
        // TensorFlow greets at length otherwise.
        command.env("TF_CPP_MIN_LOG_LEVEL", "3").env("CUDA_VISIBLE_DEVICES", "");
        let output = command.output().map_err(|error| format!("{}: {error}", self.0.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        println!("{text}");
        if output.status.success() {
            return Ok(());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} failed:\n{text}\n{errors}", script.display()).into())
    }
}

fn prepare() -> Result<Python, String> {
    if let Some(python) = std::env::var_os(PYTHON) {
        return Ok(Python(python.into()));
    }
    let fetched = Fetched::new("tensorflow")?;
    let folder = &fetched.folder;
    let binaries = folder.join(if cfg!(windows) { "Scripts" } else { "bin" });
    let python = Python(binaries.join("python"));
    if fetched.is_complete() {
        return Ok(python);
    }
    println!("making {} (once; about a minute)", folder.display());
    let _ = fs::remove_dir_all(folder);
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    run(Command::new(&python.0).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&fetched.requirements))?;
    fetched.complete()?;
    Ok(python)
}
