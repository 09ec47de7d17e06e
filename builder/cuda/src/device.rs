//! Which device computes, and what there is to say about it.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What `--device` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSpec {
    /// A GPU where there is one, for each process of a host its own; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU by its number.
    Cuda(usize),
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(0)),
            _ => {}
        }
        // A bare number is a GPU's, as in CUDA_VISIBLE_DEVICES.
        let number = text.strip_prefix("cuda:").unwrap_or(text);
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| number.parse().ok()).flatten().map(Self::Cuda).ok_or(Error::Spec)
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> Self {
        spec.to_string()
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceSpec {
    /// The device. `auto` takes the GPU that falls to `local`, this process's number on its machine, where there are
    /// any; `cuda:N` means GPU N to each process.
    ///
    /// # Errors
    /// Where a GPU that was asked for cannot be used: a build without CUDA, no driver, no such GPU.
    pub fn open(self, local: usize) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => open(index),
            // A process may see fewer GPUs than there are processes on its host, such as its own alone.
            Self::Auto => match count() {
                0 => Ok(Device::Cpu),
                gpus => open(local % gpus),
            },
        }
    }
}

/// Memory of a GPU in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What tensors of this process can take: what they have, and what nobody has.
    pub available: usize,
    /// The most that tensors took since [`reset_peak`].
    pub peak: usize,
}

#[cfg(not(feature = "cuda"))]
fn open(index: usize) -> Result<Device> {
    Err(Error::NotBuilt { index })
}

/// Number of GPUs that the driver offers.
pub fn count() -> usize {
    #[cfg(feature = "cuda")]
    return gpu::count();
    #[cfg(not(feature = "cuda"))]
    0
}

/// What to say where the CPU computes on a host that has an NVIDIA driver: why no GPU is used, if it was not the user
/// who said so.
pub fn unused_gpu() -> Option<String> {
    if !std::path::Path::new("/proc/driver/nvidia/version").exists() {
        return None;
    }
    #[cfg(feature = "cuda")]
    let reason = format!("the NVIDIA driver says: {}", gpu::problem()?);
    #[cfg(not(feature = "cuda"))]
    let reason = "this build of Tallow computes on the CPU alone: build it with `--features cuda,cudnn`";
    Some(format!("no GPU is used although there is an NVIDIA driver; {reason}"))
}

/// A line about a device: its name, memory and compute capability.
pub fn describe(device: &Device) -> String {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => gpu::describe(device),
        _ => "cpu".to_owned(),
    }
}

/// The number that a GPU has in the whole world, whatever a process calls it; `None` for a CPU.
///
/// # Errors
/// Where the driver fails.
pub fn uuid(device: &Device) -> candle_core::Result<Option<[u8; 16]>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => gpu::uuid(device).map(Some),
        _ => Ok(None),
    }
}

/// The memory of a GPU; `None` for a CPU.
///
/// # Errors
/// Where the driver fails.
pub fn memory(device: &Device) -> candle_core::Result<Option<Memory>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => gpu::memory(device).map(Some),
        _ => Ok(None),
    }
}

/// Begins to measure the peak anew.
///
/// # Errors
/// Where the driver fails.
pub fn reset_peak(device: &Device) -> candle_core::Result<()> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => gpu::reset_peak(device),
        _ => Ok(()),
    }
}

/// Whether an error of candle is for want of memory on a GPU.
pub fn is_out_of_memory(error: &candle_core::Error) -> bool {
    // candle boxes the driver's error, whose type only builds with CUDA know; its text is the driver's constant.
    is_out_of_memory_text(&error.to_string())
}

/// As [`is_out_of_memory`], of an error's text: what the driver, cuDNN and cuBLAS call it.
pub fn is_out_of_memory_text(text: &str) -> bool {
    ["OUT_OF_MEMORY", "DEVICE_ALLOCATION_FAILED", "STATUS_ALLOC_FAILED"]
        .iter()
        .any(|name| text.contains(name))
}

/// What errors call a map with more elements than cuDNN's 32 bits can number.
pub const BEYOND_CUDNN: &str = "more than cuDNN can count";

#[cfg(feature = "cuda")]
use gpu::open;

