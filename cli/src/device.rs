//! The flags that say where candle computes and in which numbers, wherever a command computes there, and what is told of
//! it.

use anyhow::{Error, Result, anyhow};
use tallow_cuda::{DeviceSpec, device};
use tallow_trainer::compute::{Compute, ComputeConfig, Precision};

use crate::failure::usage;
use crate::output::note;

/// Said of each flag, for a heading of the whole group would take in the flags that come after it.
const HEADING: &str = "Device";

/// Where candle computes, and in which numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
pub struct Args {
    /// Where candle computes: cpu, cuda:N, or auto, which takes a GPU where this build finds one [default: auto]
    #[arg(help_heading = HEADING, long, value_name = "DEVICE")]
    pub device: Option<DeviceSpec>,
    /// Of products and activations: f32; on a GPU also tf32, bf16 or f16. Parameters, sums and the optimiser are f32 in
    /// any case [default: f32]
    #[arg(help_heading = HEADING, long, value_name = "TYPE")]
    pub precision: Option<Precision>,
}

impl Args {
    /// What is said, on top of `config`.
    pub fn apply(&self, config: &mut ComputeConfig) {
        config.device = self.device.unwrap_or(config.device);
        config.precision = self.precision.unwrap_or(config.precision);
    }

    /// The device, which is told.
    ///
    /// # Errors
    /// Where a GPU that is asked for cannot be used, or the device has not the precision.
    pub fn open(&self) -> Result<Compute> {
        let mut config = ComputeConfig::default();
        self.apply(&mut config);
        let compute = Compute::open(&config, 0)?;
        announce(&compute, config.device);
        Ok(compute)
    }

    /// Refuses what is said where candle does not compute; `remedy` says what to do.
    ///
    /// # Errors
    /// Where anything is said.
    pub fn refuse(&self, remedy: &str) -> Result<()> {
        if *self == Self::default() {
            return Ok(());
        }
        Err(usage(format!("--device and --precision are for what candle computes: {remedy}")))
    }
}

/// Says where is computed, and why no GPU is used where there is one and `asked` does not say so.
pub fn announce(compute: &Compute, asked: DeviceSpec) {
    note!("on {}, {}", device::describe(compute.device()), compute.precision());
    if !compute.is_gpu()
        && asked == DeviceSpec::Auto
        && let Some(reason) = device::unused_gpu()
    {
        note!("{reason}");
    }
}

/// An error, with what to do about it where a batch of inference did not fit into a GPU's memory; `flag` says how many
/// images there are in one.
pub fn explained(error: impl Into<Error>, flag: &str, images: usize) -> Error {
    let error = error.into();
    if !device::is_out_of_memory_text(&format!("{error:#}")) {
        return error;
    }
    anyhow!(
        "a batch of {images} images does not fit into the GPU's memory: choose a smaller {flag}, or --device cpu"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_told_with_the_flag_and_other_errors_as_they_are() {
        let error = explained(anyhow!("DriverError(CUDA_ERROR_OUT_OF_MEMORY)"), "--batch-size", 512);
        let text = error.to_string();
        assert!(text.contains("512 images") && text.contains("a smaller --batch-size"), "{text}");
        assert_eq!(explained(anyhow!("no such file"), "--batch-size", 512).to_string(), "no such file");
    }
}
