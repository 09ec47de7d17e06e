//! The same batches in the same order in every process, whichever images of its share a process could not use.

use crate::data::{Batch, Epoch, Loader};
use crate::error::{Error, Result};

/// A batch for each number from the first to the last; an empty one where this process has no image.
pub(crate) struct Lockstep {
    epoch: Epoch,
    size: (usize, usize),
    next: usize,
    batches: usize,
    /// Has come before its number was due.
    waiting: Option<Batch>,
    ended: bool,
}

impl Lockstep {
    /// The rest of an epoch of `loader`, from batch `first` on.
    pub fn new(loader: &Loader, epoch: u64, first: usize) -> Result<Self> {
        let (batches, size) = (loader.batches(), loader.output_size());
        Ok(Self {
            epoch: loader.epoch(epoch, first)?,
            size,
            next: first,
            batches,
            waiting: None,
            ended: false,
        })
    }
}

impl Iterator for Lockstep {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.next >= self.batches {
            return None;
        }
        if self.waiting.is_none() && !self.ended {
            match self.epoch.next() {
                Some(Ok(batch)) => self.waiting = Some(batch),
                // Other processes may have usable images; whether any has is asked at the epoch's end.
                None | Some(Err(Error::NoUsableImages { .. })) => self.ended = true,
                Some(Err(error)) => {
                    self.next = self.batches;
                    return Some(Err(error));
                }
            }
        }
        let index = self.next;
        self.next += 1;
        let due = self.waiting.take_if(|batch| batch.index == index);
        Some(Ok(due.unwrap_or_else(|| Batch::empty(index, self.size))))
    }
}
