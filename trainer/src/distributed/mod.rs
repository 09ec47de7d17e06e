//! Training by several processes, each on its share of every batch, as one (data parallelism).
//!
//! `DataParallel` is a process's part in it: what the processes agree on before a step, the sums of gradients
//! while backward goes on, and what is summed of metrics. `tallow-distributed` does the talking. Whatever
//! decides a step is the same in every process, so that their weights stay the same to the bit, and only rank
//! 0 writes files. Batch normalisation's running averages decide no step: rank 0 keeps them, and hands them
//! on before they are used.

#[cfg(test)]
mod calls;
mod config;
mod devices;
mod identity;
mod lockstep;
mod moments;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Device, Shape, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tallow_builder::Graph;
use tallow_builder::exec::{BatchStatistics, Gradients};
use tallow_builder::kernels::{BatchReduce, cast};
use tallow_distributed::{Buckets, Communicator, InBackground, Options, Place, SumTensors, TcpCommunicator};

use crate::config::Config;
use crate::data::{Loader, Share, Splits};
use crate::error::{Error, Result};
use crate::metrics::{ConfusionMatrix, PrecisionRecall, Running};

#[cfg(test)]
pub(crate) use calls::Calls;
pub use config::DistributedConfig;
pub use devices::Transport;
pub(crate) use identity::state_digest;
pub(crate) use lockstep::Lockstep;
use moments::Synchronised;

/// One communicator for what processes agree on amid a step, one for the gradients under way meanwhile, or, where NCCL
/// sums those, for watching over each other.
const CHANNELS: usize = 2;

/// A process's part in a training by several.
pub(crate) struct DataParallel {
    control: Arc<dyn Communicator>,
    gradients: Arc<dyn Communicator>,
    buckets: Buckets,
    transport: Transport,
    sync_batch_norm: bool,
    /// Sums moments on GPUs, and gradients: one communicator for both.
    #[cfg(feature = "nccl")]
    nccl: Option<Arc<tallow_distributed::NcclCommunicator>>,
    /// This process's part of the host's cores.
    cores: usize,
    /// Whether any process was asked to stop.
    stop: bool,
}

/// What all processes know of a batch before they go through it, or of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Usable images of this process.
    pub own: usize,
    /// Of all.
    pub total: usize,
    /// The first process that has any.
    pub first: usize,
}

impl Counts {
    /// Of a process that trains alone.
    pub fn alone(images: usize) -> Self {
        Self { own: images, total: images, first: 0 }
    }

    /// Together with those of a later batch.
    pub fn and(self, later: Self) -> Self {
        Self {
            own: self.own + later.own,
            total: self.total + later.total,
            first: self.first.min(later.first),
        }
    }
}

impl DataParallel {
    /// Meets the other processes, which must have the same settings and data, to train on `device`. `None` where there
    /// are none.
    ///
    /// # Errors
    /// Those of [`TcpCommunicator::connect`].
    pub fn connect(
        place: Option<&Place>,
        config: &Config,
        data: &Splits,
        device: &Device,
    ) -> Result<Option<Self>> {
        let Some(place) = place.filter(|place| place.world_size > 1) else { return Ok(None) };
        let options = Options::new(identity::fingerprint(config, data), CHANNELS)?;
        let mut channels = TcpCommunicator::connect(place, &options)?.into_iter();
        let mut next = || -> Option<Arc<dyn Communicator>> { Some(Arc::new(channels.next()?)) };
        let (control, gradients) = next().zip(next()).expect("there are as many channels as were asked for");
        let transport = devices::agree(&*control, device)?;
        #[cfg(feature = "nccl")]
        let nccl = match device {
            Device::Cuda(device) => {
                let nccl = tallow_distributed::NcclCommunicator::new(device, &*control, gradients.clone())?;
                Some(Arc::new(nccl))
            }
            _ => None,
        };
        #[cfg(feature = "nccl")]
        let on_gpu = nccl
            .clone()
            .map(|nccl| -> Box<dyn SumTensors> { Box::new(tallow_distributed::BesideComputing::new(nccl)) });
        #[cfg(not(feature = "nccl"))]
        let on_gpu: Option<Box<dyn SumTensors>> = None;
        let sum = match on_gpu {
            Some(sum) => sum,
            None => Box::new(InBackground::new(gradients.clone())?),
        };
        let DistributedConfig { sync_batch_norm, .. } = config.distributed;
        let buckets = Buckets::new(sum, config.distributed.bucket_bytes());
        Ok(Some(Self {
            control,
            gradients,
            buckets,
            transport,
            sync_batch_norm,
            #[cfg(feature = "nccl")]
            nccl,
            cores: place.cores(),
            stop: false,
        }))
    }

    /// Whether this process writes the run's files and shows its progress.
    pub fn leads(&self) -> bool {
        self.control.rank() == 0
    }

