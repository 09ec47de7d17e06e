//! What all candidates of a search share: data and settings. They differ in the network and the images' size.

use tallow_builder::Graph;
use tallow_models::Architecture;
use tallow_trainer::Config;
use tallow_trainer::config::InputConfig;
use tallow_trainer::data::{Fingerprint, Splits, lasting};
use tallow_trainer::network::{NetworkConfig, build};

use crate::error::{Error, Result};

/// The settings that every candidate is trained with, checked against the data.
#[derive(Clone, Debug)]
pub struct Basis {
    /// The settings.
    pub config: Config,
    /// What the data was when the search was opened.
    pub data: Fingerprint,
    /// Images that an accuracy is measured on.
    pub validation_images: usize,
    classes: usize,
}

/// A network to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its number, from 0.
    pub index: usize,
    /// The settings to train it with, alone or in the search.
    pub config: Config,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates for one image; FLOPs are twice as many.
    pub macs: u64,
}

impl Basis {
    /// Checks the settings and opens the data.
    ///
    /// # Errors
    /// Settings that make no sense, data that cannot be used, and weights to start from, which fit one network alone.
    pub fn open(config: Config) -> Result<Self> {
        config.validate()?;
        if config.weights.is_some() {
            return Err(Error::setting(
                "--weights",
                "fit one network, not those of a search: leave them out",
            ));
        }
        let data = Splits::open(&config.data, config.split, config.records.as_ref(), None)?;
        let config = Config { data: lasting(&config.data), ..config };
        Ok(Self {
            data: Fingerprint::of(&data),
            validation_images: data.validation.len(),
            classes: data.train.classes().len(),
            config,
        })
    }

    /// The zoo's network that the search starts from.
    pub(crate) fn architecture(&self) -> Result<&'static Architecture> {
        Ok(tallow_models::find(&self.config.model)?)
    }

    /// The side of the images, which have to be square.
    pub(crate) fn size(&self) -> Result<u32> {
        let preprocess = self.config.preprocess()?;
        if preprocess.width != preprocess.height {
            return Err(Error::setting("--size", "is needed: a search takes square images"));
        }
        Ok(preprocess.width)
    }

    /// A candidate with another network and size.
    pub(crate) fn candidate(&self, index: usize, network: NetworkConfig, size: u32) -> Result<Candidate> {
        let input = InputConfig { size: Some(size), width: None, height: None, ..self.config.input.clone() };
        let config = Config { network, input, ..self.config.clone() };
        let totals = self.graph(&config)?.totals();
        Ok(Candidate { index, config, parameters: totals.parameters, macs: totals.macs })
    }

    /// The network that is trained with these settings.
    pub(crate) fn graph(&self, config: &Config) -> Result<Graph> {
        Ok(build(config, &config.preprocess()?, self.classes)?)
    }
}
