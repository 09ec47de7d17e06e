//! Ctrl-C: the first asks the command to stop at a good place, the second ends it at once.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::failure::INTERRUPTED;
use crate::output::note;

static STOP: AtomicBool = AtomicBool::new(false);

/// Begins to listen; what is returned is set by the first Ctrl-C, which also prints `message`.
pub fn listen(message: &'static str) -> Result<&'static AtomicBool> {
    ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
        note!("{message}");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(&STOP)
}

/// Sets what [`listen`] gives when standard input ends, too.
pub fn at_end_of_stdin() {
    when_stdin_ends(|| STOP.store(true, Ordering::Relaxed));
}

/// Does something when standard input ends.
pub fn when_stdin_ends(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        // Nobody writes anything there; an error means that it is gone as well.
        let _ = std::io::stdin().lock().read_to_end(&mut vec![]);
        work();
    });
}
