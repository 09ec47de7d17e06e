//! Runs the binary in a folder of its own.
#![allow(dead_code)] // Each test file uses its part.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};

/// The binary, in a temporary folder.
pub struct Tool(tempfile::TempDir);

impl Tool {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exit code, standard output, standard error.
    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallow"));
        command.args(args).current_dir(self.folder()).envs(variables.iter().copied());
        let out = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (out.status.code(), text(out.stdout), text(out.stderr))
    }

    /// Standard output of a command that must succeed.
    pub fn succeeds(&self, args: &[&str]) -> String {
        let (code, out, errors) = self.run_with(args, &[]);
        assert_eq!(code, Some(0), "{args:?}\n{out}\n{errors}");
        out
    }

    /// Standard output of a command that must fail with this exit code and one line that holds all `parts`; of
    /// parts with a bar between them, one must be there.
    pub fn fails(&self, args: &[&str], code: i32, parts: &[&str]) -> String {
        let (actual, out, errors) = self.run_with(args, &[]);
        assert_eq!(actual, Some(code), "{args:?}\n{out}\n{errors}");
        for part in parts {
            assert!(
                part.split('|').any(|one| errors.contains(one)),
                "{args:?} says nothing of {part}:\n{errors}"
            );
        }
        assert_eq!(errors.matches("error:").count(), 1, "{args:?}: one error, once:\n{errors}");
        assert!(!errors.contains("panicked") && !errors.contains("backtrace"), "{args:?}\n{errors}");
        out
    }

    /// A run of one epoch on the embedded digits.
    pub fn train(&self, run: &str) {
        let args = [
            "train",
            "--data",
            "digits",
            "--model",
            "plain_cnn",
            "--size",
            "8",
            "--epochs",
            "1",
            "--run",
            run,
        ];
        self.succeeds(&args);
    }
}

/// `count` small JPEG files in a folder for each class, of one colour a class.
pub fn photos(folder: &Path, classes: &[&str], count: u32) {
    for (class, name) in classes.iter().enumerate() {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..count {
            let level = 60 + 120 * class as u32;
            let image = RgbImage::from_fn(24, 20, |x, y| {
                Rgb([(level + (x * y + i) % 40) as u8, 90, 200 - level as u8])
            });
            image.save(folder.join(format!("{i}.jpg"))).unwrap();
        }
    }
}
