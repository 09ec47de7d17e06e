//! Everything that decides a run, as the TOML file and the flags say it and as the run directory keeps it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tallow_input::{Interpolation, Preprocess};

use crate::augment::{Augment, Mix};
use crate::compute::ComputeConfig;
use crate::data::{RecordOptions, SplitOptions, title};
use crate::distributed::DistributedConfig;
use crate::error::{Error, Result};
use crate::fine_tune::FineTune;
use crate::network::NetworkConfig;
use crate::optim::{Decay, OptimizerKind};
use crate::recipe::{self, Start};
use crate::schedule::Schedule;
use crate::tensorboard::TensorboardConfig;

/// The settings of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A network of the zoo, such as `resnet18`.
    pub model: String,
    /// `digits`, a folder laid out as `train/<class>/<image>`, or TFRecord shards: their folder or a pattern.
    pub data: String,
    /// Passes over the training set.
    pub epochs: u64,
    /// Images in a batch; where several processes train together, in each one's share of it.
    pub batch_size: usize,
    /// Batches in a step, whose gradient is that of the mean over all their images.
    pub accumulate: usize,
    /// Decides initial weights, order, augmentation and dropout; what is held out has a seed of its own.
    pub seed: u64,
    /// Where the weights came from that the run starts with instead of random ones; to go on, it does not need them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Probability taken from the true class and spread over all, in [0, 1).
    pub label_smoothing: f64,
    /// The largest allowed norm of all gradients together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Dropout before the last layer, instead of the network's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Stochastic depth at the deepest block, instead of the network's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stochastic_depth: Option<f64>,
    /// Whether a broken image ends the run instead of being left out.
    pub strict: bool,
    /// Threads that prepare images; 0 for one a core.
    pub workers: usize,
    /// Minutes between checkpoints within an epoch; one is written after every epoch in any case.
    pub checkpoint_minutes: f64,
    /// Whether to report how gradients flow, at the first step of each epoch.
    pub diagnose: bool,
    /// Size of the images and how they get to it.
    pub input: InputConfig,
    /// What of the network is trained, when, and how fast.
    pub fine_tune: FineTune,
    /// The optimiser; absent, that of [`recipe`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerKind>,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// The average of the weights that is validated and exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<Decay>,
    /// What is done to training images; by default what suits the data set and the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// How the images of a batch are mixed with each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mix: Option<Mix>,
    /// Where and how the run computes.
    pub compute: ComputeConfig,
    /// How several processes train together.
    pub distributed: DistributedConfig,
    /// Event files.
    pub tensorboard: TensorboardConfig,
    /// How TFRecord shards are read; a run that reads some records it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<RecordOptions>,
    /// What is different from the zoo's network.
    #[serde(skip_serializing_if = "NetworkConfig::is_default")]
    pub network: NetworkConfig,
    /// What is held out where the data set has no validation part.
    pub split: SplitOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: "resnet18".into(),
            data: "digits".into(),
            epochs: 30,
            batch_size: 64,
            accumulate: 1,
            seed: 0,
            weights: None,
            label_smoothing: 0.1,
            clip_norm: None,
            dropout: None,
            stochastic_depth: None,
            strict: false,
            workers: 0,
            checkpoint_minutes: 10.0,
            diagnose: false,
            input: InputConfig::default(),
            fine_tune: FineTune::default(),
            optimizer: None,
            schedule: Schedule::default(),
            ema: None,
            augment: None,
            mix: None,
            network: NetworkConfig::default(),
            split: SplitOptions::default(),
            compute: ComputeConfig::default(),
            distributed: DistributedConfig::default(),
            tensorboard: TensorboardConfig::default(),
            records: None,
        }
    }
}

/// Size of the images and how they get to it. What is absent is the network's native size and ImageNet's habits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputConfig {
    /// Columns and rows, where they are equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Columns, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Rows, pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Mean of R, G, B on a scale of 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation of R, G, B on a scale of 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f32; 3]>,
    /// The resize filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<Interpolation>,
    /// The part of the resized short side that validation's centre crop keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop_fraction: Option<f64>,
}

