//! Bare ONNX Runtime: a session with IO binding, as its documentation has it, and nothing around. It is a process of its
//! own and times a window whenever a line comes in that says of how many runs.

use std::io::{BufRead, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use candle_core::Device;
use ndarray::{Array4, ArrayD};
use ort::ep::CUDA;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::Tensor;
use tallow_cuda::DeviceSpec;

use crate::timing::window;

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    library: PathBuf,
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    device: DeviceSpec,
    /// Shape of the images.
    #[arg(long, value_delimiter = ',')]
    shape: Vec<usize>,
    #[arg(long)]
    classes: usize,
}

pub fn run(args: &Args) -> Result<()> {
    let &[n, channels, height, width] = args.shape.as_slice() else { anyhow::bail!("a shape of four axes") };
    let environment = ort::init_from(&args.library)?.with_telemetry(false).build()?;
    let mut builder = Session::builder(&environment)?;
    let gpu = match args.device {
        DeviceSpec::Cuda(gpu) => Some(gpu as i32),
        DeviceSpec::Auto | DeviceSpec::Cpu => None,
    };
    if let Some(gpu) = gpu {
        // As the runtime sets it up: without TF32.
        let cuda = CUDA::default().with_device_id(gpu).with_tf32(false).build().error_on_failure();
        builder = builder.with_execution_providers([cuda]).map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    let mut session = builder.commit_from_file(&args.file).map_err(|error| anyhow::anyhow!("{error}"))?;
    let images = random([n, channels, height, width])?;
    let input = session.inputs().first().context("an input")?.name().to_owned();
    let output = session.outputs().first().context("an output")?.name().to_owned();
    let mut bound = Bound::new(&session, gpu, images.dim().into(), [n, args.classes], &output)?;
    let mut work = || bound.run(&mut session, &input, &output, &images).map(drop);
    // Memory is allocated and algorithms are chosen in the first.
    for _ in 0..3 {
        work()?;
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    for line in std::io::stdin().lock().lines() {
        let runs = line?.trim().parse().context("a number of runs")?;
        writeln!(stdout, "{}", window(runs, &mut work, || Ok(()))?)?;
        stdout.flush()?;
    }
    Ok(())
}

/// The images that both sides get.
pub fn random(shape: [usize; 4]) -> Result<Array4<f32>> {
    let values = tallow_trainer::synthetic::normal(shape.to_vec(), &Device::Cpu)?;
    Ok(Array4::from_shape_vec(shape, values.flatten_all()?.to_vec1()?)?)
}

/// Memory that the session's input is copied from and its output comes into; pinned where the session is on a GPU.
struct Bound {
    binding: IoBinding,
    input: Tensor<f32>,
}

impl Bound {
    fn new(
        session: &Session,
        gpu: Option<i32>,
        shape: [usize; 4],
        scores: [usize; 2],
        output: &str,
    ) -> Result<Self> {
        let allocator = |side: MemoryType| match gpu {
            None => Ok(Allocator::default()),
            Some(gpu) => {
                let pinned = |id| {
                    let memory =
                        MemoryInfo::new(AllocationDevice::CUDA_PINNED, id, AllocatorType::Device, side)?;
                    Allocator::new(session, memory)
                };
                // Registered under its device's number, by older releases under 0.
                pinned(gpu).or_else(|_| pinned(0))
            }
        };
        let mut binding = session.create_binding()?;
        let input = Tensor::<f32>::new(&allocator(MemoryType::CPUInput)?, shape)?;
        binding.bind_output(output, Tensor::<f32>::new(&allocator(MemoryType::CPUOutput)?, scores)?)?;
        Ok(Self { binding, input })
    }

    /// Images of the host in, scores of the host out.
    fn run(
        &mut self,
        session: &mut Session,
        input: &str,
        output: &str,
        images: &Array4<f32>,
    ) -> Result<ArrayD<f32>> {
        self.input.extract_array_mut().assign(&images.view().into_dyn());
        // Binding is what copies to the device.
        self.binding.bind_input(input, &self.input)?;
        let results = session.run_binding(&self.binding)?;
        let scores = results.get(output).context("the output")?;
        Ok(scores.try_extract_array::<f32>()?.to_owned())
    }
}
