//! On what is measured, and in which numbers.

use std::str::FromStr;

use anyhow::{Error, Result, bail};
use candle_core::{DType, Device};
use serde::Serialize;
use tallow_cuda::{DeviceSpec, emulator};

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// candle's devices: the CPU, or a GPU.
    Device(DeviceSpec),
    /// The kernels for GPUs on the host: no speed, but the very code that runs on a GPU.
    Emulated,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(if text == "emulated" { Self::Emulated } else { Self::Device(text.parse()?) })
    }
}

impl Target {
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Device(spec) => Ok(spec.open(0)?),
            Self::Emulated => Ok(Device::Cpu),
        }
    }

    /// Runs `work` by the kernels of the target.
    pub fn on<R>(self, work: impl FnOnce() -> R) -> R {
        match self {
            Self::Device(_) => work(),
            Self::Emulated => emulator::emulated(work),
        }
    }

    /// A line about it.
    pub fn describe(self, device: &Device) -> String {
        match self {
            Self::Device(_) => tallow_cuda::device::describe(device),
            Self::Emulated => "emulated".into(),
        }
    }
}

/// The numbers of a training step. Weights are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    Tf32,
    F16,
    Bf16,
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "f32" => Self::F32,
            "tf32" => Self::Tf32,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            _ => bail!("a precision is f32, tf32, f16 or bf16, not {text}"),
        })
    }
}

impl Precision {
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Refuses what a target has not.
    pub fn check(self, target: Target, device: &Device) -> Result<()> {
        match (target, self) {
            (_, Self::F32) => Ok(()),
            (Target::Emulated, Self::F16) => Ok(()),
            (Target::Emulated, _) => bail!("emulated, steps are computed in f32 and f16"),
            (Target::Device(_), _) if device.is_cpu() => bail!("the CPU trains in f32"),
            _ => Ok(()),
        }
    }

    /// Sets whether products of f32 may round their factors, from now on.
    pub fn set(self) {
        #[cfg(feature = "cuda")]
        {
            let allowed = self == Self::Tf32;
            tallow_builder::kernels::allow_tf32(allowed);
            candle_core::cuda_backend::set_gemm_reduced_precision_f32(allowed);
        }
    }
}