impl InputConfig {
    /// How images get to this network. Where nothing else is said: as its published weights want them, but without
    /// the crop margin for small images, which are framed tightly.
    pub fn resolve(&self, network: &tallow_models::Architecture) -> Preprocess {
        let side = self.size.unwrap_or(network.native as u32);
        let (width, height) = (self.width.unwrap_or(side), self.height.unwrap_or(side));
        let usual = network.preprocess(width, height);
        let crop_fraction = if width.min(height) <= SMALL { 1.0 } else { usual.crop_fraction };
        Preprocess {
            mean: self.mean.unwrap_or(usual.mean),
            std: self.std.unwrap_or(usual.std),
            interpolation: self.interpolation.unwrap_or(usual.interpolation),
            crop_fraction: self.crop_fraction.unwrap_or(crop_fraction),
            ..usual
        }
    }
}

impl InputConfig {
    /// What is not said here is as images were prepared for the weights that a run starts from.
    pub fn or(self, described: Preprocess) -> Self {
        let described = Self::from(described);
        let [size, width, height] = match (self.size, self.width, self.height) {
            (None, None, None) => [described.size, described.width, described.height],
            said => said.into(),
        };
        Self {
            size,
            width,
            height,
            mean: self.mean.or(described.mean),
            std: self.std.or(described.std),
            interpolation: self.interpolation.or(described.interpolation),
            crop_fraction: self.crop_fraction.or(described.crop_fraction),
        }
    }
}

impl InputConfig {
    /// With images of so many columns and rows.
    pub fn sized(self, width: u32, height: u32) -> Self {
        let [size, width, height] =
            if width == height { [Some(width), None, None] } else { [None, Some(width), Some(height)] };
        Self { size, width, height, ..self }
    }
}

impl From<Preprocess> for InputConfig {
    fn from(preprocess: Preprocess) -> Self {
        let Preprocess { width, height, mean, std, interpolation, crop_fraction, .. } = preprocess;
        let said = Self {
            mean: Some(mean),
            std: Some(std),
            interpolation: Some(interpolation),
            crop_fraction: Some(crop_fraction),
            ..Self::default()
        };
        said.sized(width, height)
    }
}

/// Images up to this size are augmented as CIFAR's are, larger ones as ImageNet's.
const SMALL: u32 = 64;

/// More threads than this only wait for each other, and a system may not give them.
const MOST_WORKERS: usize = 512;