#[cfg(feature = "cuda")]
mod gpu {
    use std::collections::BTreeMap;
    use std::panic::catch_unwind;
    use std::ptr::from_mut;
    use std::sync::{Mutex, PoisonError};

    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, result, sys};
    use candle_core::{CudaDevice, Device};

    use super::Memory;
    use crate::error::{Error, Result};

    /// One device a GPU, whoever asks: its tensors share a stream, and with it an order.
    pub(super) fn open(index: usize) -> Result<Device> {
        static OPEN: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = open.get(&index) {
            return Ok(device.clone());
        }
        Ok(open.entry(index).or_insert(first(index)?).clone())
    }

    fn first(index: usize) -> Result<Device> {
        let unusable = |reason: String| Error::Unusable { index, reason };
        let device = Device::new_cuda_with_stream(index).map_err(|error| unusable(error.to_string()))?;
        let cuda = device.as_cuda_device().map_err(|error| unusable(error.to_string()))?;
        // SAFETY: all tensors are used on candle's one stream; the streams that copy and communicate order themselves
        // by events of their own.
        unsafe { cuda.disable_event_tracking() };
        keep_memory(cuda).map_err(|error| unusable(error.to_string()))?;
        Ok(device)
    }

    pub(super) fn count() -> usize {
        counted().unwrap_or(0)
    }

    /// The number of GPUs, or why the driver does not tell it.
    fn counted() -> std::result::Result<usize, String> {
        // cudarc panics where the driver's library cannot be loaded.
        let count = catch_unwind(CudaContext::device_count).map_err(|_| "its library cannot be loaded")?;
        Ok(count.map_err(|error| error.to_string())?.try_into().unwrap_or(0))
    }

    /// Why the driver offers no GPU; `None` where it offers some.
    pub(super) fn problem() -> Option<String> {
        match counted() {
            Ok(0) => Some("there is no GPU".into()),
            Ok(_) => None,
            Err(reason) => Some(reason),
        }
    }

    pub(super) fn describe(device: &CudaDevice) -> String {
        let stream = device.cuda_stream();
        let context = stream.context();
        let name = context.name().unwrap_or_else(|error| error.to_string());
        let memory = context.total_mem().map_or(0.0, |bytes| bytes as f64 / f64::from(1u32 << 30));
        let (major, minor) = context.compute_capability().unwrap_or((0, 0));
        format!("cuda:{} {name}, {memory:.1} GiB, compute capability {major}.{minor}", context.ordinal())
    }

    pub(super) fn uuid(device: &CudaDevice) -> candle_core::Result<[u8; 16]> {
        let uuid = device.cuda_stream().context().uuid().w()?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    /// The pool that candle's tensors come from.
    fn pool(device: &CudaDevice) -> candle_core::Result<sys::CUmemoryPool> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let mut pool = std::ptr::null_mut();
        // SAFETY: the device exists, and the address is of a local variable.
        unsafe { sys::cuDeviceGetMemPool(from_mut(&mut pool), stream.context().cu_device()) }.result().w()?;
        Ok(pool)
    }

    /// Lets the pool keep what is freed for the next tensor, instead of giving it back to the driver at every wait.
    fn keep_memory(device: &CudaDevice) -> candle_core::Result<()> {
        set(device, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
    }

    fn set(
        device: &CudaDevice,
        attribute: sys::CUmemPool_attribute,
        mut value: u64,
    ) -> candle_core::Result<()> {
        let pool = pool(device)?;
        // SAFETY: these attributes are 64-bit numbers.
        unsafe { sys::cuMemPoolSetAttribute(pool, attribute, from_mut(&mut value).cast()) }.result().w()
    }

    fn get(device: &CudaDevice, attribute: sys::CUmemPool_attribute) -> candle_core::Result<usize> {
        let (pool, mut value) = (pool(device)?, 0u64);
        // SAFETY: these attributes are 64-bit numbers.
        unsafe { sys::cuMemPoolGetAttribute(pool, attribute, from_mut(&mut value).cast()) }.result().w()?;
        Ok(value as usize)
    }

    pub(super) fn memory(device: &CudaDevice) -> candle_core::Result<Memory> {
        use sys::CUmemPool_attribute::{CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_HIGH};
        device.cuda_stream().context().bind_to_thread().w()?;
        let (free, _) = result::mem_get_info().w()?;
        Ok(Memory {
            available: free + get(device, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
            peak: get(device, CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
        })
    }

    pub(super) fn reset_peak(device: &CudaDevice) -> candle_core::Result<()> {
        set(device, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_in_pytorch() {
        for (text, spec) in [
            ("auto", DeviceSpec::Auto),
            ("cpu", DeviceSpec::Cpu),
            ("cuda", DeviceSpec::Cuda(0)),
            ("cuda:3", DeviceSpec::Cuda(3)),
            ("0", DeviceSpec::Cuda(0)),
            ("12", DeviceSpec::Cuda(12)),
        ] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap(), spec);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda3", "cuda:-1", "cuda:+1", "-1", "+1", "CPU"] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("cuda:0"), "{error}");
        }
        assert_eq!(DeviceSpec::Cuda(2).to_string(), "cuda:2");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_an_error_with_a_remedy_and_auto_goes_on() {
        assert!(matches!(DeviceSpec::Cpu.open(0), Ok(Device::Cpu)));
        let error = DeviceSpec::Cuda(4711).open(0).unwrap_err().to_string();
        assert!(error.contains("cuda:4711") && error.contains("--device cpu"), "{error}");
        // Whatever is there, auto finds something: a GPU for any process, or the CPU.
        assert_eq!(DeviceSpec::Auto.open(4711).unwrap().is_cpu(), count() == 0);
    }
}
