//! The flags that stand for settings, and how they override the settings file.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use tallow_cuda::DeviceSpec;
use tallow_trainer::data::{Fold, has_validation};
use tallow_trainer::optim::{Decay, OptimizerKind};
use tallow_trainer::recipe;
use tallow_trainer::schedule::RateDecay;
use tallow_trainer::{Changes, Config};

use super::augmentation::Augmentation;
use super::fine_tune;
use super::start::Start;
use crate::device;
use crate::factors::Factors;
use crate::failure::usage;
use crate::image_size::ImageSize;
use crate::records;

const OPTIMISATION: &str = "Optimisation";
const COMPUTE: &str = "Device";
const DISTRIBUTED: &str = "Several processes";
const REPORTS: &str = "Reports";

/// Everything that may also stand in the settings file.
#[derive(Default, PartialEq, clap::Args)]
pub struct Settings {
    /// A TOML file; flags override it, and --print-config shows what may stand in it
    #[arg(long, value_name = "TOML")]
    config: Option<PathBuf>,
    /// A folder laid out as train/<class>/<image> with validation/<class>/<image> or with validation/<image> and
    /// synset_labels.txt, TFRecord shards (their folder, or a pattern such as 'dir/train-*'), or `digits`
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// A network of the zoo; `tallow summary` lists them [default: what the weights say, else resnet18]
    #[arg(long, value_name = "NETWORK")]
    model: Option<String>,
    /// Weights to start from, whose head is drawn anew where it has other classes: a run, a SavedModel, hf:OWNER/NAME of
    /// the Hugging Face hub, a folder with the config.json and model.safetensors of one, or a file of safetensors,
    /// PyTorch's or TensorFlow's, with --model
    #[arg(long, value_name = "WEIGHTS")]
    weights: Option<String>,
    /// Images in a batch [default: 64]
    #[arg(short, long, value_name = "IMAGES")]
    batch_size: Option<usize>,
    /// Batches in a step, whose gradient is that of the mean over all their images [default: 1]
    #[arg(long, value_name = "BATCHES", visible_alias = "grad-accum")]
    accumulate: Option<usize>,
    /// Side of the square images, pixels, or HEIGHTxWIDTH [default: what the weights say, else the network's own]
    #[arg(long, value_name = "PIXELS", visible_aliases = ["image-size", "resolution"])]
    size: Option<ImageSize>,
    #[command(flatten)]
    factors: Factors,
    /// The learning rate after the warm-up [default: adamw 0.001; sgd 0.05, rmsprop 0.004 for 64
    /// images, and less with --weights]
    #[arg(help_heading = OPTIMISATION, long, value_name = "RATE", visible_alias = "lr")]
    learning_rate: Option<f64>,
    /// Epochs over which the learning rate grows [default: 1]
    #[arg(help_heading = OPTIMISATION, long, value_name = "EPOCHS")]
    warmup: Option<f64>,
    /// How the learning rate falls [default: cosine]
    #[arg(help_heading = OPTIMISATION, long, value_enum)]
    schedule: Option<Schedule>,
    /// The optimiser, with its usual constants [default: adamw with --weights, else rmsprop for EfficientNets and sgd for
    /// the others]
    #[arg(help_heading = OPTIMISATION, long, value_enum)]
    optimizer: Option<Optimizer>,
    /// Share of the last step that is kept, of sgd and rmsprop [default: 0.9]
    #[arg(help_heading = OPTIMISATION, long, value_name = "SHARE")]
    momentum: Option<f64>,
    /// L2 penalty of the weights (decoupled for adamw) [default: sgd 0.0005, adamw 0.01, rmsprop 0.00001]
    #[arg(help_heading = OPTIMISATION, long, value_name = "PENALTY")]
    weight_decay: Option<f64>,
    /// Probability taken from the true class and spread over all [default: 0.1]
    #[arg(help_heading = OPTIMISATION, long, value_name = "SHARE")]
    label_smoothing: Option<f64>,
    /// The largest allowed norm of all gradients together
    #[arg(help_heading = OPTIMISATION, long, value_name = "NORM")]
    clip_norm: Option<f64>,
    /// Keep, validate and export an average of the weights with this decay, such as 0.999
    #[arg(help_heading = OPTIMISATION, long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Probability to drop a feature before the last layer [default: the network's own]
    #[arg(help_heading = OPTIMISATION, long, value_name = "P")]
    dropout: Option<f64>,
    /// Probability to drop the deepest residual branch [default: the network's own]
    #[arg(help_heading = OPTIMISATION, long, value_name = "P")]
    stochastic_depth: Option<f64>,
    #[command(flatten)]
    augmentation: Augmentation,
    /// Write no event files for TensorBoard
    #[arg(help_heading = REPORTS, long)]
    no_tensorboard: bool,
    /// Epochs between two histograms of weights, gradients and activations, 0 for none [default: 1]
    #[arg(help_heading = REPORTS, long, value_name = "EVERY_N_EPOCHS", conflicts_with = "no_tensorboard")]
    histograms: Option<u64>,
    /// Report how gradients flow at each epoch's first step: table, picture and a verdict
    #[arg(help_heading = REPORTS, long)]
    diagnose: bool,
    /// Share of each class to hold out where the data has no validation folder [default: 0.2]
    #[arg(long, value_name = "SHARE")]
    validation_share: Option<f64>,
    /// Hold out the K-th of N equal parts instead, stratified, for cross-validation: K/N, such as 1/5
    #[arg(long, value_name = "K/N", conflicts_with = "validation_share")]
    fold: Option<Fold>,
    /// Decides everything random but what is held out [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// Decides what is held out [default: 0]: trainings that differ in --seed alone are judged on the same images
    #[arg(long, value_name = "SEED")]
    split_seed: Option<u64>,
    /// Threads that prepare images [default: one for each core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Make a broken image an error instead of leaving it out
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    device: device::Args,
    /// Compute most activations once more on the way back instead of keeping them: less memory, a third more time
    #[arg(help_heading = COMPUTE, long)]
    checkpoint_activations: bool,
    /// Let batch normalisation use the moments of all processes' images instead of each process's own
    #[arg(help_heading = DISTRIBUTED, long)]
    sync_bn: bool,
    /// Megabytes of gradients that are sent together while backward goes on [default: 25]
    #[arg(help_heading = DISTRIBUTED, long, value_name = "MB")]
    bucket_mb: Option<f64>,
    #[command(flatten)]
    fine_tune: fine_tune::Args,
    #[command(flatten)]
    records: records::Args,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Optimizer {
    Sgd,
    Rmsprop,
    Adamw,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Schedule {
    Constant,
    Step,
    Cosine,
    Exponential,
}

impl Settings {
    /// What a run that is gone on with may change besides its epochs; `None` where more was said.
    pub fn changes(&self) -> Result<Option<Changes>> {
        let Self { device, checkpoint_activations, batch_size, accumulate, .. } = *self;
        let alone = Self {
            data: self.data.clone(),
            device,
            checkpoint_activations,
            batch_size,
            accumulate,
            ..Self::default()
        };
        if *self != alone {
            return Ok(None);
        }
        let (epochs, data) = (None, self.data()?);
        let device::Args { device, precision } = device;
        Ok(Some(Changes { epochs, data, device, precision, checkpoint_activations, batch_size, accumulate }))
    }

    /// The GPU that a flag names.
    pub fn gpu(&self) -> Option<usize> {
        match self.device.device {
            Some(DeviceSpec::Cuda(index)) => Some(index),
            _ => None,
        }
    }

    fn data(&self) -> Result<Option<String>> {
        let text = |data: &PathBuf| {
            data.to_str().map(str::to_owned).ok_or_else(|| {
                usage(format!("--data {}: rename the folder, its name is not valid UTF-8", data.display()))
            })
        };
        self.data.as_ref().map(text).transpose()
    }

    /// Whether anything says what to train on.
    pub fn name_data(&self) -> bool {
        self.config.is_some() || self.data.is_some()
    }

    /// Whether a flag names weights to start from.
    pub fn name_weights(&self) -> bool {
        self.weights.is_some()
    }

    /// Whether there is a settings file, which says everything.
    pub fn have_file(&self) -> bool {
        self.config.is_some()
    }

    /// Refuses to hold out a part of data that has its own validation part.
    pub fn refuse_idle_split(&self, config: &Config) -> Result<()> {
        let share = self.validation_share.filter(|share| *share > 0.0 && *share < 1.0);
        let share = share.map(|share| format!("--validation-share {share}"));
        let idle = config.split.fold.map(|fold| format!("--fold {fold}")).or(share);
        if let Some(idle) = idle
            && has_validation(&config.data)?
        {
            return Err(usage(format!(
                "{idle} has no effect, {} has validation images of its own: leave it out",
                config.data
            )));
        }
        Ok(())
    }

    /// The settings file, or the defaults with the network `usual`.
    fn file(&self, usual: &str) -> Result<Config> {
        let Some(path) = &self.config else { return Ok(Config { model: usual.into(), ..Config::default() }) };
        Config::read(path).map_err(|error| match error {
            tallow_trainer::Error::Config { .. } => {
                usage(format!("{error}; `tallow train --print-config` shows what may stand there"))
            }
            other => other.into(),
        })
    }

    /// The network that is said, by a flag or in the settings file.
    fn said_model(&self, config: &Config) -> Result<Option<String>> {
        let Some(path) = self.config.as_ref().filter(|_| self.model.is_none()) else {
            return Ok(self.model.clone());
        };
        let written: toml::Table = std::fs::read_to_string(path)?.parse()?;
        Ok(written.contains_key("model").then(|| config.model.clone()))
    }

    /// The settings file, or the defaults, with the flags on top; and the weights to start from, which say what neither
    /// of the two does: the network, and how its images are prepared.
    pub fn resolve(&self, epochs: Option<u64>) -> Result<(Config, Option<Start>)> {
        self.resolve_for(epochs, &Config::default().model)
    }

    /// As [`Self::resolve`]; `usual` is the network where nothing names one.
    pub fn resolve_for(&self, epochs: Option<u64>, usual: &str) -> Result<(Config, Option<Start>)> {
        let mut config = self.file(usual)?;
        let model = self.said_model(&config)?;
        config.weights = self.weights.clone().or(config.weights);
        let start = config.weights.as_deref().map(|source| Start::find(source, model.as_deref()));
        let start = start.transpose()?;
        take(&mut config.model, &start.as_ref().map(|start| start.network.clone()).or(model));
        take(&mut config.data, &self.data()?);
        take(&mut config.epochs, &epochs);
        take(&mut config.batch_size, &self.batch_size);
        take(&mut config.accumulate, &self.accumulate);
        take(&mut config.seed, &self.seed);
        take(&mut config.split.seed, &self.split_seed);
        take(&mut config.workers, &self.workers);
        take(&mut config.label_smoothing, &self.label_smoothing);
        take(&mut config.schedule.warmup_epochs, &self.warmup);
        take(&mut config.split.fraction, &self.validation_share);
        take(&mut config.network.widen, &self.factors.width);
        take(&mut config.network.deepen, &self.factors.depth);
        config.split.fold = self.fold.or(config.split.fold);
        self.fine_tune.apply(&mut config.fine_tune);
        config.clip_norm = self.clip_norm.or(config.clip_norm);
        config.dropout = self.dropout.or(config.dropout);
        config.stochastic_depth = self.stochastic_depth.or(config.stochastic_depth);
        config.ema = self.ema.map(|decay| Decay { decay, warm_up: true }).or(config.ema);
        self.device.apply(&mut config.compute);
        config.compute.checkpoint_activations |= self.checkpoint_activations;
        config.distributed.sync_batch_norm |= self.sync_bn;
        take(&mut config.distributed.bucket_mb, &self.bucket_mb);
        config.strict |= self.strict;
        config.diagnose |= self.diagnose;
        config.tensorboard.enabled &= !self.no_tensorboard;
        take(&mut config.tensorboard.histogram_epochs, &self.histograms);
        config.records = self.records.apply(config.records.take());
        if let Some(ImageSize { height, width }) = self.size {
            config.input = config.input.sized(width, height);
        }
        if let Some(described) = start.as_ref().and_then(|start| start.preprocess) {
            config.input = config.input.or(described);
        }
        self.set_schedule(&mut config);
        self.set_optimizer(&mut config)?;
        config.schedule.learning_rate = self.learning_rate.or(config.schedule.learning_rate);
        self.augmentation.apply(&mut config)?;
        Ok((config, start))
    }

    fn set_schedule(&self, config: &mut Config) {
        let Some(schedule) = self.schedule else { return };
        config.schedule.decay = match schedule {
            Schedule::Constant => RateDecay::Constant,
            Schedule::Cosine => RateDecay::Cosine { floor: 0.0 },
            // He et al. 2015 divide by 10 after a third and two thirds of their 90 epochs.
            Schedule::Step => RateDecay::Step { every: config.epochs as f64 / 3.0, factor: 0.1 },
            // Tan & Le 2019, section 5.2.
            Schedule::Exponential => RateDecay::Exponential { every: 2.4, factor: 0.97 },
        };
    }

    fn set_optimizer(&self, config: &mut Config) -> Result<()> {
        let mut optimizer = match self.optimizer {
            Some(Optimizer::Sgd) => recipe::SGD,
            Some(Optimizer::Rmsprop) => recipe::RMSPROP,
            Some(Optimizer::Adamw) => recipe::ADAMW,
            None => config.optimizer()?,
        };
        if let Some(share) = self.momentum {
            match &mut optimizer {
                OptimizerKind::Sgd { momentum, nesterov, .. } => {
                    *momentum = share;
                    *nesterov &= share > 0.0;
                }
                OptimizerKind::RmsProp { momentum, .. } => *momentum = share,
                OptimizerKind::AdamW { .. } => {
                    return Err(usage(
                        "--momentum is for sgd and rmsprop; adamw has beta1 in the settings file",
                    ));
                }
            }
        }
        if let Some(decay) = self.weight_decay {
            match &mut optimizer {
                OptimizerKind::Sgd { weight_decay, .. }
                | OptimizerKind::RmsProp { weight_decay, .. }
                | OptimizerKind::AdamW { weight_decay, .. } => *weight_decay = decay,
            }
        }
        config.optimizer = Some(optimizer);
        Ok(())
    }
}

pub fn take<T: Clone>(target: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        target.clone_from(value);
    }
}
