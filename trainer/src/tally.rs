//! How far work on many things is, from any thread: a bar on a terminal, else a plain line every few seconds.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two plain lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// On standard error.
    Stderr,
    /// Nowhere.
    Nothing,
}

/// A count of what is done.
pub struct Tally {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    bytes: AtomicU64,
    start: Instant,
    bar: Option<ProgressBar>,
    /// When the last plain line was written; `None` where none are.
    last_line: Option<Mutex<Instant>>,
}

impl Tally {
    /// Begins to count up to `total`; `what` is what is done, such as `prepare`.
    pub fn new(show: Show, what: &'static str, total: usize) -> Self {
        let start = Instant::now();
        let terminal = stderr().is_terminal();
        let bar = (show == Show::Stderr && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} {bar:24.cyan/blue} {pos}/{len}  {wide_msg}")
                .expect("the template is a constant, and a test parses it");
            bar.set_style(style.progress_chars("━╸╌"));
            bar.set_prefix(what);
            bar
        });
        let last_line = (show == Show::Stderr && !terminal).then(|| Mutex::new(start));
        let zero = AtomicU64::default;
        Self { what, total: total as u64, done: zero(), bytes: zero(), start, bar, last_line }
    }

    /// Counts `done` things of `bytes` bytes in all.
    pub fn add(&self, done: usize, bytes: usize) {
        let done = self.done.fetch_add(done as u64, Ordering::Relaxed) + done as u64;
        let bytes = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(describe(done, self.total, bytes, self.start.elapsed()));
        }
        if let Some(last) = &self.last_line {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= INTERVAL {
                *last = Instant::now();
                let text = describe(done, self.total, bytes, self.start.elapsed());
                // Progress that cannot be shown is no reason to stop.
                let _ = writeln!(stderr(), "{} {done}/{}  {text}", self.what, self.total);
            }
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `340/s  36.2 MB/s  12 s left`.
fn describe(done: u64, total: u64, bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let left = total.saturating_sub(done) as f64 * seconds / done.max(1) as f64;
    let speed = bytes as f64 / seconds / 1e6;
    format!("{:.0}/s  {speed:.1} MB/s  {left:.0} s left", done as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_and_time_left_are_told() {
        let text = describe(50, 200, 5_000_000, Duration::from_secs(2));
        assert_eq!(text, "25/s  2.5 MB/s  6 s left");
        assert_eq!(describe(0, 0, 0, Duration::ZERO), "0/s  0.0 MB/s  0 s left");
    }

    #[test]
    fn any_thread_may_count() {
        for show in [Show::Stderr, Show::Nothing] {
            let tally = Tally::new(show, "test", 100);
            std::thread::scope(|scope| {
                (0..4).for_each(|_| drop(scope.spawn(|| (0..25).for_each(|_| tally.add(1, 10)))));
            });
            assert_eq!(tally.done.load(Ordering::Relaxed), 100);
        }
    }
}
