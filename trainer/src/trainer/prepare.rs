//! Puts a run together out of its parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use tallow_builder::{Network, Weights};
use tallow_input::Preprocess;

use super::Trainer;
use crate::augment::{EvalTransform, TrainTransform};
use crate::checkpoint::Position;
use crate::config::Config;
use crate::data::{Fingerprint, Loader, LoaderOptions, RecordOptions, Splits, lasting};
use crate::error::Result;
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
        let data = Splits::open(&config.data, config.split, config.records.as_ref(), None)?;
        // From here on the run is one that can be gone on with from any folder.
        let absolute = |file: PathBuf| std::fs::canonicalize(&file).unwrap_or(file);
        let weights = config.weights.map(absolute);
        let records = data.label_offset.map(|offset| {
            let asked = config.records.unwrap_or_default();
            RecordOptions { label_offset: Some(offset), labels: asked.labels.map(absolute), ..asked }
        });
        let config = Config { data: lasting(&config.data), weights, records, ..config }.resolved()?;
        let preprocess = config.preprocess()?;
        let graph = build(&config, &preprocess, data.train.classes().len())?;
        let device = Device::Cpu;
        let weights = match &config.weights {
            Some(file) => Weights::load(&graph, file, &device)?,
            None => Weights::init(&graph, config.seed, &device)?,
        };
        let [train, validation] = loaders(&config, &preprocess, &data)?;
        let run = RunDir::create(path, &config, &graph, data.train.classes(), &Fingerprint::of(&data))?;
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

    #[allow(clippy::too_many_arguments)] // The one place where the parts come together.
    pub(super) fn assemble(
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
            went_back: false,
        }
    }
}

/// The loaders of training and validation.
pub(super) fn loaders(config: &Config, preprocess: &Preprocess, data: &Splits) -> Result<[Loader; 2]> {
    let validation = LoaderOptions {
        batch_size: config.batch_size,
        workers: config.workers,
        strict: config.strict,
        seed: config.seed,
        ..LoaderOptions::default()
    };
    // A last batch of one or two images would give batch normalisation nothing to average over.
    let augment = config.augmentation(preprocess);
    let repeats = augment.repeated_augment.unwrap_or(1) as usize;
    let drop_last = data.train.len() * repeats >= config.batch_size;
    let train = LoaderOptions { shuffle: true, drop_last, repeats, ..validation };
    let augmented = TrainTransform::new(augment, *preprocess)?;
    Ok([
        Loader::new(data.train.clone(), Arc::new(augmented), train)?.mixing(config.mix),
        Loader::new(data.validation.clone(), Arc::new(EvalTransform::new(*preprocess)?), validation)?,
    ])
}