    /// How gradients go to the other processes.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// This process's number.
    pub fn rank(&self) -> usize {
        self.control.rank()
    }

    /// This process's part of each batch.
    pub fn share(&self) -> Share {
        Share { rank: self.control.rank(), world_size: self.control.world_size() }
    }

    /// Threads that prepare images: those that were asked for, or else one for each of this process's cores.
    pub fn workers(&self, asked: usize) -> usize {
        if asked == 0 { self.cores } else { asked }
    }

    /// What talks to the others outside of steps.
    pub fn control(&self) -> Arc<dyn Communicator> {
        self.control.clone()
    }

    /// Ends the others with the error that ends this process.
    pub fn abort(&self, error: &Error) {
        let (origin, reason) = blame(error, self.rank());
        self.control.abort(origin, &reason);
        #[cfg(feature = "nccl")]
        if let Some(nccl) = &self.nccl {
            return nccl.abort(origin, &reason);
        }
        self.gradients.abort(origin, &reason);
    }

    /// Refuses to use what a GPU has computed where it was for want of another process that it waited no longer.
    ///
    /// # Errors
    /// That of the other process.
    pub fn require_all(&self) -> Result<()> {
        #[cfg(feature = "nccl")]
        if let Some(nccl) = &self.nccl {
            nccl.require_all()?;
        }
        Ok(())
    }

    /// The error of another process of whose loss `error`, this one's, may be the consequence.
    pub fn cause(&self, error: &Error) -> Option<Error> {
        if matches!(error, Error::Distributed(error) if error.is_of_a_peer()) {
            return None;
        }
        #[cfg(feature = "nccl")]
        let cause = self.nccl.as_ref().and_then(|nccl| nccl.cause());
        #[cfg(not(feature = "nccl"))]
        let cause: Option<tallow_distributed::Error> = None;
        cause.map(Error::from)
    }

    /// Begins a training that nobody has been asked to stop.
    pub fn start(&mut self) {
        self.stop = false;
    }

    /// Whether any process had been asked to stop when they last agreed.
    pub fn stops(&self) -> bool {
        self.stop
    }

