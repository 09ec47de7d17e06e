//! `tallow train`: settings from a TOML file and flags, a run directory out.

mod augmentation;
mod fine_tune;
mod print_config;
mod processes;
pub mod settings;
mod start;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::Device;
use serde_json::json;
use tallow_builder::Weights;
use tallow_builder::graph::Op;
use tallow_distributed::Place;
use tallow_trainer::data::Skipped;
use tallow_trainer::distributed::Transport;
use tallow_trainer::progress::Progress;
use tallow_trainer::{Changes, Config, NewRun, Outcome, Trainer};

use crate::device::announce;
use crate::failure::{INTERRUPTED, usage};
use crate::interrupt;
use crate::model::free;
use crate::output::{count, json, note, percent, say, thousands};
use settings::Settings;

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// Passes over the training set [default: 30]; with --resume, in all
    #[arg(short, long)]
    epochs: Option<u64>,
    /// Where the run goes [default: runs/<model>-<data>, numbered]
    #[arg(long, value_name = "FOLDER", conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// Go on with the run in this directory, with its own settings; only --epochs may change, --data say where the
    /// same images are now, --device, --precision and --checkpoint-activations how to compute, and --batch-size and
    /// --grad-accum in how many parts, as long as a step has the same images
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    /// Classes that the data must have; the network gets as many outputs [default: those that it has]
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    classes: Option<usize>,
    /// Train with N processes on this host, each on its share of every batch, which has N times --batch-size images.
    /// Where torchrun or Slurm's srun start tallow, their processes train together without this
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "print_config")]
    processes: Option<u16>,
    /// Print the settings as they would be used, explained, as a TOML file for --config, and stop
    #[arg(long, conflicts_with_all = ["resume", "run", "json"])]
    print_config: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Stop as at a Ctrl-C when standard input ends: a search that is killed takes its trainings with it
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    /// Write the error that ends this process to a file, for --processes, which tells whose it is
    #[arg(long, value_name = "FILE", hide = true)]
    error_file: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    let ended = dispatch(args, threads);
    match &args.error_file {
        Some(file) => processes::handed_over(ended, file),
        None => ended,
    }
}

