//! Threads that may wait for a peer.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Waits for a thread to end, but not for longer than this: it may wait itself, for a peer that says nothing.
pub(crate) fn wait_at_most<T>(patience: Duration, thread: &JoinHandle<T>) {
    let start = Instant::now();
    while !thread.is_finished() && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
}
