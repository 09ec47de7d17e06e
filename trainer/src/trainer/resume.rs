//! Going on with an earlier run, to the bit as if it had never stopped: on the same data, or not at all.

use std::path::{Path, PathBuf};

use tallow_builder::{Graph, Network};
use tallow_cuda::DeviceSpec;
use tallow_distributed::Place;

use super::Trainer;
use super::prepare::{abort, loaders, unreported};
use crate::checkpoint::Checkpoint;
use crate::compute::{Compute, ComputeConfig, LOSS_SCALE, Precision};
use crate::config::Config;
use crate::data::{Fingerprint, Known, Splits, lasting};
use crate::distributed::DataParallel;
use crate::error::{Error, Result};
use crate::fine_tune::Tuning;
use crate::metrics::csv::Log;
use crate::optim::{Ema, Optimizer};
use crate::run_dir::RunDir;
use crate::tensorboard::{Recorder, Setting};

/// What may be different when a run goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Epochs in all.
    pub epochs: Option<u64>,
    /// Where the same data is now.
    pub data: Option<String>,
    /// Where it computes from now on.
    pub device: Option<DeviceSpec>,
    /// In which precision.
    pub precision: Option<Precision>,
    /// Whether most activations are computed twice from now on, if they were not before.
    pub checkpoint_activations: bool,
    /// Images in a batch of each process; a step keeps its images.
    pub batch_size: Option<usize>,
    /// Batches in a step; a step keeps its images.
    pub accumulate: Option<usize>,
}

impl From<Option<u64>> for Changes {
    fn from(epochs: Option<u64>) -> Self {
        Self { epochs, ..Self::default() }
    }
}

impl Changes {
    /// The settings of a run that goes on, given those that it had.
    fn of(self, kept: &Config) -> Result<Config> {
        let Self { epochs, data, device, precision, checkpoint_activations, batch_size, accumulate } = self;
        let step = kept.batch_size * kept.accumulate;
        // One of the two says what the other is.
        let rest = |said: usize| step.checked_div(said).unwrap_or(0);
        let batch_size = batch_size.or(accumulate.map(rest)).unwrap_or(kept.batch_size);
        let accumulate = accumulate.unwrap_or_else(|| rest(batch_size));
        if batch_size.checked_mul(accumulate) != Some(step) {
            return Err(Error::StepChanged { batch_size, accumulate, step });
        }
        let compute = ComputeConfig {
            device: device.unwrap_or(kept.compute.device),
            precision: precision.unwrap_or(kept.compute.precision),
            checkpoint_activations: kept.compute.checkpoint_activations || checkpoint_activations,
        };
        let epochs = epochs.unwrap_or(kept.epochs);
        let data = lasting(&data.unwrap_or_else(|| kept.data.clone()));
        Ok(Config { epochs, data, compute, batch_size, accumulate, ..kept.clone() })
    }
}

impl Trainer {
    /// Prepares to go on with the run in `path` from its newest checkpoint, to the bit as if it had never stopped.
    /// A number of epochs alone may stand for the `changes`.
    ///
    /// # Errors
    /// Where there is no run or checkpoint, one is damaged, another process trains there, or the data has changed.
    pub fn resume(path: &Path, changes: impl Into<Changes>) -> Result<Self> {
        Self::resume_at(path, changes, None)
    }

