//! Puts a run together out of its parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use tallow_builder::{Graph, Network, Weights};
use tallow_distributed::{Communicator, Place};
use tallow_input::Preprocess;

use super::Trainer;
use crate::augment::{EvalTransform, TrainTransform};
use crate::checkpoint::Position;
use crate::compute::{Compute, OnDevice};
use crate::config::Config;
use crate::data::{Fingerprint, Loader, LoaderOptions, RecordOptions, Splits, lasting};
use crate::distributed::{DataParallel, DistributedConfig, blame};
use crate::error::{Error, Result};
use crate::fine_tune::Tuning;
use crate::metrics::csv::Log;
use crate::network::build;
use crate::optim::{Ema, Optimizer};
use crate::run_dir::RunDir;
use crate::tensorboard::{Recorder, Setting};

/// A run that is about to begin: its data is open and its network built. Nothing has been written, and its weights are
/// for the caller to bring.
pub struct NewRun {
    config: Config,
    preprocess: Preprocess,
    data: Splits,
    graph: Graph,
    tuning: Tuning,
    loaders: [Loader; 2],
    compute: Compute,
    parallel: Option<DataParallel>,
}

impl NewRun {
    /// Opens the data and builds the network that `config` asks for.
    ///
    /// # Errors
    /// For settings that make no sense, and data that cannot be used.
    pub fn prepare(config: Config) -> Result<Self> {
        Self::prepare_at(config, None)
    }

    /// As [`Self::prepare`], for a process that trains together with others, which it meets here. A batch has as many
    /// images from each of them as the settings say.
    ///
    /// # Errors
    /// As [`Self::prepare`], and where the others do not come or have other settings or data.
    pub fn prepare_at(config: Config, place: Option<&Place>) -> Result<Self> {
        let together = place.map(|place| place.world_size).filter(|world_size| *world_size > 1);
        let world_size = config.distributed.world_size.or(together);
        let distributed = DistributedConfig { world_size, ..config.distributed };
        let config = Config { distributed, ..config };
        config.validate()?;
        let data = Splits::open(&config.data, config.split, config.records.as_ref(), None)?;
        // From here on the run is one that can be gone on with from any folder.
        let absolute = |file: PathBuf| std::fs::canonicalize(&file).unwrap_or(file);
        let records = data.label_offset.map(|offset| {
            let asked = config.records.unwrap_or_default();
            RecordOptions { label_offset: Some(offset), labels: asked.labels.map(absolute), ..asked }
        });
        let weights = config.weights.as_deref().map(lasting);
        let config = Config { data: lasting(&config.data), weights, records, ..config }.resolved()?;
        let preprocess = config.preprocess()?;
        let graph = build(&config, &preprocess, data.train.classes().len())?;
        let tuning = Tuning::new(&config.fine_tune, &graph)?;
        let compute = Compute::open(&config.compute, place.map_or(0, |place| place.local_rank))?;
        let parallel = DataParallel::connect(place, &config, &data, compute.device())?;
        let loaders = loaders(&config, &preprocess, &data, &compute, parallel.as_ref())?;
        Ok(Self { config, preprocess, data, graph, tuning, loaders, compute, parallel })
    }

    /// The network, which the weights must be for.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The data's classes, in the order of the network's outputs.
    pub fn classes(&self) -> &[String] {
        self.data.train.classes()
    }

    /// Whether this process is the one that writes the run's directory.
    pub fn leads(&self) -> bool {
        self.parallel.as_ref().is_none_or(DataParallel::leads)
    }

    /// Makes the run's directory `path`, and begins with these weights.
    ///
    /// # Errors
    /// For a folder that holds something already, or cannot be written.
    pub fn begin(mut self, path: &Path, weights: Weights) -> Result<Trainer> {
        let parallel = self.parallel.take();
        let control = parallel.as_ref().map(DataParallel::control);
        let leads = parallel.as_ref().is_none_or(DataParallel::leads);
        let begun = self.begin_files(path, weights, leads).and_then(|trainer| trainer.joined(parallel));
        begun.inspect_err(|error| abort(control, error))
    }

