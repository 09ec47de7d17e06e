//! Sums over GPUs by NCCL, on a stream of its own beside the one that computes.
//!
//! A process has one communicator: its sums come one after the other in the order in which they were asked
//! for, which has to be the same on all ranks. With two at once, each rank could run another one's kernels
//! first and wait there for the rest (NCCL's documentation, "Using multiple NCCL communicators
//! concurrently").

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::CudaStream;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, ReduceOp, result::NcclError};
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, bail};

use crate::Communicator;
use crate::error::{Error, Result};
use crate::reduce::SumTensors;

/// Sums of tensors on one GPU a process, in the same order on all. Sums are begun by the stream that computes
/// and waited for by it, so that the host waits for neither. A peer that ends leaves NCCL waiting: whoever
/// started the processes has to end the others, as `tallow train --processes` and torchrun do, and srun with
/// `--kill-on-bad-exit`.
pub struct NcclCommunicator {
    rank: usize,
    comm: Mutex<Handle>,
    device: CudaDevice,
    /// The stream of the sums.
    stream: Arc<CudaStream>,
}

/// NCCL's own.
struct Handle(Comm);

// SAFETY: a communicator of NCCL belongs to no thread; its calls only have to come one at a time, which the mutex around
// it sees to.
unsafe impl Send for Handle {}

impl NcclCommunicator {
    /// Meets the others by way of a communicator of the host: rank 0 makes NCCL's id and sends it to all.
    ///
    /// # Errors
    /// Those of the communicator; [`Error::Nccl`].
    pub fn new(device: &CudaDevice, host: &dyn Communicator) -> Result<Self> {
        let rank = host.rank();
        let mut id = match rank {
            0 => Id::new().map_err(nccl(rank, "ncclGetUniqueId"))?.internal().map(|c| c as u8).to_vec(),
            _ => vec![],
        };
        host.broadcast(&mut id, 0)?;
        let id: [u8; 128] = id.try_into().map_err(|id: Vec<u8>| {
            let problem = format!("an id of {} bytes came instead of 128", id.len());
            Error::OutOfStep { rank, peer: 0, problem }
        })?;
        let id = Id::uninit(id.map(|byte| byte as core::ffi::c_char));
        let compute = device.cuda_stream();
        let context = compute.context();
        let driver = |problem: String| Error::Nccl { rank, problem };
        context.bind_to_thread().map_err(|error| driver(format!("no context: {error}")))?;
        let stream = context.new_stream().map_err(|error| driver(format!("no stream: {error}")))?;
        let comm = Comm::from_rank(stream.clone(), rank, host.world_size(), id);
        let comm = comm.map_err(nccl(rank, "ncclCommInitRank"))?;
        let comm = Mutex::new(Handle(comm));
        Ok(Self { rank, comm, device: device.clone(), stream })
    }

    /// Replaces a contiguous tensor of f32 or f64 by its sums over all ranks. What the computing stream does after this
    /// call sees the sums, and those of all that was begun before.
    ///
    /// # Errors
    /// [`Error::Nccl`]; where the tensor is of another type or lies on another device.
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<()> {
        self.enqueue(tensor)?;
        self.wait()
    }

    /// The sums' stream waits for what has been computed so far, then sums.
    fn enqueue(&self, tensor: &Tensor) -> Result<()> {
        let comm = self.comm.lock().unwrap_or_else(PoisonError::into_inner);
        self.stream.join(&self.device.cuda_stream()).map_err(|error| self.driver(error))?;
        tensor.inplace_op1(&Sum(&comm.0))?;
        Ok(())
    }

    /// The computing stream waits for the sums that are under way.
    fn wait(&self) -> Result<()> {
        self.device.cuda_stream().join(&self.stream).map_err(|error| self.driver(error))
    }

    fn driver(&self, error: impl std::fmt::Display) -> Error {
        Error::Nccl { rank: self.rank, problem: format!("a stream cannot wait for another: {error}") }
    }
}

/// Sums beside the stream that computes, by a communicator that others may use in between.
pub struct BesideComputing {
    communicator: Arc<NcclCommunicator>,
    /// Tensors under way: their memory is not given back before the computing stream has waited for the sums.
    pending: Vec<Tensor>,
}

impl BesideComputing {
    /// By this communicator.
    pub fn new(communicator: Arc<NcclCommunicator>) -> Self {
        Self { communicator, pending: vec![] }
    }
}

impl SumTensors for BesideComputing {
    fn start(&mut self, tensor: Tensor) -> Result<()> {
        self.communicator.enqueue(&tensor)?;
        self.pending.push(tensor);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Tensor>> {
        self.communicator.wait()?;
        Ok(std::mem::take(&mut self.pending))
    }
}

fn nccl(rank: usize, call: &'static str) -> impl Fn(NcclError) -> Error {
    move |NcclError(code)| Error::Nccl {
        rank,
        problem: format!("{call}: {code:?}; NCCL_DEBUG=WARN tells more"),
    }
}

/// The sum in place.
struct Sum<'a>(&'a Comm);

impl InplaceOp1 for Sum<'_> {
    fn name(&self) -> &'static str {
        "nccl-all-reduce"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        bail!("nccl-all-reduce: the tensor lies on the CPU")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("nccl-all-reduce: the tensor is not contiguous")
        };
        let failed = |NcclError(code)| candle_core::Error::Msg(format!("ncclAllReduce: {code:?}"));
        match storage.dtype() {
            candle_core::DType::F32 => {
                let mut values = storage.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
                self.0.all_reduce_in_place(&mut values, &ReduceOp::Sum).map_err(failed)?;
            }
            candle_core::DType::F64 => {
                let mut values = storage.as_cuda_slice_mut::<f64>()?.slice_mut(start..end);
                self.0.all_reduce_in_place(&mut values, &ReduceOp::Sum).map_err(failed)?;
            }
            other => bail!("nccl-all-reduce: {other:?} is not summed, only f32 and f64"),
        }
        Ok(())
    }
}
