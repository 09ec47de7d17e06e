//! Puts a run together: a new one, or one that goes on from its checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use tallow_builder::{Network, Weights};
use tallow_input::Preprocess;

use super::Trainer;
use crate::augment::{EvalTransform, TrainTransform};
use crate::checkpoint::{Checkpoint, Position};
use crate::config::Config;
use crate::data::{Loader, LoaderOptions, Splits};
use crate::error::{Error, Result};
use crate::metrics::csv::Log;
use crate::network::build;
use crate::optim::{Ema, Optimizer};
use crate::run_dir::RunDir;
use crate::tensorboard::{Recorder, Setting};

impl Trainer {
    /// Prepares a new run in `path`: opens the data, builds and initialises the network.
    ///
    /// # Errors
    /// For settings that make no sense, data that cannot be used, weights that do not fit, and a folder that holds
    /// something already.
    pub fn create(path: &Path, config: Config) -> Result<Self> {
        config.validate()?;
        let data = Splits::open(&config.data, config.split)?;
        let preprocess = config.preprocess()?;
        let graph = build(&config, &preprocess, data.train.classes().len())?;
        let device = Device::Cpu;
        let weights = match &config.weights {
            Some(file) => Weights::load(&graph, file, &device)?,
            None => Weights::init(&graph, config.seed, &device)?,
        };
        let config = Config { augment: Some(config.augmentation(&preprocess)), ..config };
        let [train, validation] = loaders(&config, &preprocess, &data)?;
        let run = RunDir::create(path, &config, &graph, data.train.classes())?;
        let log = Log::create(&run.file("metrics.csv"))?;
        let labels = data.train.classes();
        let setting = Setting { run: &run, config: &config, graph: &graph, preprocess, labels };
        let recorder = Recorder::create(&setting)?;
        let position = Position::start(labels.len());
        let ema = config.ema.map(|decay| Ema::new(decay, &graph, weights.clone()));
        let optimizer = Optimizer::new(config.optimizer, &graph, &weights)?;
        let network = Network::new(graph, weights);
        Ok(Self::assemble(run, config, network, ema, optimizer, [train, validation], position, log, recorder))
    }

    /// Prepares to go on with the run in `path` from its newest checkpoint, to the bit as if it had never stopped.
    /// `epochs` may lengthen it.
    ///
    /// # Errors
    /// Where there is no run or checkpoint, one is damaged, or the data has changed its classes.
    pub fn resume(path: &Path, epochs: Option<u64>) -> Result<Self> {
        let run = RunDir::open(path)?;
        let kept = run.config()?;
        let config = Config { epochs: epochs.unwrap_or(kept.epochs), ..kept.clone() };
        config.validate()?;
        let graph = run.graph()?;
        // Where the disk was full after the first best one, there is no other.
        let from = if Checkpoint::exists(&run.last()) { run.last() } else { run.best() };
        if !Checkpoint::exists(&from) {
            return Err(Error::NoCheckpoint { path: path.to_owned() });
        }
        let data = Splits::open(&config.data, config.split)?;
        if data.train.classes() != run.labels()? {
            return Err(Error::LabelsChanged { data: config.data, run: path.to_owned() });
        }
        let preprocess = config.preprocess()?;
        let [train, validation] = loaders(&config, &preprocess, &data)?;
        let Checkpoint { weights, ema, optimizer: state, position } =
            Checkpoint::read(&from, &graph, &Device::Cpu)?;
        if config.epochs < position.epoch {
            let remedy = "the run is already longer than that; choose more epochs, or leave them out";
            return Err(Error::Setting { name: "epochs", value: config.epochs.to_string(), remedy });
        }
        let ema = config.ema.map(|decay| Ema::new(decay, &graph, ema.unwrap_or_else(|| weights.clone())));
        let mut optimizer = Optimizer::new(config.optimizer, &graph, &weights)?;
        optimizer.restore(state, position.steps)?;
        let log = Log::resume(&run.file("metrics.csv"), position.epoch)?;
        if config != kept {
            run.write_config(&config)?;
        }
        let labels = data.train.classes();
        let setting = Setting { run: &run, config: &config, graph: &graph, preprocess, labels };
        let recorder = Recorder::resume(&setting, &position)?;
        let network = Network::new(graph, weights);
        Ok(Self::assemble(run, config, network, ema, optimizer, [train, validation], position, log, recorder))
    }

    #[allow(clippy::too_many_arguments)] // The one place where the parts come together.
    fn assemble(
        run: RunDir,
        config: Config,
        network: Network,
        ema: Option<Ema>,
        optimizer: Optimizer,
        [train, validation]: [Loader; 2],
        position: Position,
        log: Log,
        recorder: Recorder,
    ) -> Self {
        let now = Instant::now();
        Self {
            run,
            config,
            network,
            ema,
            optimizer,
            train,
            validation,
            position,
            log,
            recorder,
            diagnosed: false,
            undrawn: None,
            drawn: now,
            saved: now,
        }
    }
}

/// The loaders of training and validation.
fn loaders(config: &Config, preprocess: &Preprocess, data: &Splits) -> Result<[Loader; 2]> {
    let validation = LoaderOptions {
        batch_size: config.batch_size,
        workers: config.workers,
        strict: config.strict,
        seed: config.seed,
        ..LoaderOptions::default()
    };
    // A last batch of one or two images would give batch normalisation nothing to average over.
    let drop_last = data.train.len() >= config.batch_size;
    let train = LoaderOptions { shuffle: true, drop_last, ..validation };
    let augmented = TrainTransform::new(config.augmentation(preprocess), *preprocess)?;
    Ok([
        Loader::new(data.train.clone(), Arc::new(augmented), train)?,
        Loader::new(data.validation.clone(), Arc::new(EvalTransform::new(*preprocess)?), validation)?,
    ])
}