    fn begin_files(self, path: &Path, weights: Weights, leads: bool) -> Result<Trainer> {
        let Self { config, preprocess, data, graph, tuning, loaders, compute, .. } = self;
        let weights = weights.to_device(compute.device())?;
        let labels = data.train.classes();
        let config = if leads { config } else { unreported(config) };
        let (run, log) = if leads {
            let run = RunDir::create(path, &config, &graph, labels, &Fingerprint::of(&data))?;
            let log = Log::create(&run.file("metrics.csv"))?;
            (run, log)
        } else {
            let run = RunDir::kept_elsewhere(path);
            let log = Log::kept_elsewhere(&run.file("metrics.csv"));
            (run, log)
        };
        let setting = Setting { run: &run, config: &config, graph: &graph, preprocess, labels };
        let recorder = if leads { Recorder::create(&setting)? } else { Recorder::kept_elsewhere(&setting) };
        let position = Position::start(labels.len());
        let ema = config.ema.map(|decay| Ema::new(decay, &graph, weights.clone()));
        let optimizer = Optimizer::new(config.optimizer()?, &graph, &weights)?;
        let network = Network::new(graph, weights);
        let parts = (network, ema, tuning, optimizer, compute);
        Trainer::assemble(run, config, parts, loaders, position, log, recorder)
    }
}

impl Trainer {
    /// Begins a new run in `path` with random weights; [`NewRun`] takes others.
    ///
    /// # Errors
    /// As [`NewRun::prepare`] and [`NewRun::begin`].
    pub fn create(path: &Path, config: Config) -> Result<Self> {
        let seed = config.seed;
        let new = NewRun::prepare(config)?;
        let weights = Weights::init(new.graph(), seed, &Device::Cpu)?;
        new.begin(path, weights)
    }

    #[allow(clippy::too_many_arguments)] // The one place where the parts come together.
    pub(super) fn assemble(
        run: RunDir,
        config: Config,
        (network, ema, tuning, optimizer, compute): (Network, Option<Ema>, Tuning, Optimizer, Compute),
        [train, validation]: [Loader; 2],
        position: Position,
        log: Log,
        recorder: Recorder,
    ) -> Result<Self> {
        let on_gpu = compute.is_gpu();
        let on_device = on_gpu.then(|| OnDevice::new(compute.precision(), compute.device())).transpose()?;
        let now = Instant::now();
        Ok(Self {
            run,
            config,
            compute,
            on_device,
            network,
            ema,
            tuning,
            optimizer,
            parallel: None,
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
        })
    }
}

/// Ends the other processes, where there are any, with the error that ends this one.
pub(super) fn abort(control: Option<Arc<dyn Communicator>>, error: &Error) {
    if let Some(control) = control {
        let (origin, reason) = blame(error, control.rank());
        control.abort(origin, &reason);
    }
}

/// The settings of a process that reports nothing, because another one does.
pub(super) fn unreported(mut config: Config) -> Config {
    config.tensorboard.enabled = false;
    config.diagnose = false;
    config
}

/// The loaders of training and validation, of a share of each batch where there are several processes.
pub(super) fn loaders(
    config: &Config,
    preprocess: &Preprocess,
    data: &Splits,
    compute: &Compute,
    parallel: Option<&DataParallel>,
) -> Result<[Loader; 2]> {
    let batch_size = config.global_batch_size();
    let share = parallel.map(DataParallel::share).unwrap_or_default();
    let validation = LoaderOptions {
        batch_size,
        workers: parallel.map_or(config.workers, |parallel| parallel.workers(config.workers)),
        strict: config.strict,
        seed: config.seed,
        ..LoaderOptions::default()
    };
    // A last batch of one or two images would give batch normalisation nothing to average over.
    let augment = config.augmentation(preprocess);
    let repeats = augment.repeated_augment.unwrap_or(1) as usize;
    let drop_last = data.train.len() * repeats >= batch_size;
    let train = LoaderOptions { shuffle: true, drop_last, repeats, ..validation };
    let augmented = TrainTransform::new(augment, *preprocess)?;
    Ok([
        Loader::new(data.train.clone(), Arc::new(augmented), train)?
            .mixing(config.mix)
            .sharing(share)
            .as_bytes(compute.is_gpu()),
        Loader::new(data.validation.clone(), Arc::new(EvalTransform::new(*preprocess)?), validation)?
            .sharing(share)
            .as_bytes(compute.is_gpu()),
    ])
}
