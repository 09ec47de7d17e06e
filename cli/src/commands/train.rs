//! `tallow train`: settings from a TOML file and flags, a run directory out.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::json;
use tallow_trainer::optim::{Decay, OptimizerKind};
use tallow_trainer::progress::Progress;
use tallow_trainer::schedule::RateDecay;
use tallow_trainer::{Config, Outcome, Trainer};

use crate::model::free;
use crate::output::{json, percent, thousands};

/// Set by Ctrl-C; the trainer then writes a checkpoint and ends.
static STOP: AtomicBool = AtomicBool::new(false);

#[derive(clap::Args)]
pub struct Args {
    /// Settings; flags override them
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// A folder laid out as train/<class>/<image>, or `digits`
    #[arg(long)]
    data: Option<String>,
    /// A network of the zoo; `tallow summary` lists them
    #[arg(long)]
    model: Option<String>,
    /// Where the run goes [default: runs/<model>-<data>, numbered]
    #[arg(long, conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// Go on with the run in this directory; only --epochs may change
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "data", "model", "weights", "seed"])]
    resume: Option<PathBuf>,
    /// Weights to start from: a safetensors file that fits the network exactly
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Passes over the training set
    #[arg(long)]
    epochs: Option<u64>,
    /// Images in a step
    #[arg(long)]
    batch_size: Option<usize>,
    /// Side of the square images, pixels
    #[arg(long)]
    size: Option<u32>,
    /// The learning rate after the warm-up
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Epochs over which the learning rate grows
    #[arg(long, value_name = "EPOCHS")]
    warmup: Option<f64>,
    /// How the learning rate falls
    #[arg(long, value_enum)]
    schedule: Option<Schedule>,
    /// The optimiser, with its usual constants
    #[arg(long, value_enum)]
    optimizer: Option<Optimizer>,
    /// L2 penalty of the weights (decoupled for adamw)
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Probability taken from the true class and spread over all
    #[arg(long)]
    label_smoothing: Option<f64>,
    /// The largest allowed norm of all gradients together
    #[arg(long)]
    clip_norm: Option<f64>,
    /// Keep, validate and export an average of the weights with this decay, such as 0.999
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Decides everything random
    #[arg(long)]
    seed: Option<u64>,
    /// Threads that prepare images [default: one for each core]
    #[arg(long)]
    workers: Option<usize>,
    /// Make a broken image an error instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Optimizer {
    Sgd,
    Rmsprop,
    Adamw,
}

#[derive(Clone, Copy, ValueEnum)]
enum Schedule {
    Constant,
    Step,
    Cosine,
    Exponential,
}

pub fn run(args: &Args) -> Result<()> {
    let mut trainer = match &args.resume {
        Some(run) => Trainer::resume(run, args.epochs)?,
        None => {
            let config = settings(args)?;
            let path = args.run.clone().unwrap_or_else(|| free_run(&config));
            Trainer::create(&path, config)?
        }
    };
    describe(&trainer);
    let outcome = train(&mut trainer)?;
    if args.json {
        return json(&json!({
            "run": trainer.run_dir().path(),
            "interrupted": outcome.interrupted,
            "epochs": outcome.epochs,
            "best": outcome.best,
            "skipped": outcome.skipped.iter().map(|s| json!({ "origin": s.origin, "reason": s.reason })).collect::<Vec<_>>(),
        }));
    }
    report(&trainer, &outcome);
    Ok(())
}

/// Trains until the end or Ctrl-C.
pub fn train(trainer: &mut Trainer) -> Result<Outcome> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this batch; Ctrl-C again stops at once, without a checkpoint");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(trainer.train(&mut Progress::stderr(), &STOP)?)
}

/// What is about to be trained.
pub fn describe(trainer: &Trainer) {
    let totals = trainer.network().graph().totals();
    let [train, validation] = trainer.images();
    let config = trainer.config();
    eprintln!(
        "{} at {}: {} parameters, {:.3} GMACs; {}: {} images to train on, {} to validate, {} classes; run {}",
        config.model,
        trainer.network().graph().input_shape(),
        thousands(totals.parameters as u64),
        totals.macs as f64 / 1e9,
        config.data,
        thousands(train as u64),
        thousands(validation as u64),
        trainer.network().graph().output_shape(),
        trainer.run_dir().path().display(),
    );
}

