//! What the runtime costs: its classifier and bare ONNX Runtime with IO binding on the same file and images, in windows
//! that take turns.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde::Serialize;
use tallow_builder::Weights;
use tallow_cuda::{DeviceSpec, Precision};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};
use tallow_runtime::{
    Classifier, Dtype, EngineChoice, EngineKind, EngineOptions, GpuOptions, ModelCard, Preprocess,
    find_library,
};

use crate::bare::random;
use crate::line;
use crate::sweep::setup;
use crate::timing::{self, median, window};

/// Ours may take so many times as long.
const GOAL: f64 = 1.02;

#[derive(clap::Args)]
pub struct Args {
    /// cuda:N or cpu
    #[arg(long, default_value = "cuda:0")]
    device: DeviceSpec,
    /// Networks, separated by commas, with random weights
    #[arg(long, value_delimiter = ',', default_value = "resnet50,efficientnet_b0")]
    networks: Vec<String>,
    /// Files' numbers, separated by commas: f32, f16
    #[arg(long, value_delimiter = ',', default_value = "f32,f16")]
    precision: Vec<Precision>,
    /// Images at a time
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    #[command(flatten)]
    timing: timing::Args,
    /// Small images, no time: to see that it runs
    #[arg(long)]
    quick: bool,
}

#[derive(Serialize)]
struct Measurement<'a> {
    kind: &'static str,
    network: &'a str,
    /// The file's.
    precision: Precision,
    size: usize,
    batch: usize,
    engine: EngineKind,
    device: String,
    runtime_ms: f64,
    bare_ms: f64,
    /// The median of the ratios of windows that followed each other.
    ratio: f64,
    goal: f64,
    images_per_second: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let files = args.precision.iter().map(|&precision| Ok((precision, dtype(precision)?)));
    let files = files.collect::<Result<Vec<_>>>()?;
    let search = find_library(None);
    let library = search.found.as_deref().with_context(|| {
        format!(
            "{}: {}",
            search.steps.iter().map(|step| step.place).collect::<Vec<_>>().join(", "),
            search.remedy()
        )
    })?;
    let folder = tempfile::tempdir()?;
    for name in &args.networks {
        let setup = setup(name)?;
        let (graph, size) = (setup.graph(args.quick)?, setup.size(args.quick));
        let labels = (0..setup.classes).map(|class| class.to_string()).collect();
        let card = ModelCard::new(name.as_str(), labels, Preprocess::imagenet(size as u32, size as u32));
        let weights = Weights::init(&graph, 1, &Device::Cpu)?;
        for &(precision, dtype) in &files {
            let file = folder.path().join(format!("{name}.{precision}.onnx"));
            let options = OnnxOptions { dtype, ..OnnxOptions::default() };
            write_onnx(&file, &graph, &weights, Some(&card), &options, Existing::Keep)?;
            for &batch in &args.batch {
                let shape = [batch.max(1), 3, size, size];
                line(&measure(args, name, precision, shape, setup.classes, &file, library)?)?;
            }
        }
    }
    Ok(())
}

/// What a file can be in.
fn dtype(precision: Precision) -> Result<Dtype> {
    match precision {
        Precision::F32 => Ok(Dtype::F32),
        Precision::F16 => Ok(Dtype::F16),
        Precision::Tf32 | Precision::Bf16 => bail!("--precision {precision}: files are in f32 or f16"),
    }
}

fn measure<'a>(
    args: &Args,
    network: &'a str,
    precision: Precision,
    shape: [usize; 4],
    classes: usize,
    file: &Path,
    library: &Path,
) -> Result<Measurement<'a>> {
    let (engine, gpu) = match args.device {
        DeviceSpec::Cuda(gpu) => (EngineKind::OrtCuda, GpuOptions::default().device(gpu as i32)),
        DeviceSpec::Auto | DeviceSpec::Cpu => (EngineKind::Ort, GpuOptions::default()),
    };
    let options = EngineOptions { library: Some(library.to_owned()), gpu, ..EngineOptions::default() };
    let classifier = Classifier::builder().engine(EngineChoice::Named(engine)).options(options).open(file)?;
    let images = random(shape)?;
    let mut ours = || Ok(classifier.scores(images.view()).map(drop)?);
    let mut bare = Bare::start(args.device, shape, classes, file, library)?;
    let timing = if args.quick { timing::Args::quick() } else { args.timing };
    let runs = timing.warm_up(&mut ours, || Ok(()))?;
    bare.window(runs)?;
    let (mut runtime, mut alone) = (vec![], vec![]);
    for _ in 0..timing.windows() {
        runtime.push(window(runs, &mut ours, || Ok(()))?);
        alone.push(bare.window(runs)?);
    }
    let ratios: Vec<f64> = runtime.iter().zip(&alone).map(|(ours, bare)| ours / bare).collect();
    Ok(Measurement {
        kind: "serving",
        network,
        precision,
        size: shape[2],
        batch: shape[0],
        engine,
        device: args.device.to_string(),
        runtime_ms: 1e3 * median(&runtime),
        bare_ms: 1e3 * median(&alone),
        ratio: median(&ratios),
        goal: GOAL,
        images_per_second: shape[0] as f64 / median(&runtime),
    })
}

/// The process with the bare session. It ends with its standard input.
struct Bare {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Bare {
    fn start(
        device: DeviceSpec,
        shape: [usize; 4],
        classes: usize,
        file: &Path,
        library: &Path,
    ) -> Result<Self> {
        let program: PathBuf = std::env::current_exe()?;
        let device = if device == DeviceSpec::Auto { DeviceSpec::Cpu } else { device };
        let mut child = Command::new(program)
            .args(["bare", "--device", &device.to_string(), "--classes", &classes.to_string()])
            .args(["--shape", &shape.map(|axis| axis.to_string()).join(",")])
            .arg("--file")
            .arg(file)
            .arg("--library")
            .arg(library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("its standard output")?);
        let mut bare = Self { child, input, output };
        if bare.read()? != "ready" {
            bail!("bare ONNX Runtime did not get ready");
        }
        Ok(bare)
    }

    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("bare ONNX Runtime ended; its message is above");
        }
        Ok(line.trim().to_owned())
    }

    /// The seconds of a run in a window of so many.
    fn window(&mut self, runs: usize) -> Result<f64> {
        writeln!(self.input.as_mut().context("its standard input")?, "{runs}")?;
        Ok(self.read()?.parse()?)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.input = None;
        // It ends by itself; how it ended says nothing that its windows did not.
        let _ = self.child.wait();
    }
}
