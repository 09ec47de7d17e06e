//! Waiting, for so long at most, for what a peer may hold up.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Asks every millisecond until there is an answer; `None` where there is none in time.
pub(crate) fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || start.elapsed() >= patience {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a thread to end, but not for longer than this: it may wait itself, for a peer that says nothing.
pub(crate) fn wait_at_most<T>(patience: Duration, thread: &JoinHandle<T>) {
    within(patience, || thread.is_finished().then_some(()));
}
