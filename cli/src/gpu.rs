//! The flags for engines on a GPU, wherever a command runs an .onnx file.

use std::path::PathBuf;

use clap::ValueEnum;
use tallow_runtime::{ArenaGrowth, ConvSearch, EngineKind, EngineOptions, GpuOptions};

use crate::failure::usage;

/// Said of each flag, for a heading of the whole group would take in the flags that come after it.
const HEADING: &str = "Engines on a GPU";

/// How an engine is set up. What is said and does not fit the engine is an error.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// CUDA device for ort-cuda and ort-tensorrt [default: 0]
    #[arg(help_heading = HEADING, long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    cuda_device: Option<i32>,
    /// The most memory that ONNX Runtime's arena may take on the device, in MB
    #[arg(help_heading = HEADING, long, value_name = "MB", value_parser = clap::value_parser!(u32).range(1..))]
    cuda_memory: Option<u32>,
    /// How the arena grows: power-of-two or as-requested, which takes less memory [default: power-of-two]
    #[arg(help_heading = HEADING, long, value_name = "GROWTH")]
    cuda_arena: Option<ArenaGrowth>,
    /// How ort-cuda chooses convolution algorithms: exhaustive (measured on the first run of each shape), heuristic or
    /// default [default: exhaustive]
    #[arg(help_heading = HEADING, long, value_name = "SEARCH")]
    conv_search: Option<ConvSearch>,
    /// Let ort-cuda multiply float32 in TF32: faster, and off by about 1e-3
    #[arg(help_heading = HEADING, long)]
    tf32: bool,
    /// Let ort-cuda compute convolutions channels-last, as tensor cores do best
    #[arg(help_heading = HEADING, long)]
    nhwc: bool,
    /// Let ort-cuda record the kernels of each batch size as a CUDA graph and launch them as one
    #[arg(help_heading = HEADING, long)]
    cuda_graph: bool,
    /// A folder that keeps the engines that ort-tensorrt builds, which takes minutes
    #[arg(help_heading = HEADING, long, value_name = "FOLDER")]
    trt_cache: Option<PathBuf>,
    /// Let ort-tensorrt compute a float32 file in float16 where that is faster
    #[arg(help_heading = HEADING, long)]
    trt_fp16: bool,
    /// Keep ONNX Runtime's inputs and outputs in memory that is allocated once for each batch size [default: on for
    /// GPUs, off for the CPU]
    #[arg(help_heading = HEADING, long, value_enum, value_name = "SWITCH")]
    io_binding: Option<Switch>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Args {
    /// The options of an engine.
    pub fn options(&self, threads: Option<usize>) -> EngineOptions {
        let binding = self.io_binding.map(|switch| switch == Switch::On);
        EngineOptions { threads, binding, gpu: self.gpu(), ..EngineOptions::default() }
    }

    fn gpu(&self) -> GpuOptions {
        let mut gpu = GpuOptions::default()
            .tf32(self.tf32)
            .nhwc(self.nhwc)
            .cuda_graph(self.cuda_graph)
            .fp16(self.trt_fp16);
        if let Some(id) = self.cuda_device {
            gpu = gpu.device(id);
        }
        if let Some(megabytes) = self.cuda_memory {
            gpu = gpu.memory_limit((megabytes as usize).saturating_mul(1 << 20));
        }
        if let Some(growth) = self.cuda_arena {
            gpu = gpu.arena(growth);
        }
        if let Some(search) = self.conv_search {
            gpu = gpu.conv_search(search);
        }
        if let Some(folder) = &self.trt_cache {
            gpu = gpu.engine_cache(folder);
        }
        gpu
    }

    /// Refuses what is said where no engine runs; `reason` says what does.
    pub fn refuse(&self, reason: &str) -> anyhow::Result<()> {
        if self.gpu().is_empty() && self.io_binding.is_none() {
            return Ok(());
        }
        Err(usage(format!("the flags for engines on a GPU, and --io-binding, are for an engine: {reason}")))
    }

    /// Refuses what one of several engines does not take, and what is for a GPU where none of them runs on one.
    pub fn check(&self, engines: &[EngineKind]) -> anyhow::Result<()> {
        if !self.gpu().is_empty() && !engines.iter().any(|engine| engine.is_gpu()) {
            return Err(usage(
                "the flags for engines on a GPU need one: add ort-cuda or ort-tensorrt to --engine",
            ));
        }
        let options = self.options(None);
        engines.iter().filter(|engine| engine.is_gpu()).try_for_each(|engine| Ok(options.check(*engine)?))
    }
}
