//! The heaviest kernels of a training step.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cupti::{self, Ran};
use crate::line;
use crate::sweep::setup;
use tallow_builder::kernels::allow_tf32;
use tallow_cuda::Precision;

use crate::target::{Target, check};
use crate::timing::window;
use crate::training::Training;

/// Steps before anything is recorded, and steps that are.
const WARM_UP: usize = 5;
const STEPS: usize = 10;
/// Kernels that are told.
const HEAVIEST: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    /// cuda:N
    #[arg(long, default_value = "cuda:0")]
    device: Target,
    #[arg(long, default_value = "resnet50")]
    network: String,
    /// f32, tf32, f16 or bf16
    #[arg(long, default_value = "bf16")]
    precision: Precision,
    #[arg(long, default_value_t = 128)]
    batch: usize,
}

/// The line of the result. `pytorch.py` writes the same.
#[derive(Serialize)]
struct Profile<'a> {
    kind: &'static str,
    framework: &'static str,
    mode: &'static str,
    network: &'a str,
    batch: usize,
    precision: Precision,
    /// Milliseconds of a step without the profiler.
    step_ms: f64,
    /// Milliseconds of a step in which a kernel ran. What is missing to `step_ms` the GPU waited.
    kernels_ms: f64,
    /// Kernels that a step launches.
    launches: f64,
    kernels: Vec<Kernel>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Kernel {
    name: String,
    /// Milliseconds a step.
    ms: f64,
    /// Launches a step.
    calls: f64,
    /// Of the time of all kernels.
    share: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let setup = setup(&args.network)?;
    let device = args.device.open()?;
    if device.is_cpu() {
        bail!("a profile is of a GPU's kernels: name one with --device cuda:N");
    }
    check(args.precision, args.device, &device)?;
    allow_tf32(args.precision == Precision::Tf32);
    let graph = setup.graph(false)?;
    let batch = args.batch.max(1);
    let mut training = Training::new(&graph, batch, args.precision, args.device, &device)?;
    let wait = || Ok(device.synchronize()?);
    window(WARM_UP, || training.step(), wait)?;
    let step = window(STEPS, || training.step(), wait)?;
    let ran = cupti::record(|| window(STEPS, || training.step(), wait).map(drop))?;
    let (kernels_ms, kernels) = heaviest(&ran, STEPS);
    line(&Profile {
        kind: "profile",
        framework: "tallow",
        mode: "eager",
        network: setup.name,
        batch,
        precision: args.precision,
        step_ms: 1e3 * step,
        kernels_ms,
        launches: ran.len() as f64 / STEPS as f64,
        kernels,
    })
}

/// Milliseconds that a step's kernels take, and those that take the most of them.
fn heaviest(ran: &[Ran], steps: usize) -> (f64, Vec<Kernel>) {
    let mut kernels = BTreeMap::<&str, (u64, usize)>::new();
    for Ran { name, nanoseconds } in ran {
        let (total, calls) = kernels.entry(name).or_default();
        *total += nanoseconds;
        *calls += 1;
    }
    let total: u64 = ran.iter().map(|kernel| kernel.nanoseconds).sum();
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by_key(|(_, (time, _))| std::cmp::Reverse(*time));
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6 / steps as f64;
    let kernel = |(name, (time, calls)): (&str, (u64, usize))| Kernel {
        name: name.to_owned(),
        ms: ms(time),
        calls: calls as f64 / steps as f64,
        share: time as f64 / total as f64,
    };
    (ms(total), kernels.into_iter().take(HEAVIEST).map(kernel).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_added_up_by_name_and_the_heaviest_come_first() {
        let ran = |name: &str, nanoseconds| Ran { name: name.into(), nanoseconds };
        let all = [ran("add", 1_000_000), ran("gemm", 2_000_000), ran("gemm", 3_000_000)];
        let (total, kernels) = heaviest(&all, 2);
        assert_eq!(total, 3.0);
        let kernel = |name: &str, ms, calls, share| Kernel { name: name.into(), ms, calls, share };
        assert_eq!(kernels, [kernel("gemm", 2.5, 1.0, 5.0 / 6.0), kernel("add", 0.5, 0.5, 1.0 / 6.0)]);
    }
}
