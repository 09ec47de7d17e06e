//! Sums over GPUs by NCCL, on a stream of its own beside the one that computes.
//!
//! A process has one communicator: its sums come one after the other in the order in which they were asked
//! for, which has to be the same on all ranks. With two at once, each rank could run another one's kernels
//! first and wait there for the rest (NCCL's documentation, "Using multiple NCCL communicators
//! concurrently").

use std::io::Write;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaStream, DevicePtrMut};
use candle_core::cuda_backend::cudarc::nccl::result::{self, NcclError};
use candle_core::cuda_backend::cudarc::nccl::{Id, safe::NcclType, sys};
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor, bail};

use crate::Communicator;
use crate::error::{Error, Result};
use crate::reduce::SumTensors;
use crate::thread::{wait_at_most, within};
use crate::watch::Watch;

/// How often hosts hear of each other.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// How long NCCL may take to begin a sum or to end once a peer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sums of tensors on one GPU a process, in the same order on all. Sums are begun by the stream that computes
/// and waited for by it, so that the host waits for neither. A GPU does not notice that a peer has ended: the hosts watch
/// over each other, and end NCCL's waiting where one is lost.
pub struct NcclCommunicator {
    rank: usize,
    watch: Watch,
    state: Arc<State>,
    device: CudaDevice,
    /// The stream of the sums.
    stream: Arc<CudaStream>,
}

/// NCCL's communicator, or why there is none any more.
struct State(Mutex<Result<Handle>>);

/// NCCL's own; ended, with the sums that are under way, when it is dropped.
struct Handle(Address);

/// Where NCCL keeps it; null before all have met.
#[derive(Clone, Copy)]
struct Address(sys::ncclComm_t);

// SAFETY: a communicator of NCCL belongs to no thread; its calls only have to come one at a time, which the mutex around
// it sees to.
unsafe impl Send for Address {}

impl Address {
    /// Ends the communicator, which is used no more.
    fn end(self) {
        // SAFETY: it was made by `ncclCommInitRank`, and only `Handle` calls this, once. Where a GPU has failed, so does
        // this, and there is no more to do.
        let _ = unsafe { result::comm_abort(self.0) };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let address = self.0;
        if address.0.is_null() {
            return;
        }
        // By another thread, for NCCL may wait for peers here, which is no reason not to end.
        let thread = std::thread::Builder::new().name("ncclCommAbort".into()).spawn(move || address.end());
        if let Ok(thread) = thread {
            wait_at_most(PATIENCE, &thread);
        }
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Result<Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what NCCL waits for. Whoever sees an end of it sees the error, the first one.
    fn lose(&self, error: Error) {
        let free = || match self.0.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        let Some(mut state) = within(PATIENCE, free) else {
            // The thread that meets the others or begins a sum waits itself, in NCCL or the driver, for the one that will
            // never come. Nobody may be listening here.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            std::process::exit(1);
        };
        if state.is_ok() {
            let ended = std::mem::replace(&mut *state, Err(error));
            drop(state);
            drop(ended);
        }
    }
}

impl NcclCommunicator {
    /// Meets the others by way of a communicator of the host: rank 0 makes NCCL's id and sends it to all. From then on the
    /// hosts watch over each other by `watched`, which nothing else uses. Where a loss cannot be told to the thread that
    /// meets or sums, because that waits inside of NCCL, the process ends with exit code 1 and the error on standard error.
    ///
    /// # Errors
    /// Those of the communicator; [`Error::Nccl`], [`Error::Thread`].
    pub fn new(device: &CudaDevice, host: &dyn Communicator, watched: Arc<dyn Communicator>) -> Result<Self> {
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
        let id = sys::ncclUniqueId { internal: id.map(|byte| byte as core::ffi::c_char) };
        let compute = device.cuda_stream();
        let context = compute.context();
        let driver = |problem: String| Error::Nccl { rank, problem };
        context.bind_to_thread().map_err(|error| driver(format!("no context: {error}")))?;
        let stream = context.new_stream().map_err(|error| driver(format!("no stream: {error}")))?;
        // Those who fail before this do not leave the others waiting in NCCL.
        host.barrier()?;
        let state = Arc::new(State(Mutex::new(Ok(Handle(Address(std::ptr::null_mut()))))));
        let lost = state.clone();
        let watch = Watch::new(watched, HEARD_EVERY, move |error| lost.lose(error))?;
        let communicator = Self { rank, watch, state, device: device.clone(), stream };
        if let Err(error) = communicator.meet(id, host.world_size()) {
            let error = communicator.cause().unwrap_or(error);
            let (origin, reason) = error.origin(rank);
            communicator.abort(origin, &reason);
            return Err(error);
        }
        Ok(communicator)
    }

