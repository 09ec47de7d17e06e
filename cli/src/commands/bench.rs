//! `tallow bench`: how fast an .onnx file runs in each engine, or a network trains.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ndarray::Array4;
use serde::Serialize;
use tallow_builder::Rng;
use tallow_cuda::device::describe;
use tallow_runtime::{Batch, Dim, Element, EngineChoice, EngineKind, ModelInfo};
use tallow_trainer::compute::Precision;
use tallow_trainer::synthetic::Synthetic;

use crate::device::{self, explained};
use crate::failure::usage;
use crate::model::onnx_file;
use crate::output::{json, note, table};
use crate::{gpu, zoo};

/// Beyond any batch that a machine has the memory for.
const MOST_IMAGES: usize = 65_536;

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// An .onnx file, or a run or model directory that holds one: latency and throughput of inference
    #[arg(required_unless_present_any = ["train", "config"], conflicts_with_all = ["train", "config"])]
    model: Option<PathBuf>,
    /// A network of the zoo, which --config names as well: images/s of training (forward, backward, SGD with momentum)
    #[arg(long, value_name = "NETWORK")]
    train: Option<String>,
    /// Images at a time [default: 1,8 for inference, 64 for training]
    #[arg(long, value_delimiter = ',')]
    batch: Vec<usize>,
    /// Engines to measure: ort-cuda, ort-tensorrt, ort, tract, separated by commas; auto for all that can run, but
    /// TensorRT
    #[arg(long, value_delimiter = ',', default_value = "auto", conflicts_with = "train")]
    engine: Vec<EngineChoice>,
    #[command(flatten)]
    device: device::Args,
    #[command(flatten)]
    gpu: gpu::Args,
    #[command(flatten)]
    zoo: zoo::Args,
    /// Seconds for each measurement, after one of warm-up
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One line of the result: times of a single run, or step.
#[derive(Serialize)]
struct Timing {
    engine: String,
    /// Whether inputs and outputs were bound; training has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    io_binding: Option<bool>,
    /// Of training alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<Precision>,
    batch: usize,
    runs: usize,
    min_ms: f64,
    median_ms: f64,
    p95_ms: f64,
    images_per_second: f64,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<()> {
    if args.seconds.is_nan() || !(0.0..=3600.0).contains(&args.seconds) {
        return Err(usage("--seconds must lie in 0 to 3600"));
    }
    if args.batch.iter().any(|batch| !(1..=MOST_IMAGES).contains(batch)) {
        return Err(usage(format!("--batch must lie in 1 to {MOST_IMAGES}")));
    }
    let timings = match &args.model {
        Some(_) if args.zoo.is_some() => {
            return Err(usage("--classes, --size, --width and --depth are for --train; a file has its own"));
        }
        Some(model) => {
            args.device.refuse("an .onnx file runs in an engine: for a GPU say --engine ort-cuda")?;
            inference(&onnx_file(model)?, args, threads)?
        }
        None => {
            args.gpu.refuse("training is measured on candle")?;
            training(args)?
        }
    };
    if args.json {
        return json(&timings);
    }
    let row = |t: &Timing| {
        let ms = [t.min_ms, t.median_ms, t.p95_ms].map(|ms| format!("{ms:.2}"));
        let [min, median, p95] = ms;
        let speed = format!("{:.1}", t.images_per_second);
        let how = match (t.io_binding, t.precision) {
            (Some(true), _) => " (bound)".into(),
            (_, Some(precision)) => format!(" ({precision})"),
            _ => String::new(),
        };
        vec![format!("{}{how}", t.engine), t.batch.to_string(), t.runs.to_string(), min, median, p95, speed]
    };
    let rows: Vec<Vec<String>> = timings.iter().map(row).collect();
    table(&["engine", "batch", "runs", "min ms", "median ms", "95 % ms", "images/s"], &rows)
}

/// Repeats `work` for the asked time, and at least three times, after warming up.
fn measure(engine: &str, batch: usize, seconds: f64, mut work: impl FnMut() -> Result<()>) -> Result<Timing> {
    let budget = Duration::from_secs_f64(seconds);
    let warm_up = Instant::now();
    work()?;
    while warm_up.elapsed() < budget.min(Duration::from_secs(1)) {
        work()?;
    }
    let mut times = vec![];
    let start = Instant::now();
    while times.len() < 3 || start.elapsed() < budget {
        let one = Instant::now();
        work()?;
        times.push(1e3 * one.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median_ms = times[times.len() / 2];
    Ok(Timing {
        engine: engine.to_owned(),
        io_binding: None,
        device: None,
        precision: None,
        batch,
        runs: times.len(),
        min_ms: times[0],
        median_ms,
        p95_ms: times[(times.len() * 95 / 100).min(times.len() - 1)],
        images_per_second: 1e3 * batch as f64 / median_ms,
    })
}

fn inference(file: &Path, args: &Args, threads: Option<usize>) -> Result<Vec<Timing>> {
    let info = ModelInfo::read(file)?;
    let Some([batch, Dim::Fixed(a), Dim::Fixed(b), Dim::Fixed(c)]) = info.input.dims.as_deref() else {
        bail!(
            "{}: its input `{}` is no batch of images of a fixed size, so it cannot be timed",
            file.display(),
            info.input.name
        );
    };
    let batches = match (batch, args.batch.as_slice()) {
        (Dim::Fixed(n), []) => vec![*n],
        (Dim::Fixed(n), asked) if asked != [*n] => {
            return Err(usage(format!("{} takes batches of {n} only: leave --batch out", file.display())));
        }
        (_, []) => vec![1, 8],
        (_, asked) => asked.to_vec(),
    };
    let options = args.gpu.options(threads);
    let all = args.engine.contains(&EngineChoice::Auto);
    let named = |kind| EngineChoice::Named(kind);
    let choices = if all { EngineKind::AUTO.map(named).to_vec() } else { args.engine.clone() };
    let mut timings = vec![];
    for choice in choices {
        let network = match tallow_runtime::Network::open(file, choice, &options) {
            Ok(network) => network,
            Err(error) if all => {
                note!("{error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for &n in &batches {
            let mut rng = Rng::new(1);
            let (floats, bytes);
            let images: Batch<'_> = match info.element {
                Element::Float => {
                    floats = Array4::from_shape_fn((n, *a, *b, *c), |_| rng.normal() as f32);
                    floats.view().into()
                }
                Element::Byte => {
                    bytes = Array4::from_shape_fn((n, *a, *b, *c), |_| (256.0 * rng.uniform()) as u8);
                    bytes.view().into()
                }
            };
            let engine = network.selection().engine;
            let timing =
                measure(&engine.to_string(), n, args.seconds, || Ok(network.run(images).map(drop)?))?;
            timings.push(Timing { io_binding: Some(options.binds(engine)), ..timing });
        }
    }
    Ok(timings)
}

fn training(args: &Args) -> Result<Vec<Timing>> {
    let (architecture, options) = args.zoo.resolve(args.train.as_deref())?;
    let graph = architecture.build(&options)?;
    let compute = args.device.open()?;
    let batches = if args.batch.is_empty() { vec![64] } else { args.batch.clone() };
    let timing = |&batch: &usize| {
        let mut training = Synthetic::new(&graph, batch, compute.precision(), compute.device())?;
        // A step's time is its own where the next one begins when nothing is left to do.
        let step = || {
            training.step()?;
            Ok(compute.device().synchronize()?)
        };
        let timing = measure("candle", batch, args.seconds, step)?;
        if !training.is_sound()? {
            bail!("training in {} left weights that are no finite numbers", compute.precision());
        }
        let device = Some(describe(compute.device()));
        Ok(Timing { device, precision: Some(compute.precision()), ..timing })
    };
    let explained = |batch: &usize| timing(batch).map_err(|error| explained(error, "--batch", *batch));
    batches.iter().map(explained).collect()
}