fn dispatch(args: &Args, threads: Option<usize>) -> Result<ExitCode> {
    if let Some(processes) = args.processes {
        if let (Some(gpu), true) = (args.settings.gpu(), processes > 1) {
            return Err(usage(format!(
                "--device cuda:{gpu} would be the GPU of all {processes} processes: leave it out, and each takes its own"
            )));
        }
        let processes = usize::from(processes);
        if let Some(run) = args.resume.as_ref().or(args.run.as_ref()) {
            return processes::run(processes, run, false);
        }
        let (config, _) = args.settings.resolve(args.epochs)?;
        return processes::run(processes, &free_run(&config), true);
    }
    if args.print_config {
        let (config, _) = args.settings.resolve(args.epochs)?;
        config.validate()?;
        say!("{}", print_config::annotated(config)?.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = Place::from_environment()?;
    if let (Some(place), None) = (&place, threads)
        && place.local_world_size > 1
    {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(place.cores());
        pool.build_global().context("cannot start the threads")?;
    }
    let mut trainer = match &args.resume {
        Some(run) => {
            let Some(changes) = args.settings.changes()? else {
                return Err(usage(
                    "--resume goes on with the run's own settings: of the others only --epochs, --data, --device, \
                     --precision, --checkpoint-activations, and --batch-size with --grad-accum may be given",
                ));
            };
            Trainer::resume_at(run, Changes { epochs: args.epochs, ..changes }, place.as_ref())?
        }
        None => {
            if !args.settings.name_data() {
                return Err(usage(
                    "say what to train on: --data FOLDER (train/<class>/<image>, or TFRecord shards) or --data digits",
                ));
            }
            let (config, start) = args.settings.resolve(args.epochs)?;
            args.settings.refuse_idle_split(&config)?;
            let path = args.run.clone().unwrap_or_else(|| free_run(&config));
            let seed = config.seed;
            let data = config.data_name();
            let new = NewRun::prepare_at(config, place.as_ref())?;
            if let Some(said) = args.classes
                && said != new.classes().len()
            {
                return Err(usage(format!(
                    "{data} has {} classes, and --classes says {said}: name other data, or leave --classes out",
                    new.classes().len()
                )));
            }
            let weights = match start {
                Some(start) => start.read(new.graph(), new.classes(), seed, new.leads())?,
                None => Weights::init(new.graph(), seed, &Device::Cpu)?,
            };
            new.begin(&path, weights)?
        }
    };
    if args.until_stdin_ends {
        interrupt::at_end_of_stdin();
    }
    if !trainer.leads() {
        // Rank 0 tells of the run.
        let outcome = train(&mut trainer)?;
        return Ok(ended(&outcome));
    }
    describe(&trainer);
    if trainer.went_back() {
        note!(
            "note: its newest checkpoint (checkpoints/last) is missing, so it goes on from its best (checkpoints/best)"
        );
    }
    for file in trainer.cut_event_files() {
        note!("warning: {file}");
    }
    if trainer.is_done() {
        let (run, epochs) = (trainer.run_dir().path().display(), trainer.config().epochs);
        note!(
            "all of its {epochs} epochs are done; to go on: tallow train --resume {run} --epochs {}",
            2 * epochs
        );
    }
    let outcome = train(&mut trainer)?;
    if args.json {
        json(&json!({
            "run": trainer.run_dir().path().display().to_string(),
            "interrupted": outcome.interrupted,
            "epochs": outcome.epochs,
            "best": outcome.best,
            "skipped": skipped_json(&outcome.skipped),
        }))?;
    } else {
        report(&trainer, &outcome)?;
    }
    Ok(ended(&outcome))
}

fn ended(outcome: &Outcome) -> ExitCode {
    if outcome.interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS }
}

/// Images that could not be used, for machines.
pub fn skipped_json(skipped: &[Skipped]) -> serde_json::Value {
    skipped.iter().map(|image| json!({ "origin": image.origin, "reason": image.reason })).collect()
}

/// Trains until the end or Ctrl-C.
pub fn train(trainer: &mut Trainer) -> Result<Outcome> {
    let stop =
        interrupt::listen("stopping after this batch; Ctrl-C again stops at once, without a checkpoint")?;
    let mut progress = if trainer.leads() { Progress::stderr() } else { Progress::hidden() };
    Ok(trainer.train(&mut progress, stop)?)
}

/// What is about to be trained.
pub fn describe(trainer: &Trainer) {
    let totals = trainer.network().graph().totals();
    let [train, validation] = trainer.images();
    let config = trainer.config();
    note!(
        "{} at {}: {} parameters, {:.3} GMACs; {}: {} images to train on, {} to validate, {} classes; run {}",
        config.model,
        trainer.network().graph().input_shape(),
        thousands(totals.parameters as u64),
        totals.macs as f64 / 1e9,
        config.data_name(),
        thousands(train as u64),
        thousands(validation as u64),
        trainer.network().graph().output_shape(),
        trainer.run_dir().path().display(),
    );
    announce(trainer.compute(), config.compute.device);
    if let Some(transport) = trainer.transport() {
        note!(
            "{} processes train together: {} images in a batch{}; gradients go {}",
            trainer.processes(),
            config.global_batch_size(),
            if config.distributed.sync_batch_norm { ", batch normalisation over all of them" } else { "" },
            match transport {
                Transport::Tcp => "over TCP",
                Transport::Nccl => "from GPU to GPU by NCCL",
                Transport::GpusThroughHosts =>
                    "through the hosts, over TCP: a build with `--features cuda,cudnn,nccl` sends them from GPU to GPU",
            }
        );
    }
    let batches = trainer.batches();
    if config.accumulate > batches {
        note!(
            "note: --grad-accum {} takes more batches into a step than an epoch has ({batches}): each epoch is one step \
             of all its batches; a smaller --batch-size makes more of them",
            config.accumulate
        );
    }
    if let Some(records) = &config.records {
        let first = records.label_offset.unwrap_or_default();
        let classes = trainer.network().graph().output_shape().elements() as u32;
        note!("TFRecord shards: labels {first} to {} are the classes", first + classes - 1);
    }
    describe_tuning(trainer, totals.parameters);
    let graph = trainer.network().graph();
    let pool = graph.nodes().iter().rfind(|node| matches!(node.op, Op::GlobalAvgPool));
    if let Some(pool) = pool
        && graph.node(pool.inputs[0]).shape.dims()[1..] == [1, 1]
    {
        let cifar = format!("{}_cifar", config.model);
        let small = if tallow_models::find(&cifar).is_ok() { &cifar } else { "resnet20" };
        note!(
            "note: {} shrinks these images to 1×1 before its last pool; a larger --size or a network for small \
             images, such as {small}, may learn more",
            config.model,
        );
    }
}

/// How much of the network is trained from when on, where that is not all of it from the start.
fn describe_tuning(trainer: &Trainer, parameters: usize) {
    let schedule = trainer.tuning().schedule();
    if matches!(schedule[..], [(0, trained)] if trained == parameters) {
        return;
    }
    let joins =
        |(epoch, trained): &(u64, usize)| format!("{} from epoch {}", thousands(*trained as u64), epoch + 1);
    let epochs = trainer.config().epochs;
    let (inside, after): (Vec<_>, Vec<_>) = schedule.iter().partition(|(epoch, _)| *epoch < epochs);
    let list = inside.into_iter().map(joins).collect::<Vec<_>>().join(", ");
    note!("trained: {list}, of {} parameters", thousands(parameters as u64));
    if let Some(last) = after.last() {
        note!(
            "note: the run ends before --head-epochs and --unfreeze-every let more join: {}; --epochs {} or more would",
            joins(last),
            last.0 + 1
        );
    }
}

fn report(trainer: &Trainer, outcome: &Outcome) -> Result<()> {
    let run = trainer.run_dir().path().display();
    if !outcome.skipped.is_empty() {
        say!("{} could not be used:", count(outcome.skipped.len(), "image"))?;
        for skipped in &outcome.skipped {
            say!("  {}: {}", skipped.origin, skipped.reason)?;
        }
    }
    if let Some(best) = &outcome.best {
        let found = best.validation;
        say!(
            "best validation top-1 {} (top-5 {}, loss {:.4}) in epoch {}",
            percent(found.top1),
            percent(found.top5),
            found.loss,
            best.epoch
        )?;
    }
    if outcome.interrupted {
        let processes = match trainer.processes() {
            1 => String::new(),
            several => format!(" --processes {several}, or by as many of a launcher"),
        };
        say!("stopped; go on with: tallow train --resume {run}{processes}")
    } else {
        say!("curves.png, confusion.png, metrics.csv and checkpoints are in {run}")?;
        if trainer.config().diagnose {
            say!(
                "gradient_flow.png and gradient_flow.txt show how gradients flowed in the last epoch's first step"
            )?;
        }
        if trainer.config().tensorboard.enabled {
            say!("curves, histograms, pictures and the network: tensorboard --logdir {run}")?;
        }
        say!("next: tallow export {run} && tallow verify {run}/model.onnx")
    }
}

/// The folder of a run that nobody named.
fn free_run(config: &Config) -> PathBuf {
    let name = config.data_name();
    let data = Path::new(&name).file_name().map_or("data".into(), |name| name.to_string_lossy());
    free(&Path::new("runs").join(format!("{}-{data}", config.model)))
}
