//! What is said of a download while it runs: a bar where a person looks on, else one line.

use std::io::{IsTerminal, Write, stderr};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

const BAR: &str = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";

/// A download that goes on.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Tells that `file` of `repository` is coming, of whose `size` bytes `had` are there.
    pub fn start(repository: &str, file: &str, size: Option<u64>, had: u64) -> Self {
        if stderr().is_terminal() {
            let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
            bar.set_style(ProgressStyle::with_template(BAR).expect("the template is well formed"));
            bar.set_message(file.to_owned());
            bar.set_position(had);
            return Self { bar: Some(bar) };
        }
        let size = size.map(|size| format!(" ({})", HumanBytes(size))).unwrap_or_default();
        // Nobody may listen, which is no reason not to download.
        let _ = writeln!(stderr(), "downloading {file}{size} of {repository}");
        Self { bar: None }
    }

    /// So many bytes more have come.
    pub fn advance(&mut self, bytes: usize) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes as u64);
        }
    }

    /// All is there.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
