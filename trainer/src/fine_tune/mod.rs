//! Fine-tuning: which parameters of a network are trained, from which epoch on, and how fast.
//!
//! [`FineTune`] is what the settings say, [`Tuning`] what that means for one network. `stages` reads a network's stages
//! off its layers' names.

mod stages;
#[cfg(test)]
mod tests;
mod tuning;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use tuning::Tuning;

/// The layer decay of fine-tuning where nothing is said (Bao et al. 2022, "BEiT", appendix: 0.65 to 0.75).
pub const LAYER_DECAY: f64 = 0.75;

/// What is trained, when, and how fast. The default trains everything alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineTune {
    /// Parameters and layers that are never trained, by name or pattern: `features.*`, `layer[1-3]`, `*.bias`. A
    /// layer's name stands for all that is in it. Batch normalisations in frozen layers use their running moments.
    pub freeze: Vec<String>,
    /// Whether every batch normalisation uses its running moments and leaves them as they are.
    pub freeze_batch_norm: bool,
    /// By what the learning rate is multiplied from each stage to the one below it (Clark et al. 2020, "ELECTRA",
    /// section 3.2; Bao et al. 2022, "BEiT"): the head has the whole rate, the stem the least. Absent, 1, but
    /// [`LAYER_DECAY`] where a run starts from weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_decay: Option<f64>,
    /// Epochs in which the head alone is trained, and the rest is as if frozen, moments included (Kumar et al. 2022,
    /// "Fine-tuning can distort pretrained features", section 4).
    pub head_epochs: u64,
    /// Epochs after which one more stage is trained, from the top down (Howard & Ruder 2018, "ULMFiT", section 3.3); 0
    /// for all at once.
    pub unfreeze_every: u64,
    /// Factors on the learning rate of the parameters that a pattern names. Where several fit, they multiply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<RateFactor>,
}

/// A factor on the learning rate of some parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateFactor {
    /// Their names or their layers', as in [`FineTune::freeze`].
    pub pattern: String,
    /// What the rate is multiplied by, besides the layer decay.
    pub multiplier: f64,
}

impl FineTune {
    /// Refuses numbers that give no usable rate.
    ///
    /// # Errors
    /// [`Error::Setting`] with the number's name.
    pub fn validate(&self) -> Result<()> {
        let setting = |name, value: f64, remedy| Error::Setting { name, value: value.to_string(), remedy };
        if let Some(decay) = self.layer_decay.filter(|decay| !(*decay > 0.0 && *decay <= 1.0)) {
            return Err(setting("layer_decay", decay, "choose a number above 0, at most 1, such as 0.75"));
        }
        let usable = |factor: &&RateFactor| factor.multiplier > 0.0 && factor.multiplier.is_finite();
        if let Some(factor) = self.rates.iter().find(|factor| !usable(factor)) {
            let remedy = "choose a number above 0; [fine_tune] freeze holds layers still";
            return Err(setting("fine_tune.rates.multiplier", factor.multiplier, remedy));
        }
        Ok(())
    }
}