fn report(trainer: &Trainer, outcome: &Outcome) {
    let run = trainer.run_dir().path().display();
    if !outcome.skipped.is_empty() {
        println!("{} images could not be used:", outcome.skipped.len());
        for skipped in &outcome.skipped {
            println!("  {}: {}", skipped.origin, skipped.reason);
        }
    }
    if let Some(best) = &outcome.best {
        let found = best.validation;
        println!(
            "best validation top-1 {} (top-5 {}, loss {:.4}) in epoch {}",
            percent(found.top1),
            percent(found.top5),
            found.loss,
            best.epoch
        );
    }
    if outcome.interrupted {
        println!("stopped; go on with: tallow train --resume {run}");
    } else {
        println!("curves.png, confusion.png, metrics.csv and checkpoints are in {run}");
        println!("next: tallow export {run} && tallow verify {run}/model.onnx");
    }
}

/// The settings file, or the defaults, with the flags on top.
fn settings(args: &Args) -> Result<Config> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if args.config.is_none() && args.data.is_none() {
        bail!("say what to train on: --data FOLDER (laid out as train/<class>/<image>) or --data digits");
    }
    fn take<T: Clone>(target: &mut T, value: &Option<T>) {
        if let Some(value) = value {
            target.clone_from(value);
        }
    }
    take(&mut config.data, &args.data);
    take(&mut config.model, &args.model);
    take(&mut config.epochs, &args.epochs);
    take(&mut config.batch_size, &args.batch_size);
    take(&mut config.seed, &args.seed);
    take(&mut config.workers, &args.workers);
    take(&mut config.label_smoothing, &args.label_smoothing);
    take(&mut config.schedule.learning_rate, &args.learning_rate);
    take(&mut config.schedule.warmup_epochs, &args.warmup);
    config.weights = args.weights.clone().or(config.weights);
    config.clip_norm = args.clip_norm.or(config.clip_norm);
    config.ema = args.ema.map(|decay| Decay { decay, warm_up: true }).or(config.ema);
    config.strict |= args.strict;
    if let Some(size) = args.size {
        config.input.size = Some(size);
        (config.input.width, config.input.height) = (None, None);
    }
    if let Some(schedule) = args.schedule {
        config.schedule.decay = match schedule {
            Schedule::Constant => RateDecay::Constant,
            Schedule::Cosine => RateDecay::Cosine { floor: 0.0 },
            // He et al. 2015 divide by 10 after a third and two thirds of their 90 epochs.
            Schedule::Step => RateDecay::Step { every: config.epochs as f64 / 3.0, factor: 0.1 },
            // Tan & Le 2019, section 5.2.
            Schedule::Exponential => RateDecay::Exponential { every: 2.4, factor: 0.97 },
        };
    }
    if let Some(optimizer) = args.optimizer {
        config.optimizer = match optimizer {
            Optimizer::Sgd => OptimizerKind::default(),
            Optimizer::Rmsprop => {
                OptimizerKind::RmsProp { decay: 0.9, momentum: 0.9, eps: 1e-3, weight_decay: 1e-5 }
            }
            Optimizer::Adamw => OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 },
        };
    }
    if let Some(decay) = args.weight_decay {
        match &mut config.optimizer {
            OptimizerKind::Sgd { weight_decay, .. }
            | OptimizerKind::RmsProp { weight_decay, .. }
            | OptimizerKind::AdamW { weight_decay, .. } => *weight_decay = decay,
        }
    }
    Ok(config)
}

/// The folder of a run that nobody named.
fn free_run(config: &Config) -> PathBuf {
    let data = Path::new(&config.data).file_name().map_or("data".into(), |name| name.to_string_lossy());
    free(&Path::new("runs").join(format!("{}-{data}", config.model)))
}