    /// Every process's value, by rank.
    fn gather<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let bytes = serde_json::to_vec(value).expect("what is gathered is plain data");
        let read = |bytes: Vec<u8>| {
            let other_form = |e: serde_json::Error| tallow_distributed::Error::OutOfStep {
                rank: self.rank(),
                peer: self.rank(),
                problem: format!("what was gathered cannot be read: {e}"),
            };
            Ok(serde_json::from_slice(&bytes).map_err(other_form)?)
        };
        self.control.gather(&bytes)?.into_iter().map(read).collect()
    }

    /// Refuses to train from different states.
    ///
    /// # Errors
    /// [`tallow_distributed::Error::UnequalStart`].
    pub fn require_equal(&self, digest: &[u8]) -> Result<()> {
        let all = self.control.gather(digest)?;
        match all.iter().position(|other| *other != all[0]) {
            Some(rank) => Err(tallow_distributed::Error::UnequalStart { rank }.into()),
            None => Ok(()),
        }
    }

    /// How many images each process has in a batch, and whether any was asked to stop.
    pub fn agree(&mut self, own: usize, stop: bool) -> Result<Counts> {
        let all: Vec<(usize, bool)> = self.gather(&(own, stop))?;
        self.stop |= all.iter().any(|(_, stop)| *stop);
        let total = all.iter().map(|(images, _)| images).sum();
        let first = all.iter().position(|(images, _)| *images > 0).unwrap_or(0);
        Ok(Counts { own, total, first })
    }

    /// What sums batch normalisation's moments over the processes, where that is wanted.
    pub fn batch_reduce(&self, counts: Counts) -> Option<Arc<dyn BatchReduce>> {
        self.sync_batch_norm.then(|| -> Arc<dyn BatchReduce> {
            Arc::new(Synchronised {
                communicator: self.control.clone(),
                takes_part: counts.own > 0,
                images: [counts.own, counts.total],
                #[cfg(feature = "nccl")]
                nccl: self.nccl.clone(),
            })
        })
    }

    /// A gradient of the mean over this process's images as its part in that over all images.
    pub fn weighted(&self, gradient: &Tensor, counts: Counts) -> Result<Tensor> {
        match counts.own {
            // Not a product: a stand-in's gradient may be no number.
            0 => Ok(gradient.zeros_like()?),
            // In f32: a share rounded to bf16 would be off by as much for every image.
            own => {
                let share = own as f64 / counts.total as f64;
                Ok(cast(&(cast(gradient, DType::F32)? * share)?, gradient.dtype())?)
            }
        }
    }

    /// The sums over all processes of the gradients that `make` hands on. Each bucket of them begins to be summed as soon
    /// as it is full, while `make` goes on: best in the order in which backward makes them.
    pub fn sum_gradients(
        &mut self,
        graph: &Graph,
        wanted: &dyn Fn(&str) -> bool,
        device: &Device,
        make: impl FnOnce(&mut dyn FnMut(&str, Tensor) -> Result<()>) -> Result<()>,
    ) -> Result<Gradients> {
        self.buckets.begin(made_by_backward(graph, wanted), device);
        make(&mut |name, gradient| Ok(self.buckets.add(name, gradient)?))?;
        Ok(self.buckets.finish()?)
    }

    /// Gives rank 0, which alone keeps the running averages while an epoch is under way, a batch's moments:
    /// its own, as PyTorch's DistributedDataParallel takes them, so that nothing is sent. Only where it has
    /// no image, they are those of the first process that has some. Synchronised ones are the same
    /// everywhere.
    pub fn moments_for_averages(&self, statistics: &mut [BatchStatistics], counts: Counts) -> Result<()> {
        if counts.first == 0 || self.sync_batch_norm || statistics.is_empty() {
            return Ok(());
        }
        let mut bytes =
            if self.rank() == counts.first { moments::encode_moments(statistics)? } else { vec![] };
        self.control.broadcast(&mut bytes, counts.first)?;
        if !self.leads() {
            return Ok(());
        }
        moments::decode_moments(&bytes, statistics)?.ok_or_else(|| self.other_layers(counts.first))
    }

    /// Rank 0's values of these tensors, which lie on one device in every process.
    pub fn of_rank_0(&self, own: &[&Tensor]) -> Result<Vec<Tensor>> {
        if own.is_empty() {
            return Ok(vec![]);
        }
        let mut bytes = if self.leads() { moments::encode(own)? } else { vec![] };
        self.control.broadcast(&mut bytes, 0)?;
        if self.leads() {
            return Ok(own.iter().map(|tensor| (*tensor).clone()).collect());
        }
        moments::decode(&bytes, own)?.ok_or_else(|| self.other_layers(0))
    }

    fn other_layers(&self, peer: usize) -> Error {
        let problem = "other layers have moments".into();
        tallow_distributed::Error::OutOfStep { rank: self.rank(), peer, problem }.into()
    }

    /// What all processes have seen of a batch.
    pub fn sum_running(&self, classes: usize, own: &Running) -> Result<Running> {
        let mut sums = own.sums();
        self.control.all_reduce_f64(&mut sums)?;
        Ok(Running::of_sums(classes, sums))
    }

    /// Sums the counts of all processes' parts of a validation, exactly; `false` where any of them was interrupted, or
    /// asked to stop since.
    pub fn sum_validation(
        &mut self,
        found: Option<(&mut Running, &mut ConfusionMatrix, &mut PrecisionRecall)>,
        stop: bool,
    ) -> Result<bool> {
        let all: Vec<(bool, bool)> = self.gather(&(found.is_some(), stop))?;
        self.stop |= all.iter().any(|(_, stop)| *stop);
        let Some((running, confusion, precision_recall)) =
            found.filter(|_| all.iter().all(|(whole, _)| *whole))
        else {
            return Ok(false);
        };
        let classes = confusion.classes();
        let mut counts: Vec<&mut u64> = confusion.counts_mut().chain(precision_recall.counts_mut()).collect();
        // Whole numbers below 2⁵³ are exact in f64.
        let mut sums: Vec<f64> =
            running.sums().into_iter().chain(counts.iter().map(|n| **n as f64)).collect();
        self.control.all_reduce_f64(&mut sums)?;
        counts.iter_mut().zip(&sums[4..]).for_each(|(count, sum)| **count = *sum as u64);
        *running = Running::of_sums(classes, std::array::from_fn(|i| sums[i]));
        Ok(true)
    }

    /// Makes known to every process which images any of them could not use.
    pub fn share_skipped(&self, loader: &Loader) -> Result<()> {
        self.gather(&loader.skipped_samples())?.into_iter().for_each(|skipped| loader.note_skipped(skipped));
        Ok(())
    }
}

impl Drop for DataParallel {
    /// Where this process panics, the others hear of it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.control.abort(self.rank(), "it panicked");
        }
    }
}

/// The rank that failed first, and its reason.
pub(crate) fn blame(error: &Error, rank: usize) -> (usize, String) {
    match error {
        Error::Distributed(error) => error.origin(rank),
        other => (rank, other.to_string()),
    }
}

/// The parameters that backward makes gradients of, in the order in which it does.
fn made_by_backward(graph: &Graph, wanted: &dyn Fn(&str) -> bool) -> Vec<(String, Shape)> {
    let layers: Vec<_> = graph.iter().map(|(id, _)| id).collect();
    let parameters = layers.into_iter().rev().flat_map(|id| graph.layer_parameters(id));
    let wanted = parameters.filter(|parameter| parameter.role.is_trainable() && wanted(&parameter.name));
    wanted.map(|parameter| (parameter.name, Shape::from(parameter.shape))).collect()
}
