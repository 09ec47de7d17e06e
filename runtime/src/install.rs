//! Puts libonnxruntime into the user's cache, out of the wheel that ONNX Runtime's authors publish.
//! The wheel comes through `python3 -m pip download`, so that the user's own index, mirror and proxy are used;
//! its version and SHA-256 are pinned here, and nothing of it is run before the sum is checked.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use crate::error::{RuntimeError, one_line};
use crate::library::{is_library, library_folder, library_in};

/// The version of ONNX Runtime that is installed. Its minor version must not be below the `api-24` of `ort`.
pub const ONNXRUNTIME_VERSION: &str = "1.32.0";

/// The version of ONNX Runtime with providers for GPUs that is installed: the newest there is, built for CUDA 13 and
/// cuDNN 9. It is released after the other.
pub const ONNXRUNTIME_GPU_VERSION: &str = "1.31.1";

/// Which of ONNX Runtime's packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Package {
    /// For the CPU.
    #[default]
    Cpu,
    /// With the providers for CUDA and TensorRT; some 250 MB to download. CUDA and cuDNN themselves are not in it.
    Gpu,
}

impl Package {
    /// Its name on PyPI.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Package::Cpu => "onnxruntime",
            Package::Gpu => "onnxruntime-gpu",
        }
    }

    /// The version that is installed.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Package::Cpu => ONNXRUNTIME_VERSION,
            Package::Gpu => ONNXRUNTIME_GPU_VERSION,
        }
    }

    /// Whether there is a wheel for this system.
    pub(crate) fn is_published_here(self) -> bool {
        wheel_for(self, std::env::consts::OS, std::env::consts::ARCH).is_ok()
    }

    fn wheels(self) -> &'static [Wheel] {
        match self {
            Package::Cpu => &WHEELS,
            Package::Gpu => &GPU_WHEELS,
        }
    }
}

/// A published wheel. Those for CPython 3.11 are taken whatever Python is here: only the library inside is used.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

const WHEELS: [Wheel; 5] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "366b9e53d07812cc5c92822cecf7563b76a8a0f32ba3bb8dd232a206ac3bcb6c",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "d7e0c45cc5f456ad7805e6dd256a7662736cda9c2fd17becae194eb3c2f6df72",
    },
    Wheel {
        os: "windows",
        arch: "aarch64",
        platform: "win_arm64",
        sha256: "23361cdf98afac352d10aa7d9e0a10ceaeb02d38430fb693c6eff370196db62d",
    },
];

const GPU_WHEELS: [Wheel; 2] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6",
    },
    Wheel {
        os: "windows",
        arch: "x86_64",
        platform: "win_amd64",
        sha256: "fd98341ba71c093153f0dcfc53eb69d57f706866fb45e94e5b0cde5d97a50dbf",
    },
];

/// A library that is ready to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The library's file.
    pub library: PathBuf,
    /// True if it was there before.
    pub already: bool,
}

/// Installs libonnxruntime into the user's cache; does nothing if it is there. The one for GPUs has a folder of its own,
/// and is preferred from then on: it runs on the CPU as well.
///
/// Takes Python 3.8 or newer with pip, and reaches whatever package index pip is set up for. The folder appears
/// complete or not at all, so that an interrupted installation leaves nothing behind that looks like one.
///
/// # Errors
/// [`RuntimeError::Install`] names the step: no wheel for this platform, no Python, no pip, no network, a wrong
/// checksum, a disk that cannot be written.
pub fn install(package: Package) -> Result<Installed, RuntimeError> {
    let folder = library_folder(package).ok_or_else(|| {
        failed("neither XDG_CACHE_HOME nor HOME is set", "set one of them to a folder that can be written")
    })?;
    install_into(package, &folder, "python3")
}

fn install_into(package: Package, folder: &Path, python: &str) -> Result<Installed, RuntimeError> {
    if let Some(library) = library_in(folder) {
        return Ok(Installed { library, already: true });
    }
    let wheel = wheel_for(package, std::env::consts::OS, std::env::consts::ARCH)?;
    let disk = |e: std::io::Error| failed(&format!("{}: {e}", folder.display()), remedy(&e));
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(disk)?;
    // In the same folder, so that the last step is a rename and not a copy.
    let work = tempfile::Builder::new().prefix(".onnxruntime-").tempdir_in(parent).map_err(disk)?;

    let file = download(package, wheel, work.path(), python)?;
    verify(&file, wheel.sha256)?;
    let ready = work.path().join("ready");
    unpack(&file, work.path(), &ready, python)?;
    if let Err(error) = fs::rename(&ready, folder) {
        // Another installation may have finished in the meantime; its result is as good.
        if library_in(folder).is_none() {
            return Err(disk(error));
        }
    }
    let library = library_in(folder).ok_or_else(|| {
        failed(
            &format!("{} holds no library after unpacking", folder.display()),
            "remove that folder and try again",
        )
    })?;
    Ok(Installed { library, already: false })
}

fn wheel_for(package: Package, os: &str, arch: &str) -> Result<&'static Wheel, RuntimeError> {
    package.wheels().iter().find(|wheel| (wheel.os, wheel.arch) == (os, arch)).ok_or_else(|| {
        failed(
            &format!("no package {} {} is pinned for {os} on {arch}", package.name(), package.version()),
            "name a library of yours in TALLOW_ONNXRUNTIME, or use --engine tract",
        )
    })
}

