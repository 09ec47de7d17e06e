//! `tallow quickstart`: the whole path on the embedded digits, in two minutes on two cores.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use tallow_builder::files::explained;
use tallow_conformance::VerifyOptions;
use tallow_exporter::Existing;
use tallow_exporter::tensorflow::SavedModelOptions;
use tallow_runtime::install::Package;
use tallow_runtime::{Classifier, find_library, install};
use tallow_trainer::config::InputConfig;
use tallow_trainer::data::{Sample, Splits};
use tallow_trainer::optim::OptimizerKind;
use tallow_trainer::schedule::{RateDecay, Schedule};
use tallow_trainer::{Config, Trainer};

use super::export::{Format, write};
use super::{train, verify};
use crate::failure::INTERRUPTED;
use crate::model::{free, open_trained};
use crate::output::{percent, say};

/// Validation images that are predicted at the end.
const SAMPLES: usize = 8;

#[derive(clap::Args)]
pub struct Args {
    /// Where the run goes [default: runs/quickstart, numbered]
    #[arg(long)]
    run: Option<PathBuf>,
    /// Decides everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The 20-layer CIFAR ResNet on digits of 16×16 pixels.
fn config(seed: u64) -> Config {
    let grey = Some([0.5; 3]);
    Config {
        model: "resnet20".into(),
        data: "digits".into(),
        epochs: 12,
        batch_size: 64,
        seed,
        label_smoothing: 0.1,
        input: InputConfig { size: Some(16), mean: grey, std: grey, ..InputConfig::default() },
        optimizer: Some(OptimizerKind::Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 }),
        schedule: Schedule {
            learning_rate: Some(0.1),
            warmup_epochs: 2.0,
            decay: RateDecay::Cosine { floor: 0.0 },
        },
        ..Config::default()
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let run = args.run.clone().unwrap_or_else(|| free(Path::new("runs/quickstart")));
    step("1. engines")?;
    engines()?;

    step("2. train")?;
    let start = Instant::now();
    let mut trainer = Trainer::create(&run, config(args.seed))?;
    train::describe(&trainer);
    let outcome = train::train(&mut trainer)?;
    let top1 = outcome.best.map_or(0.0, |best| best.validation.top1);
    say!("validation top-1 {} after {:.0} s", percent(top1), start.elapsed().as_secs_f64())?;
    if outcome.interrupted {
        say!("stopped; go on with: tallow train --resume {}", run.display())?;
        return Ok(ExitCode::from(INTERRUPTED));
    }

    step("3. export")?;
    let trained = open_trained(&run)?;
    let (onnx, directory) = (run.join("model.onnx"), run.join("saved_model"));
    let options = SavedModelOptions::default();
    say!("{}", write(&trained, &onnx, Format::Onnx, &options, Existing::Keep)?)?;
    say!("{}", write(&trained, &directory, Format::SavedModel, &options, Existing::Keep)?)?;

    step("4. verify: the same numbers in every engine")?;
    let report = verify::compare(&onnx, Some(run.clone()), &VerifyOptions::default())?;
    say!("{report}")?;

    step("5. predict")?;
    predict(&run, &onnx, trainer.config())?;

    let run = run.display();
    step("what there is now")?;
    say!(
        "{run}/model.onnx        the network for any ONNX runtime; it carries its labels and preprocessing"
    )?;
    say!("{run}/saved_model/      the same for TensorFlow, with variables, assets and the layer graph")?;
    say!(
        "{run}/curves.png        loss and accuracy; confusion.png beside it shows which digits are confused"
    )?;
    say!("{run}/checkpoints/      best and last, to go on from")?;
    step("what to type next (tallow = target/release/tallow)")?;
    say!("tallow predict {run}/model.onnx {run}/samples/*.png")?;
    say!("tallow eval {run}/model.onnx")?;
    say!("tallow summary resnet20 --size 16")?;
    say!("tallow train --data FOLDER --model resnet18 --size 128    # FOLDER/train/<class>/<image>")?;
    Ok(if report.agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn step(title: &str) -> Result<()> {
    say!("\n── {title}")
}

/// Sees to it that ONNX Runtime is there; without it tract does the work, and the user is told.
fn engines() -> Result<()> {
    let search = find_library(None);
    let result = match search.found {
        Some(library) => Ok(library),
        None => {
            say!("installing libonnxruntime (once, by pip, into your cache) …")?;
            install::install(Package::Cpu).map(|installed| installed.library)
        }
    };
    match result {
        Ok(library) => say!("ONNX Runtime: {}", library.display()),
        Err(error) => say!("ONNX Runtime: not available, tract does the work: {error}"),
    }
}

/// Writes some validation images as PNG files and labels them as any user of the file would.
fn predict(run: &Path, onnx: &Path, config: &Config) -> Result<()> {
    let classifier = Classifier::open(onnx)?;
    say!("{}", classifier.selection())?;
    let validation = Splits::open(&config.data, config.split, None, None)?.validation;
    let folder = run.join("samples");
    std::fs::create_dir_all(&folder)
        .map_err(|error| anyhow!("cannot create {}: {}", folder.display(), explained(&error)))?;
    let every = (validation.len() / SAMPLES).max(1);
    for index in (0..validation.len()).step_by(every).take(SAMPLES) {
        let Sample { image, label } = validation.load(index)?;
        let label = &validation.classes()[label as usize];
        let path = folder.join(format!("{label}-{index}.png"));
        image.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let best = classifier.classify_file(&path, 1)?;
        let best = best.first().context("a prediction for every image")?;
        say!("{}  {}  {}", path.display(), best.label, percent(f64::from(best.probability)))?;
    }
    Ok(())
}