    /// Waits for all others inside of NCCL, by a thread that has the device's context.
    fn meet(&self, id: sys::ncclUniqueId, world_size: usize) -> Result<()> {
        let mut state = self.state.lock();
        let handle = state.as_mut().map_err(|error| error.clone())?;
        let mut made = MaybeUninit::uninit();
        // SAFETY: `made` is read only where the call has filled it.
        handle.0.0 = unsafe {
            result::comm_init_rank(made.as_mut_ptr(), world_size as i32, id, self.rank as i32)
                .map_err(nccl(self.rank, "ncclCommInitRank"))?;
            made.assume_init()
        };
        Ok(())
    }

    /// Replaces a contiguous tensor of f32 or f64 by its sums over all ranks. What the computing stream does after this
    /// call sees the sums, and those of all that was begun before.
    ///
    /// # Errors
    /// [`Error::Nccl`]; where the tensor is of another type or lies on another device; as [`Self::require_all`].
    pub fn all_reduce(&self, tensor: &Tensor) -> Result<()> {
        self.enqueue(tensor)?;
        self.wait()
    }

    /// Refuses to use what has been read from the GPU where a peer was lost before: its sums may have been ended.
    ///
    /// # Errors
    /// That of the peer.
    pub fn require_all(&self) -> Result<()> {
        self.state.lock().as_ref().map_err(Error::clone).map(drop)
    }

    /// The error of a peer that is lost, of which this rank's own may be the consequence: NCCL can notice a loss before
    /// the hosts hear of it, so this waits for them.
    pub fn cause(&self) -> Option<Error> {
        within(2 * HEARD_EVERY, || self.require_all().err())
    }

    /// As [`Communicator::abort`], for peers whose GPUs wait for this one's; it waits for theirs no longer either.
    pub fn abort(&self, origin: usize, reason: &str) {
        self.watch.abort(origin, reason);
        self.state.lose(Error::Aborted { origin, reason: reason.to_owned() });
    }

    /// The sums' stream waits for what has been computed so far, then sums.
    fn enqueue(&self, tensor: &Tensor) -> Result<()> {
        let state = self.state.lock();
        let handle = state.as_ref().map_err(Error::clone)?;
        self.stream.join(&self.device.cuda_stream()).map_err(|error| self.driver(error))?;
        tensor.inplace_op1(&Sum { handle, stream: &self.stream })?;
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
struct Sum<'a> {
    handle: &'a Handle,
    stream: &'a Arc<CudaStream>,
}

impl Sum<'_> {
    fn values<T: NcclType>(&self, values: &mut impl DevicePtrMut<T>) -> candle_core::Result<()> {
        let count = values.len();
        let (address, _written) = values.device_ptr_mut(self.stream);
        let (address, dtype) = (address as *mut core::ffi::c_void, T::as_nccl_type());
        let (sum, stream) = (sys::ncclRedOp_t::ncclSum, self.stream.cu_stream() as sys::cudaStream_t);
        // SAFETY: so many values lie at the address, which the stream may write to from here on; the communicator was made
        // and is not ended before the mutex around it is free.
        let begun =
            unsafe { result::all_reduce(address, address, count, dtype, sum, self.handle.0.0, stream) };
        begun.map(drop).map_err(|NcclError(code)| candle_core::Error::Msg(format!("ncclAllReduce: {code:?}")))
    }
}

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
        match storage.dtype() {
            candle_core::DType::F32 => {
                self.values(&mut storage.as_cuda_slice_mut::<f32>()?.slice_mut(start..end))
            }
            candle_core::DType::F64 => {
                self.values(&mut storage.as_cuda_slice_mut::<f64>()?.slice_mut(start..end))
            }
            other => bail!("nccl-all-reduce: {other:?} is not summed, only f32 and f64"),
        }
    }
}
