//! Watching over the other processes while none of them is talked to: a GPU that waits for another in a sum of NCCL
//! does not notice that the other will never come.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Communicator;
use crate::error::{Error, Result};
use crate::thread::wait_at_most;

/// How long a process that ends waits for the others to hear of it.
const PARTING: Duration = Duration::from_secs(3);

/// A thread that hears of all the other processes every now and then. Each has one; it ends, without a loss, as soon as
/// any of them drops its own, which is then done with all that the others could wait for.
pub struct Watch {
    communicator: Arc<dyn Communicator>,
    /// The reason for which this process ends, and who is to be told that the others know.
    reasons: Option<Sender<(usize, String, Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches by a communicator that nothing else uses. `lost` is called, by another thread, with the error of a process
    /// that has ended, or is silent for longer than the communicator waits.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn new(
        communicator: Arc<dyn Communicator>,
        every: Duration,
        lost: impl FnOnce(Error) + Send + 'static,
    ) -> Result<Self> {
        let rank = communicator.rank();
        let (reasons, incoming) = channel();
        let watched = communicator.clone();
        let work = move || {
            if let Err(error) = watch(&*watched, every, &incoming) {
                let (origin, reason) = error.origin(rank);
                watched.abort(origin, &reason);
                lost(error);
            }
        };
        let thread = std::thread::Builder::new().name("watch".into()).spawn(work);
        let problem = |error| Error::Thread { rank, problem: format!("cannot be started: {error}") };
        let thread = Some(thread.map_err(problem)?);
        Ok(Self { communicator, reasons: Some(reasons), thread })
    }

    /// As [`Communicator::abort`]; returns when it is said, or the others do not listen.
    pub fn abort(&self, origin: usize, reason: &str) {
        let (told, wait) = channel();
        let said = self.reasons.as_ref().map(|reasons| reasons.send((origin, reason.to_owned(), told)));
        match said {
            // Whether it was said or the thread ended on another's reason, there is no more to do.
            Some(Ok(())) => drop(wait.recv_timeout(PARTING)),
            _ => self.communicator.abort(origin, reason),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort(self.communicator.rank(), "it panicked");
        }
        drop(self.reasons.take());
        if let Some(thread) = self.thread.take() {
            wait_at_most(PARTING, &thread);
        }
    }
}

/// Until a process parts from the others, or is lost.
fn watch(
    communicator: &dyn Communicator,
    every: Duration,
    reasons: &Receiver<(usize, String, Sender<()>)>,
) -> Result<()> {
    loop {
        let parts = match reasons.recv_timeout(every) {
            Ok((origin, reason, told)) => {
                communicator.abort(origin, &reason);
                // Nobody may be waiting for it any more.
                let _ = told.send(());
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        match communicator.gather(&[u8::from(parts)]) {
            Err(error) if !parts => return Err(error),
            Ok(all) if all.iter().all(|parts| *parts == [0]) => {}
            _ => return Ok(()),
        }
    }
}