/// A parser's message on one line, with the line of the file.
fn located(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// Where it cannot be read, or a key is unknown or of the wrong type; the message says in which line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        toml::from_str(&text)
            .map_err(|e| Error::Config { path: path.to_owned(), problem: located(&e, &text) })
    }

    /// Reads the file that a run directory keeps, all of it: settings that a crash or a slip cut off would become
    /// defaults without a word.
    pub(crate) fn read_kept(path: &Path) -> Result<Self> {
        let config = Self::read(path)?;
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let written: toml::Table = text.parse().unwrap_or_default();
        // Every run has these; [split] is written last, and its last line ends.
        let is_whole = ["optimizer", "schedule"].iter().all(|section| written.contains_key(*section))
            && ["fraction", "seed"].iter().all(|key| written.get("split").and_then(|s| s.get(key)).is_some())
            && text.ends_with('\n');
        if is_whole {
            return Ok(config);
        }
        let problem = "is cut short (a run's settings end with [split], its fraction and its seed): restore it, or \
                       start a new run with --weights";
        Err(Error::Config { path: path.to_owned(), problem: problem.into() })
    }

    /// The settings as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("every setting is plain data that TOML can hold")
    }

    /// Refuses impossible numbers before any work starts.
    ///
    /// # Errors
    /// [`Error::Setting`] with the number's name.
    pub fn validate(&self) -> Result<()> {
        let setting = |name, value: &dyn ToString, remedy| {
            Err(Error::Setting { name, value: value.to_string(), remedy })
        };
        if self.epochs == 0 {
            return setting("epochs", &0, "choose at least 1");
        }
        if self.accumulate == 0 {
            return setting("accumulate", &0, "choose at least 1");
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return setting(
                "label_smoothing",
                &self.label_smoothing,
                "choose a number in [0, 1), such as 0.1",
            );
        }
        if self.clip_norm.is_some_and(|norm| norm <= 0.0 || norm.is_nan()) {
            return setting(
                "clip_norm",
                &self.clip_norm.unwrap_or_default(),
                "choose a number above 0, or leave it out",
            );
        }
        if self.checkpoint_minutes <= 0.0 || self.checkpoint_minutes.is_nan() {
            return setting("checkpoint_minutes", &self.checkpoint_minutes, "choose a number above 0");
        }
        if self.workers > MOST_WORKERS {
            return setting("workers", &self.workers, "choose at most 512, or 0 for one a core");
        }
        if let Some(ema) = &self.ema {
            ema.validate()?;
        }
        self.augment.as_ref().map_or(Ok(()), Augment::validate)?;
        self.mix.as_ref().map_or(Ok(()), Mix::validate)?;
        if let Some(records) = &self.records {
            records.validate()?;
        }
        self.network.validate()?;
        let fraction = self.split.fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::Fraction { fraction });
        }
        self.distributed.validate()?;
        self.tensorboard.validate()?;
        self.fine_tune.validate()?;
        self.optimizer()?.validate()?;
        self.schedule.validate(self.learning_rate()?)
    }

    /// Whether the run starts from weights.
    fn start(&self) -> Start {
        if self.weights.is_some() { Start::Weights } else { Start::Scratch }
    }

    /// The optimiser: what was asked for, or that of the [`recipe`] for the network.
    ///
    /// # Errors
    /// Where there is no such network.
    pub fn optimizer(&self) -> Result<OptimizerKind> {
        if let Some(optimizer) = self.optimizer {
            return Ok(optimizer);
        }
        Ok(recipe::optimizer(tallow_models::find(&self.model)?.family(), self.start()))
    }

    /// The largest learning rate: what was asked for, or that of the [`recipe`] for the optimiser.
    ///
    /// # Errors
    /// Where there is no such network.
    pub fn learning_rate(&self) -> Result<f64> {
        if let Some(rate) = self.schedule.learning_rate {
            return Ok(rate);
        }
        let images = self.global_batch_size() * self.accumulate;
        Ok(recipe::learning_rate(&self.optimizer()?, self.start(), images))
    }

    /// Images in a batch of all processes together.
    pub fn global_batch_size(&self) -> usize {
        self.batch_size.saturating_mul(self.distributed.world_size.unwrap_or(1))
    }

    /// What people call the data set.
    pub fn data_name(&self) -> String {
        title(&self.data)
    }

    /// The same settings with every default that depends on others filled in.
    ///
    /// # Errors
    /// Where there is no such network.
    pub fn resolved(self) -> Result<Self> {
        let preprocess = self.preprocess()?;
        let optimizer = Some(self.optimizer()?);
        let schedule = Schedule { learning_rate: Some(self.learning_rate()?), ..self.schedule };
        let augment = Some(self.augmentation(&preprocess));
        let layer_decay = self.fine_tune.layer_decay.unwrap_or_else(|| recipe::layer_decay(self.start()));
        let fine_tune = FineTune { layer_decay: Some(layer_decay), ..self.fine_tune };
        Ok(Self { input: InputConfig::from(preprocess), fine_tune, optimizer, schedule, augment, ..self })
    }

    /// How images get to the network.
    ///
    /// # Errors
    /// Where there is no such network.
    pub fn preprocess(&self) -> Result<Preprocess> {
        Ok(self.input.resolve(tallow_models::find(&self.model)?))
    }

    /// The augmentation: what was asked for, or what suits the data: no mirror images of digits, random parts of
    /// large photos, shifts of small ones.
    pub fn augmentation(&self, preprocess: &Preprocess) -> Augment {
        match self.augment {
            Some(augment) => augment,
            None if self.data == "digits" => Augment {
                pad_and_crop: Some(preprocess.width.min(preprocess.height) / 8),
                ..Augment::default()
            },
            None if preprocess.width.min(preprocess.height) <= SMALL => {
                // CIFAR's 4 pixels are an eighth of its side; smaller images would lose too much to them.
                let pad = preprocess.width.min(preprocess.height) / 8;
                Augment { pad_and_crop: Some(pad.clamp(1, 4)), ..Augment::cifar() }
            }
            None => Augment::imagenet(),
        }
    }
}
