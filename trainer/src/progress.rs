//! What a user sees while a network trains: a progress bar on a terminal, else a plain line every few seconds.
//! One pass over a data set is a [`Pass`]; epoch, batch, loss, top-1, images/s and time left are shown.
//! All of it goes to standard error, and nothing that goes wrong there disturbs the training.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two plain lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// The bar on a terminal. It is short, so that 80 columns show the speed and the time left.
const TEMPLATE: &str = "{prefix} {bar:10.cyan/blue} {pos}/{len}  {wide_msg}";

/// One pass over a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// What is done, such as `train` or `validate`.
    pub what: &'static str,
    /// The epoch, from 1.
    pub epoch: u64,
    /// Epochs in the run.
    pub epochs: u64,
    /// Batches in the pass.
    pub batches: usize,
    /// Batches that were done before a resumption.
    pub first_batch: usize,
}

/// Shows how far the training is.
pub struct Progress {
    display: Display,
    pass: Option<Running>,
}

enum Display {
    Hidden,
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
}

/// A pass and what was done of it.
struct Running {
    pass: Pass,
    batches: usize,
    images: usize,
    start: Instant,
    /// When the last plain line was written, or the pass began.
    last_line: Instant,
}

impl Progress {
    /// On standard error: a bar if it is a terminal, else plain lines.
    pub fn stderr() -> Self {
        if stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
            Self { display: Display::Bar(bar), pass: None }
        } else {
            Self::lines(Box::new(stderr()))
        }
    }

    /// Plain lines to `out`.
    pub fn lines(out: Box<dyn Write + Send>) -> Self {
        Self { display: Display::Lines(out), pass: None }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { display: Display::Hidden, pass: None }
    }

    /// Begins a pass; one that is under way ends.
    pub fn start(&mut self, pass: Pass) {
        self.start_at(pass, Instant::now());
    }

    fn start_at(&mut self, pass: Pass, now: Instant) {
        self.finish();
        self.pass = Some(Running { pass, batches: 0, images: 0, start: now, last_line: now });
        if let Display::Bar(bar) = &mut self.display {
            *bar = ProgressBar::with_draw_target(Some(pass.batches as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(TEMPLATE)
                .expect("the template is a constant, and a test parses it");
            bar.set_style(style.progress_chars("━╸╌"));
            bar.set_prefix(prefix(&pass));
            bar.set_position(pass.first_batch as u64);
        }
    }

    /// Tells that a batch of `images` is done, with the pass's mean loss and top-1 (0 to 1) so far.
    pub fn step(&mut self, images: usize, loss: f64, top1: f64) {
        self.step_at(images, loss, top1, Instant::now());
    }

    fn step_at(&mut self, images: usize, loss: f64, top1: f64, now: Instant) {
        let Some(running) = &mut self.pass else { return };
        running.batches += 1;
        running.images += images;
        match &mut self.display {
            Display::Hidden => {}
            Display::Bar(bar) => {
                bar.set_position((running.pass.first_batch + running.batches) as u64);
                bar.set_message(running.describe(loss, top1, now));
            }
            Display::Lines(out) => {
                if now.duration_since(running.last_line) >= INTERVAL {
                    running.last_line = now;
                    let (pass, done) = (&running.pass, running.pass.first_batch + running.batches);
                    let text = running.describe(loss, top1, now);
                    // Progress that cannot be shown is no reason to stop.
                    let _ = writeln!(out, "{} {done}/{}  {text}", prefix(pass), pass.batches);
                }
            }
        }
    }

    /// Ends the pass and takes its bar away.
    pub fn finish(&mut self) {
        self.pass = None;
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }

    /// Writes a line that stays, above the bar if there is one.
    pub fn message(&mut self, text: &str) {
        match &mut self.display {
            Display::Hidden => {}
            Display::Bar(bar) => bar.suspend(|| {
                let _ = writeln!(stderr(), "{text}");
            }),
            Display::Lines(out) => {
                let _ = writeln!(out, "{text}");
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Running {
    /// `340 img/s  0:12 left, run 5:40  loss 1.2345  top-1 56.10 %`: a narrow terminal cuts off the end.
    fn describe(&self, loss: f64, top1: f64, now: Instant) -> String {
        let seconds = now.duration_since(self.start).as_secs_f64();
        let mut text = String::new();
        if seconds > 0.0 && self.batches > 0 {
            let per_batch = seconds / self.batches as f64;
            let left = self.pass.batches.saturating_sub(self.pass.first_batch + self.batches) as f64;
            text += &format!("{:.0} img/s  {} left", self.images as f64 / seconds, clock(left * per_batch));
            let more = self.pass.epochs.saturating_sub(self.pass.epoch) as f64 * self.pass.batches as f64;
            if self.pass.what == TRAIN && more > 0.0 {
                text += &format!(", run {}", clock((left + more) * per_batch));
            }
            text += "  ";
        }
        match top1.is_nan() {
            // What a GPU has counted is read now and then, and not before the first step is done.
            true => text.trim_end().to_owned(),
            false => text + &format!("loss {loss:.4}  top-1 {:.2} %", top1 * 100.0),
        }
    }
}

/// What the passes that train are called; only for them the time that the whole run still takes is shown.
pub const TRAIN: &str = "train";

fn prefix(pass: &Pass) -> String {
    let digits = pass.epochs.to_string().len();
    format!("epoch {:>digits$}/{} {}", pass.epoch, pass.epochs, pass.what)
}

/// Seconds as m:ss or h:mm:ss.
fn clock(seconds: f64) -> String {
    let total = seconds.round().max(0.0) as u64;
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn pass(what: &'static str) -> Pass {
        Pass { what, epoch: 3, epochs: 10, batches: 100, first_batch: 20 }
    }

    #[test]
    fn plain_lines_come_at_intervals_and_tell_speed_and_time_left() {
        let out = Shared::default();
        let mut progress = Progress::lines(Box::new(out.clone()));
        let start = Instant::now();
        progress.start_at(pass(TRAIN), start);
        for batch in 1..=40 {
            progress.step_at(32, 1.5, 0.625, start + Duration::from_millis(600 * batch));
        }
        progress.message("epoch 3 done");
        progress.finish();
        progress.step_at(32, 1.5, 0.5, start + Duration::from_secs(100));
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let expected = "epoch  3/10 train 37/100  53 img/s  0:38 left, run 7:38  loss 1.5000  top-1 62.50 %\n\
                        epoch  3/10 train 54/100  53 img/s  0:28 left, run 7:28  loss 1.5000  top-1 62.50 %\n\
                        epoch 3 done\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_training_tells_when_the_run_ends() {
        let start = Instant::now();
        let running = Running { pass: pass("validate"), batches: 40, images: 40, start, last_line: start };
        let text = running.describe(f64::NAN, 0.0, start + Duration::from_secs(4000));
        assert_eq!(text, "0 img/s  1:06:40 left  loss NaN  top-1 0.00 %");
        let text = running.describe(f64::NAN, f64::NAN, start + Duration::from_secs(4000));
        assert_eq!(text, "0 img/s  1:06:40 left", "nothing is known yet");
    }

    #[test]
    fn eighty_columns_show_the_speed_and_the_time_left() {
        let (start, pass) = (Instant::now(), Pass { epochs: 300, ..pass(TRAIN) });
        let running = Running { pass, batches: 40, images: 40 * 1024, start, last_line: start };
        let message = running.describe(1.5, 0.625, start + Duration::from_secs(40));
        let line = TEMPLATE
            .replace("{prefix}", &prefix(&pass))
            .replace("{bar:10.cyan/blue}", &"━".repeat(10))
            .replace("{pos}/{len}", "60/100")
            .replace("{wide_msg}", &message);
        let shown: String = line.chars().take(80).collect();
        assert!(shown.contains("1024 img/s  0:40 left, run 8:15:40"), "{shown}");
    }

    #[test]
    fn bars_and_hidden_progress_take_everything() {
        let bar = ProgressBar::hidden();
        for display in [Display::Bar(bar), Display::Hidden] {
            let mut progress = Progress { display, pass: None };
            progress.step(1, 0.0, 0.0);
            progress.start(pass(TRAIN));
            (0..90).for_each(|_| progress.step(8, 0.1, 0.9));
            progress.start(pass("validate"));
            progress.finish();
        }
    }
}
