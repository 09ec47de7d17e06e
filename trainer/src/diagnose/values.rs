//! Reading a tensor's numbers where they are.

use candle_core::{CpuStorage, Storage, Tensor};

use crate::error::Result;

/// Hands the values of an f32 tensor to `read`, without a copy where they lie together in this machine's memory.
pub(crate) fn with_values<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
            (&*storage, layout.contiguous_offsets())
        {
            return Ok(read(&values[start..end]));
        }
    }
    Ok(read(&tensor.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?))
}
