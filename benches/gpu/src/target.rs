//! On what is measured, and in which numbers.

use std::str::FromStr;

use anyhow::{Error, Result, bail};
use candle_core::Device;
use tallow_cuda::{DeviceSpec, Precision, emulator};

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

/// Refuses what a target has not.
pub fn check(precision: Precision, target: Target, device: &Device) -> Result<()> {
    match (target, precision) {
        (_, Precision::F32) | (Target::Emulated, Precision::F16) => Ok(()),
        (Target::Emulated, _) => bail!("emulated, steps are computed in f32 and f16"),
        (Target::Device(_), _) if device.is_cpu() => bail!("the CPU trains in f32"),
        _ => Ok(()),
    }
}