/// Downloads the wheel into `into` and returns its file.
fn download(package: Package, wheel: &Wheel, into: &Path, python: &str) -> Result<PathBuf, RuntimeError> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--no-deps", "--only-binary=:all:", "--implementation", "cp"])
        .args(["--python-version", "3.11", "--abi", "cp311", "--platform", wheel.platform])
        .arg(format!("{}=={}", package.name(), package.version()))
        .arg("--dest")
        .arg(into);
    let output = run(&mut pip, python)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("No module named pip") {
            return Err(failed(
                &format!("{python} has no pip"),
                "install pip (Debian: apt install python3-pip)",
            ));
        }
        let errors: Vec<&str> =
            text.lines().filter(|line| line.contains("ERROR") || line.contains("rror:")).collect();
        let reason = errors.last().copied().or(text.lines().last()).unwrap_or("pip gave no reason");
        let remedy = if is_full(&text) {
            ROOM
        } else {
            "check the network and pip's settings, name a library of yours in TALLOW_ONNXRUNTIME, or use --engine tract"
        };
        let problem =
            format!("pip cannot download {} {}: {}", package.name(), package.version(), one_line(reason));
        return Err(failed(&problem, remedy));
    }
    let files = fs::read_dir(into).map_err(|e| failed(&one_line(e), "try again"))?;
    files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| failed("pip reported success and left no wheel", "update pip"))
}

fn verify(file: &Path, expected: &str) -> Result<(), RuntimeError> {
    let unreadable = |e: std::io::Error| failed(&format!("{}: {e}", file.display()), "try again");
    let mut reader = fs::File::open(file).map_err(unreadable)?;
    let (mut hasher, mut block) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = reader.read(&mut block).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        hasher.update(&block[..read]);
    }
    let actual: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if actual == expected {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Err(failed(
        &format!("{name} has the SHA-256 {actual}, expected {expected}"),
        "nothing was installed: the package index serves another file than its authors published",
    ))
}

/// Takes the library, what it loads beside it, and its licences out of the wheel into the new folder `ready`.
fn unpack(wheel: &Path, work: &Path, ready: &Path, python: &str) -> Result<(), RuntimeError> {
    let all = work.join("wheel");
    let output = run(Command::new(python).args(["-m", "zipfile", "-e"]).args([wheel, &all]), python)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason =
            format!("the wheel cannot be unpacked: {}", text.lines().last().unwrap_or("no reason given"));
        return Err(failed(&reason, ROOM));
    }
    let disk = |e: std::io::Error| failed(&format!("{}: {e}", ready.display()), ROOM);
    fs::create_dir(ready).map_err(disk)?;
    for folder in [all.join("onnxruntime"), all.join("onnxruntime").join("capi")] {
        for file in fs::read_dir(&folder).map_err(disk)?.flatten().map(|entry| entry.path()) {
            let name = file.file_name().unwrap_or_default().to_owned();
            let text = name.to_string_lossy();
            let wanted = is_library(&file)
                || text.contains("onnxruntime_providers")
                || text == "LICENSE"
                || text == "ThirdPartyNotices.txt";
            if wanted {
                fs::rename(&file, ready.join(&name)).map_err(disk)?;
            }
        }
    }
    Ok(())
}

fn run(command: &mut Command, python: &str) -> Result<Output, RuntimeError> {
    command.output().map_err(|e| {
        failed(
            &format!("{python} cannot be run: {e}"),
            "install Python 3.8 or newer with pip, or use --engine tract",
        )
    })
}

const ROOM: &str =
    "free some space (pip also writes to the folder for temporary files, TMPDIR), or set XDG_CACHE_HOME";

/// What to do about a folder that the library cannot be put into.
fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
            "set XDG_CACHE_HOME to a folder that can be written"
        }
        _ => ROOM,
    }
}

/// Whether another program's messages say that a disk is full.
fn is_full(text: &str) -> bool {
    text.contains("No space left") || text.contains("Errno 28") || text.contains("Disk quota exceeded")
}

fn failed(reason: &str, remedy: &str) -> RuntimeError {
    RuntimeError::Install { reason: reason.to_owned(), remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpinned_platform_and_a_missing_python_are_errors_with_a_remedy() {
        let text = wheel_for(Package::Cpu, "plan9", "mips").err().unwrap().to_string();
        assert!(
            text.contains("is pinned for plan9 on mips; name a library of yours in TALLOW_ONNXRUNTIME"),
            "{text}"
        );

        let text = wheel_for(Package::Gpu, "linux", "aarch64").err().unwrap().to_string();
        assert!(text.contains("no package onnxruntime-gpu 1."), "{text}");

        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("onnxruntime-x");
        let text = install_into(Package::Cpu, &folder, "no-such-python").unwrap_err().to_string();
        assert!(text.contains("no-such-python cannot be run"), "{text}");
        assert!(!folder.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the working folder is removed");
    }

    #[test]
    fn a_wheel_with_another_checksum_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some.whl");
        fs::write(&file, b"abc").unwrap();
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        verify(&file, sum).unwrap();
        let text = verify(&file, WHEELS[0].sha256).unwrap_err().to_string();
        assert!(text.contains(&format!("some.whl has the SHA-256 {sum}, expected 5a34fc4d")), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn what_pip_says_reaches_the_user_on_one_line() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        for (says, expected) in [
            ("/usr/bin/python3: No module named pip", "fake has no pip; install pip"),
            (
                "WARNING: retrying\nERROR: No matching distribution found for onnxruntime",
                "No matching distribution",
            ),
            (
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
                "; free some space",
            ),
        ] {
            let fake = dir.path().join("fake");
            fs::write(&fake, format!("#!/bin/sh\nprintf '%s\\n' '{says}' >&2\nexit 1\n")).unwrap();
            fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
            let text = install_into(Package::Gpu, &dir.path().join("out"), fake.to_str().unwrap())
                .unwrap_err()
                .to_string();
            assert!(text.contains(expected) && !text.contains('\n'), "{text}");
        }
    }
}
