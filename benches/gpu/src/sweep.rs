//! Training over networks, precisions and batches; a batch that does not fit is told and ends its sweep.

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde::Serialize;
use tallow_builder::Graph;

use crate::line;
use crate::peak::{self, Peak};
use tallow_builder::kernels::allow_tf32;
use tallow_cuda::Precision;

use crate::target::{Target, check};
use crate::timing::{self, median};
use crate::training::{SETUPS, Setup, Training};

/// Larger than anything that fits.
const LARGEST_BATCH: usize = 1 << 16;

#[derive(clap::Args)]
pub struct Args {
    /// cuda:N, cpu, or emulated: the kernels for GPUs on the host
    #[arg(long, default_value = "cuda:0")]
    device: Target,
    /// Networks, separated by commas
    #[arg(long, value_delimiter = ',', default_values_t = SETUPS.map(|setup| setup.name.to_owned()))]
    networks: Vec<String>,
    /// Precisions, separated by commas: f32, tf32, f16, bf16 [default: bf16; f32 on the CPU]
    #[arg(long, value_delimiter = ',')]
    precision: Vec<Precision>,
    /// Batches, separated by commas [default: from 32, doubled until the memory does not hold it]
    #[arg(long, value_delimiter = ',')]
    batch: Vec<usize>,
    #[command(flatten)]
    timing: timing::Args,
    /// Small images, a batch of two, no time: to see that it runs
    #[arg(long)]
    quick: bool,
}

/// A line of the result. `pytorch.py` writes the same.
#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    framework: &'static str,
    mode: &'static str,
    network: &'a str,
    size: usize,
    batch: usize,
    precision: Precision,
    device: &'a str,
    out_of_memory: bool,
    #[serde(flatten)]
    result: Option<Figures>,
}

#[derive(Serialize)]
struct Figures {
    images_per_second: f64,
    step_ms: f64,
    /// What the host needs of it to hand a GPU its work: where that comes near, or kernels take much less than a step,
    /// CUDA graphs would pay.
    host_ms: f64,
    /// Milliseconds of a step in each window.
    windows_ms: Vec<f64>,
    /// The most that tensors took, on a GPU.
    peak_bytes: Option<usize>,
    /// Multiply-accumulates of a forward pass of one image.
    macs: u64,
    /// FLOPs a second that a step does: two a multiply-accumulate, forward once and backward twice.
    flops: f64,
    matmul: Peak,
    /// `flops` over those of the matrix product.
    matmul_share: f64,
    finite: bool,
}

pub fn setup(name: &str) -> Result<&'static Setup> {
    let names = SETUPS.map(|setup| setup.name).join(", ");
    SETUPS.iter().find(|setup| setup.name == name).with_context(|| format!("{name} is none of {names}"))
}

pub fn run(args: &Args) -> Result<()> {
    let setups = args.networks.iter().map(|name| setup(name)).collect::<Result<Vec<_>>>()?;
    let device = args.device.open()?;
    let precisions = match args.precision.as_slice() {
        [] if device.is_cpu() => vec![Precision::F32],
        [] => vec![Precision::Bf16],
        given => given.to_vec(),
    };
    precisions.iter().try_for_each(|&precision| check(precision, args.device, &device))?;
    if args.batch.contains(&0) {
        bail!("a batch holds at least one image");
    }
    let timing = if args.quick { timing::Args::quick() } else { args.timing };
    for precision in precisions {
        allow_tf32(precision == Precision::Tf32);
        let peak = peak::measure(precision, &device, timing)?;
        for setup in &setups {
            let graph = setup.graph(args.quick)?;
            for batch in batches(args, &device) {
                let measured = measure(args, &graph, batch, precision, &device, peak, timing);
                let result = match measured {
                    Ok(figures) => Some(figures),
                    Err(error) if does_not_fit(&error) => None,
                    Err(error) => return Err(error.context(format!("{}, batch {batch}", setup.name))),
                };
                let out_of_memory = result.is_none();
                line(&Measurement {
                    kind: "training",
                    framework: "tallow",
                    mode: "eager",
                    network: setup.name,
                    size: setup.size(args.quick),
                    batch,
                    precision,
                    device: &args.device.describe(&device),
                    out_of_memory,
                    result,
                })?;
                if out_of_memory {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn batches(args: &Args, device: &Device) -> Vec<usize> {
    match args.batch.as_slice() {
        [] if args.quick => vec![2],
        // A CPU's memory has no end that a sweep should look for.
        [] if device.is_cpu() => vec![8],
        [] => std::iter::successors(Some(32), |batch| Some(2 * batch))
            .take_while(|&batch| batch <= LARGEST_BATCH)
            .collect(),
        given => given.to_vec(),
    }
}

fn measure(
    args: &Args,
    graph: &Graph,
    batch: usize,
    precision: Precision,
    device: &Device,
    matmul: Peak,
    timing: timing::Args,
) -> Result<Figures> {
    tallow_cuda::device::reset_peak(device)?;
    let mut training = Training::new(graph, batch, precision, args.device, device)?;
    let seconds = timing.measure(|| training.step(), || Ok(device.synchronize()?))?;
    let host = timing.measure_host(|| training.step(), || Ok(device.synchronize()?))?;
    let step = median(&seconds);
    let macs = graph.totals().macs;
    let flops = 3.0 * 2.0 * macs as f64 * batch as f64 / step;
    Ok(Figures {
        images_per_second: batch as f64 / step,
        step_ms: 1e3 * step,
        host_ms: 1e3 * host,
        windows_ms: seconds.iter().map(|seconds| 1e3 * seconds).collect(),
        peak_bytes: tallow_cuda::device::memory(device)?.map(|memory| memory.peak),
        macs,
        flops,
        matmul,
        matmul_share: flops / matmul.flops,
        finite: training.is_sound()?,
    })
}

/// Whether an error is for want of memory, of the driver's, of cuDNN's or of cuBLAS's, or of cuDNN's 32 bits for the number
/// of elements, which a small network meets before.
fn does_not_fit(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    tallow_cuda::device::is_out_of_memory_text(&text) || text.contains(tallow_cuda::device::BEYOND_CUDNN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_from_other_errors_wherever_it_comes_from() {
        let layer = |text: &str| {
            let source = candle_core::Error::Msg(text.into());
            anyhow::Error::from(tallow_builder::Error::Layer { layer: "conv1".into(), source })
        };
        assert!(does_not_fit(&layer("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")")));
        assert!(does_not_fit(&layer(
            "conv2d: 4096 images of … are more than cuDNN can count: choose a smaller batch"
        )));
        assert!(does_not_fit(&layer("CUBLAS_STATUS_ALLOC_FAILED").context("resnet50")));
        assert!(!does_not_fit(&layer("CUDA_ERROR_ILLEGAL_ADDRESS")));
    }

    #[test]
    fn the_networks_are_in_the_zoo() {
        for setup in &SETUPS {
            assert!(setup.graph(false).is_ok() && setup.graph(true).is_ok());
        }
        assert!(super::setup("alexnet").unwrap_err().to_string().contains("resnet50, efficientnet_b0"));
    }
}
