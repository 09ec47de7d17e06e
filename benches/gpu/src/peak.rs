//! What the device can do at most: a large product of matrices through candle, in the run that the networks are measured in.

use anyhow::Result;
use candle_core::{DType, Device};
use serde::Serialize;
use tallow_trainer::synthetic::normal;

use crate::timing::{self, median};

/// A measured product of matrices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peak {
    /// Rows and columns.
    pub size: usize,
    /// FLOPs a second, two for each multiply-accumulate.
    pub flops: f64,
}

/// bf16 on a GPU; f32 on a CPU, where candle has no other.
pub fn measure(device: &Device, timing: timing::Args) -> Result<Peak> {
    let (size, dtype) = match device {
        Device::Cpu => (512, DType::F32),
        _ => (8192, DType::BF16),
    };
    let a = normal(vec![size, size], device)?.to_dtype(dtype)?;
    let b = normal(vec![size, size], device)?.to_dtype(dtype)?.t()?;
    let seconds = timing.measure(|| Ok(a.matmul(&b).map(drop)?), || Ok(device.synchronize()?))?;
    Ok(Peak { size, flops: 2.0 * (size as f64).powi(3) / median(&seconds) })
}
