//! Tensors as kernels see them: an address, and room for results.

use candle_core::backend::BackendStorage;
#[cfg(feature = "cuda")]
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, Tensor, bail};

use crate::emulator;

/// Whether GPU kernels are to compute with a tensor: it is on a GPU, or GPUs are emulated.
pub fn is_on_gpu(tensor: &Tensor) -> bool {
    match tensor.device() {
        Device::Cuda(_) => true,
        Device::Cpu => emulator::is_active(),
        Device::Metal(_) => false,
    }
}

/// The address of a tensor's first element. Its elements must lie close together, in whatever order: the caller knows
/// it. The tensor must live until the launch that uses the address.
///
/// # Errors
/// For element types that no kernel uses.
pub fn pointer(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let offset = (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64;
    let start = match &*storage {
        Storage::Cpu(storage) => cpu_pointer(storage)?,
        #[cfg(feature = "cuda")]
        Storage::Cuda(storage) => crate::driver::pointer(storage)?,
        other => bail!("no kernel computes on {:?}", other.device().location()),
    };
    Ok(start + offset)
}

fn cpu_pointer(storage: &CpuStorage) -> Result<u64> {
    let pointer: *const u8 = match storage {
        CpuStorage::U8(data) => data.as_ptr(),
        CpuStorage::U32(data) => data.as_ptr().cast(),
        CpuStorage::I64(data) => data.as_ptr().cast(),
        CpuStorage::BF16(data) => data.as_ptr().cast(),
        CpuStorage::F16(data) => data.as_ptr().cast(),
        CpuStorage::F32(data) => data.as_ptr().cast(),
        CpuStorage::F64(data) => data.as_ptr().cast(),
        other => bail!("no kernel computes on elements of type {:?}", other.dtype()),
    };
    Ok(pointer as u64)
}

/// A tensor for a kernel to write to; what it holds before that is not defined.
///
/// # Errors
/// Where the device has no room.
pub fn empty(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            let shape = shape.into();
            let storage = crate::driver::empty(device, shape.elem_count(), dtype)?;
            Ok(untracked(Storage::Cuda(storage), shape))
        }
        _ => Tensor::zeros(shape.into(), dtype, device),
    }
}

/// A tensor of its own with what a storage holds.
///
/// # Errors
/// Where the GPU has no room.
#[cfg(feature = "cuda")]
pub fn copied(storage: &candle_core::CudaStorage, layout: &candle_core::Layout) -> Result<Tensor> {
    let mut copy = crate::driver::empty(storage.device(), layout.shape().elem_count(), storage.dtype())?;
    storage.copy_strided_src(&mut copy, 0, layout)?;
    Ok(untracked(Storage::Cuda(copy), layout.shape().clone()))
}

/// A contiguous tensor of a storage that autograd does not follow.
#[cfg(feature = "cuda")]
fn untracked(storage: Storage, shape: Shape) -> Tensor {
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}
