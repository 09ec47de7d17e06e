//! What the device can do at most: a large product of matrices through candle, in the run that the networks are measured in.

use anyhow::Result;
use candle_core::Device;
use serde::Serialize;
use tallow_cuda::Precision;
use tallow_trainer::synthetic::normal;

use crate::timing::{self, median};

/// A measured product of matrices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peak {
    /// Rows and columns.
    pub size: usize,
    pub precision: Precision,
    /// FLOPs a second, two for each multiply-accumulate.
    pub flops: f64,
}

/// In the numbers that networks are measured in; whether f32 may be TF32 is the process's, and has been said.
pub fn measure(precision: Precision, device: &Device, timing: timing::Args) -> Result<Peak> {
    let (size, dtype) = (if device.is_cpu() { 512 } else { 8192 }, precision.dtype());
    let a = normal(vec![size, size], device)?.to_dtype(dtype)?;
    let b = normal(vec![size, size], device)?.to_dtype(dtype)?.t()?;
    let seconds = timing.measure(|| Ok(a.matmul(&b).map(drop)?), || Ok(device.synchronize()?))?;
    Ok(Peak { size, precision, flops: 2.0 * (size as f64).powi(3) / median(&seconds) })
}
