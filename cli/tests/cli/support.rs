//! Running the binary, small image folders, and one trained run that all tests share and none changes.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use image::{Rgb, RgbImage};
use tempfile::TempDir;

/// The classes of [`images`]: each has a colour of its own.
pub const CLASSES: [&str; 3] = ["blue sky", "green", "red"];

/// The binary, in a folder and with an environment of its own.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
    // A backtrace would show that an error was a panic, or that a library's stack slipped into a message.
    command.current_dir(folder).env("RUST_BACKTRACE", "1");
    command
}

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Runs the binary in `folder`.
pub fn tallow<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Run {
    command(folder).args(args).output().unwrap().into()
}

/// As [`tallow`], with arguments as one would type them, without blanks in them.
pub fn typed(folder: &Path, line: &str) -> Run {
    tallow(folder, line.split_whitespace())
}

impl Run {
    /// It must have worked; gives what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// It must have worked and printed JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// It must have failed with this code and one line that says all of `parts`.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors[..] else { panic!("not one error but {}: {self:#?}", errors.len()) };
        for part in parts {
            assert!(error.contains(part), "`{part}` is not said: {error}");
        }
        assert!(error.len() < 1500, "too long: {error}");
        for panic in ["panicked", "backtrace", "RUST_BACKTRACE", "thread '"] {
            assert!(!self.err.contains(panic), "{self:#?}");
        }
        let last = self.err.trim_end().lines().last().unwrap_or_default();
        let is_help = last.starts_with("For more information");
        assert!(last == error || is_help, "something follows the error: {self:#?}");
    }
}

/// An image in which the colour of `class` prevails; `variant` makes it another one.
pub fn picture(class: usize, variant: u32) -> RgbImage {
    RgbImage::from_fn(16, 12 + variant % 5, |x, y| {
        let noise = |channel: u32| ((x * 31 + y * 17 + variant * 7 + channel * 53) * 37 % 90) as u8;
        let mut pixel = [noise(0), noise(1), noise(2)];
        pixel[2 - class] = 220;
        Rgb(pixel)
    })
}

/// Writes `train/<class>/<image>` and, if `validation` says so, `validation/<class>/<image>`.
pub fn images(root: &Path, validation: bool) {
    for (part, n) in [("train", 8), ("validation", 3)] {
        if part == "validation" && !validation {
            continue;
        }
        for (class, name) in CLASSES.iter().enumerate() {
            let folder = root.join(part).join(name);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let ending = ["png", "jpg", "bmp", "webp"][i as usize % 4];
                picture(class, i + n).save(folder.join(format!("{i}.{ending}"))).unwrap();
            }
        }
    }
}

/// A folder with images in `data/`.
pub fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    images(&folder.path().join("data"), true);
    folder
}

/// The flags of a training that takes a moment.
pub const QUICK: &str = "train --model plain_cnn --size 8 --batch-size 8 --epochs 2 --warmup 0 --workers 1";

/// The folder with `data/`, a trained `run/` with its `model.onnx` and SavedModel `run/saved_model/`.
/// Tests that change anything take a [`copy`].
pub fn shared() -> &'static Path {
    static SHARED: OnceLock<TempDir> = OnceLock::new();
    let folder = SHARED.get_or_init(|| {
        let folder = workplace();
        typed(folder.path(), &format!("{QUICK} --data data --run run")).ok();
        typed(folder.path(), "export run").ok();
        typed(folder.path(), "export run --format saved-model").ok();
        folder
    });
    folder.path()
}

/// A copy of the shared folder.
pub fn copy() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(shared(), folder.path());
    folder
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Cuts a file in half.
pub fn cut(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// Every file below a folder with its bytes, to see that nothing was changed.
pub fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.append(&mut content(&path)),
            false => found.push((path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

/// Whether libonnxruntime is there. Where it is not, says that `test` did not run, and fails if it had to.
pub fn ort_is_there(test: &str) -> bool {
    let info = typed(Path::new("."), "runtime info --json").json();
    if !info["onnxruntime"].is_null() {
        return true;
    }
    assert!(std::env::var_os("TALLOW_REQUIRE_ORT").is_none(), "{test} needs libonnxruntime");
    // Past the test harness, which shows what passing tests print to nobody.
    let _ = writeln!(std::io::stderr(), "{test}: NOT RUN, there is no libonnxruntime");
    false
}
