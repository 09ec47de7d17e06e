//! `verify --device --precision`: candle on a GPU, in the numbers that it trains in, beside candle on the CPU.

use std::path::Path;

use anyhow::{Result, bail};
use tallow_builder::Network;
use tallow_conformance::{
    Place, Precision, PrecisionOptions, PrecisionReport, Side, VerifyOptions, verify_precisions,
};
use tallow_cuda::DeviceSpec;

use crate::failure::usage;

// Not `next_help_heading`, under which clap would put what comes after these as well.
const GPU: &str = "candle on a GPU";

#[derive(clap::Args)]
pub struct Args {
    /// Also compute the network in candle on this GPU, cuda:N, and compare it with candle on the CPU in f32
    #[arg(help_heading = GPU, long, value_name = "DEVICE")]
    device: Option<DeviceSpec>,
    /// In these numbers, separated by commas: f32, tf32, f16, bf16; each has a tolerance of its own, which grows with
    /// the network's depth, unless --tolerance gives one for all [default: f32]
    #[arg(help_heading = GPU, long, value_delimiter = ',', value_name = "NUMBERS", requires = "device")]
    precision: Vec<Precision>,
}

impl Args {
    /// The rows that are asked for; a GPU that cannot be used is an error before anything runs.
    pub fn sides(&self) -> Result<Vec<Side>> {
        let Some(device) = self.device else { return Ok(vec![]) };
        let DeviceSpec::Cuda(gpu) = device else {
            return Err(usage(format!(
                "--device {device}: candle on the CPU is what all else is compared with: name a GPU, such as cuda:0"
            )));
        };
        device.open(0)?;
        let precisions = if self.precision.is_empty() { &[Precision::F32][..] } else { &self.precision };
        let side = |&precision| Side::Candle { place: Place::Gpu(gpu), precision };
        Ok(precisions.iter().map(side).collect())
    }
}

/// Compares the rows, if there are any.
pub fn compare(
    file: &Path,
    network: Option<&Network>,
    sides: Vec<Side>,
    options: &VerifyOptions,
) -> Result<Option<PrecisionReport>> {
    if sides.is_empty() {
        return Ok(None);
    }
    let Some(network) = network else {
        bail!(
            "--device computes the layer graph in candle, and there is none beside {}: name its run or model directory \
             with --from, or its weights with --weights",
            file.display()
        );
    };
    let options = PrecisionOptions { sides, half: None, verify: options.clone() };
    Ok(Some(verify_precisions(file, network, &options)?))
}
