//! Sums of tensors over all ranks while the caller goes on.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use candle_core::{Device, Shape, Tensor};

use crate::Communicator;
use crate::error::{Error, Result};

/// Sums flat tensors of f32 over all ranks, in the order in which they are given. All ranks give tensors of the same
/// lengths in the same order.
pub trait SumTensors {
    /// Begins with a tensor, and does not wait for it.
    ///
    /// # Errors
    /// Where the tensor cannot be read or an earlier sum failed.
    fn start(&mut self, tensor: Tensor) -> Result<()>;

    /// Waits for all that was begun, and gives the sums in that order.
    ///
    /// # Errors
    /// Those of a [`Communicator`].
    fn finish(&mut self) -> Result<Vec<Tensor>>;
}

/// Sums on the host, by a thread with a communicator of its own.
pub struct InBackground {
    rank: usize,
    jobs: Option<Sender<Vec<f32>>>,
    sums: Receiver<Result<Vec<f32>>>,
    thread: Option<JoinHandle<()>>,
    /// Where the sums that are under way belong.
    pending: Vec<(Shape, Device)>,
}

impl InBackground {
    /// With a communicator that nothing else uses.
    ///
    /// # Errors
    /// [`Error::Thread`].
    pub fn new(communicator: Arc<dyn Communicator>) -> Result<Self> {
        let rank = communicator.rank();
        let (jobs, incoming) = channel::<Vec<f32>>();
        let (outgoing, sums) = channel();
        let work = move || {
            for mut values in incoming {
                let done = communicator.all_reduce(&mut values).map(|()| values);
                if let Err(error) = &done {
                    // The next rank waits for this one's part.
                    let (origin, reason) = error.origin(rank);
                    communicator.abort(origin, &reason);
                }
                let failed = done.is_err();
                if outgoing.send(done).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("all-reduce".into()).spawn(work);
        let problem = |error| Error::Thread { rank, problem: format!("cannot be started: {error}") };
        let thread = Some(thread.map_err(problem)?);
        Ok(Self { rank, jobs: Some(jobs), sums, thread, pending: vec![] })
    }

    fn result(&self) -> Result<Vec<f32>> {
        let gone = |_| Error::Thread { rank: self.rank, problem: "has ended".into() };
        self.sums.recv().map_err(gone)?
    }
}

impl SumTensors for InBackground {
    fn start(&mut self, tensor: Tensor) -> Result<()> {
        let values = tensor.flatten_all()?.to_vec1()?;
        self.pending.push((tensor.shape().clone(), tensor.device().clone()));
        if self.jobs.as_ref().is_some_and(|jobs| jobs.send(values).is_ok()) {
            return Ok(());
        }
        // The thread ended with an error, which is among its results.
        while let Ok(result) = self.sums.recv() {
            result?;
        }
        Err(Error::Thread { rank: self.rank, problem: "has ended".into() })
    }

    fn finish(&mut self) -> Result<Vec<Tensor>> {
        let pending = std::mem::take(&mut self.pending);
        pending
            .into_iter()
            .map(|(shape, device)| Ok(Tensor::from_vec(self.result()?, shape, &device)?))
            .collect()
    }
}

impl Drop for InBackground {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A sum that no peer will complete ends with its timeout, and is not waited for.
        if self.pending.is_empty()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}
