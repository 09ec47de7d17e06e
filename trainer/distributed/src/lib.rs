//! Processes that train one network together, each on its share of every batch.
//!
//! [`Place`] is where a process stands among the others, as torchrun and Slurm tell it. A [`Communicator`] is what they
//! do together; [`TcpCommunicator`] does it between any hosts, in a ring, with the same bits on every rank. [`Buckets`]
//! sums gradients while backward goes on, over TCP or, with the feature `nccl`, over NCCL. Nothing here knows networks,
//! data or settings.

mod buckets;
mod environment;
mod error;
mod host_list;
mod identity;
#[cfg(feature = "nccl")]
mod nccl;
mod port;
mod reduce;
mod tcp;
mod thread;
mod watch;

pub use buckets::Buckets;
pub use environment::Place;
pub use error::{Error, Result};
pub use identity::Identity;
#[cfg(feature = "nccl")]
pub use nccl::{BesideComputing, NcclCommunicator};
pub use port::free_port;
pub use reduce::{InBackground, SumTensors};
pub use tcp::{Options, TcpCommunicator};
pub use watch::Watch;

/// What processes do together. All of them make the same calls in the same order; each call returns when its result is
/// there, or with an error that names the rank that failed. After an error a communicator is of no more use.
pub trait Communicator: Send + Sync {
    /// This process's number, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world_size(&self) -> usize;

    /// Replaces `values` by their sums over all ranks: the same bits on each.
    ///
    /// # Errors
    /// Where a peer has ended, is silent for too long, or does something else.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()>;

    /// As [`Self::all_reduce`], in f64.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn all_reduce_f64(&self, values: &mut [f64]) -> Result<()>;

    /// Replaces `bytes` by those of the rank `root`.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn broadcast(&self, bytes: &mut Vec<u8>, root: usize) -> Result<()>;

    /// Every rank's bytes, by rank. For small ones.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Returns once every rank has called it.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn barrier(&self) -> Result<()> {
        self.gather(&[]).map(drop)
    }

    /// Tells the others that this rank ends because the rank `origin` failed, itself or another, so that they end with
    /// this reason instead of finding it gone.
    fn abort(&self, origin: usize, reason: &str);
}