    /// As [`Self::resume`], for a process that trains together with others, which it meets here. Batches keep the number
    /// of images that they had, whatever the number of processes was.
    ///
    /// # Errors
    /// As [`Self::resume`], and where the others do not come, or go on with another run or state.
    pub fn resume_at(path: &Path, changes: impl Into<Changes>, place: Option<&Place>) -> Result<Self> {
        let leads = place.is_none_or(|place| place.rank == 0);
        let run = RunDir::open(path)?;
        let run = if leads { run.locked()? } else { run };
        let kept = run.config()?;
        let config = changes.into().of(&kept)?;
        config.validate()?;
        let graph = run.graph()?;
        // Where the disk was full after the first best one, there is no other.
        let went_back = !Checkpoint::exists(&run.last());
        let from = if went_back { run.best() } else { run.last() };
        if !Checkpoint::exists(&from) {
            return Err(Error::NoCheckpoint { path: path.to_owned() });
        }
        let labels = run.labels()?;
        let known = Known { classes: &labels, label_offset: None };
        let data = Splits::open(&config.data, config.split, config.records.as_ref(), Some(known)).map_err(
            |error| match error {
                Error::NoSuchFolder { path: data } => Error::DataGone { data, run: path.to_owned() },
                // What the run keeps of its labels fits no folder of images.
                Error::Setting { name: "label_offset" | "labels", .. } => {
                    let differences = "it holds no TFRecord shards, which the run is trained on".into();
                    Error::DataChanged { data: config.data.clone(), run: path.to_owned(), differences }
                }
                other => other,
            },
        )?;
        if data.train.classes() != labels {
            return Err(Error::LabelsChanged { data: config.data, run: path.to_owned() });
        }
        let fingerprint = Fingerprint::of(&data);
        let known = run.fingerprint()?;
        if let Some(differences) = known.as_ref().and_then(|known| known.differences(&fingerprint)) {
            return Err(Error::DataChanged { data: config.data, run: path.to_owned(), differences });
        }
        let compute = Compute::open(&config.compute, place.map_or(0, |place| place.local_rank))?;
        let parallel = DataParallel::connect(place, &config, &data, compute.device())?;
        let control = parallel.as_ref().map(DataParallel::control);
        let found = Found { run, kept, config, graph, data, fingerprint, known, from, compute };
        let resumed = found.restore(parallel.as_ref()).and_then(|trainer| trainer.joined(parallel));
        let trainer = resumed.inspect_err(|error| abort(control, error))?;
        Ok(Self { went_back, ..trainer })
    }
}

/// A run that was found whole, on data that is the same.
struct Found {
    run: RunDir,
    kept: Config,
    config: Config,
    graph: Graph,
    data: Splits,
    fingerprint: Fingerprint,
    known: Option<Fingerprint>,
    /// The checkpoint to go on from.
    from: PathBuf,
    compute: Compute,
}

impl Found {
    /// Reads the state, and brings the files that this process keeps to it.
    fn restore(self, parallel: Option<&DataParallel>) -> Result<Trainer> {
        let Self { run, kept, config, graph, data, fingerprint, known, from, compute } = self;
        let leads = parallel.is_none_or(DataParallel::leads);
        let config = if leads { config } else { unreported(config) };
        let preprocess = config.preprocess()?;
        let loaders = loaders(&config, &preprocess, &data, &compute, parallel)?;
        let Checkpoint { weights, ema, optimizer: mut state, mut position } =
            Checkpoint::read(&from, &graph, compute.device())?;
        if config.batch_size != kept.batch_size {
            let Config { batch_size, accumulate, .. } = kept;
            let before = Config { batch_size, accumulate, ..config.clone() };
            let [before, _] = self::loaders(&before, &preprocess, &data, &compute, parallel)?;
            position.batch = match position.batch == before.batches() {
                true => loaders[0].batches(),
                // Checkpoints are written between steps.
                false => position.batch / accumulate * config.accumulate,
            };
        }
        let scale = state.remove(LOSS_SCALE);
        if config.epochs < position.epoch {
            let remedy = "the run is already longer than that; choose more epochs, or leave them out";
            return Err(Error::Setting { name: "epochs", value: config.epochs.to_string(), remedy });
        }
        if config.ema.is_some() != ema.is_some() {
            return Err(Error::AverageChanged { run: run.path().to_owned() });
        }
        let tuning = Tuning::new(&config.fine_tune, &graph)?;
        let ema = config.ema.zip(ema).map(|(decay, ema)| Ema::new(decay, &graph, ema));
        let mut optimizer = Optimizer::new(config.optimizer()?, &graph, &weights)?;
        optimizer.restore(state, position.steps)?;
        let metrics = run.file("metrics.csv");
        let log = if leads { Log::resume(&metrics, position.epoch)? } else { Log::kept_elsewhere(&metrics) };
        let changed = config != kept;
        if leads && changed {
            run.write_config(&config)?;
        }
        if leads && known.is_none() {
            run.write_fingerprint(&fingerprint)?;
        }
        let labels = data.train.classes();
        let setting = Setting { run: &run, config: &config, graph: &graph, preprocess, labels };
        let recorder = match leads {
            true => Recorder::resume(&setting, &position, changed)?,
            false => Recorder::kept_elsewhere(&setting),
        };
        let network = Network::new(graph, weights);
        let parts = (network, ema, tuning, optimizer, compute);
        let mut trainer = Trainer::assemble(run, config, parts, loaders, position, log, recorder)?;
        if let Some(on_device) = &mut trainer.on_device {
            on_device.restore(scale);
        }
        Ok(trainer)
    }
}
