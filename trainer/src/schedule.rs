//! The learning rate over time: a linear warm-up, then constant, in steps, along a cosine, or exponential.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A learning-rate schedule. Times are in epochs and may be fractions; the rate changes with every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The rate that the warm-up reaches and the decay starts from; absent, the optimiser's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Epochs over which the rate grows linearly from nothing (Goyal et al. 2017, section 2.2).
    pub warmup_epochs: f64,
    /// What happens after the warm-up.
    pub decay: RateDecay,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { learning_rate: None, warmup_epochs: 1.0, decay: RateDecay::Cosine { floor: 0.0 } }
    }
}

/// How a learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum RateDecay {
    /// Not at all.
    Constant,
    /// Multiplied by `factor` every `every` epochs, counted from the start of the run.
    Step {
        /// Epochs between steps.
        every: f64,
        /// What the rate is multiplied by.
        factor: f64,
    },
    /// Half a cosine from the rate to `floor` at the end of the run (Loshchilov & Hutter 2017, equation 5).
    Cosine {
        /// The last rate.
        #[serde(default)]
        floor: f64,
    },
    /// Multiplied by `factor` for every `every` epochs, continuously; EfficientNet's is 0.97 every 2.4.
    Exponential {
        /// Epochs for one factor.
        every: f64,
        /// What the rate is multiplied by.
        factor: f64,
    },
}

impl Schedule {
    /// Refuses what gives no usable rate, where `rate` is the largest.
    ///
    /// # Errors
    /// [`Error::Setting`] with the number's name.
    pub fn validate(&self, rate: f64) -> Result<()> {
        let check = |name, value: f64, holds: bool, remedy| {
            if holds && value.is_finite() {
                return Ok(());
            }
            Err(Error::Setting { name, value: value.to_string(), remedy })
        };
        check("learning_rate", rate, rate > 0.0, "choose a number above 0, such as 0.1")?;
        check("warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0.0, "choose 0 or more")?;
        match self.decay {
            RateDecay::Constant => Ok(()),
            RateDecay::Cosine { floor } => check(
                "floor",
                floor,
                (0.0..=rate).contains(&floor),
                "choose a rate from 0 to the learning rate",
            ),
            RateDecay::Step { every, factor } | RateDecay::Exponential { every, factor } => {
                check("every", every, every > 0.0, "choose a number of epochs above 0")?;
                check("factor", factor, factor > 0.0 && factor <= 1.0, "choose a number above 0, at most 1")
            }
        }
    }

    /// The rate of optimiser step `step` (from 0), for a run of `epochs` epochs of `steps_per_epoch` steps, where
    /// `learning_rate` is the largest.
    pub fn rate(&self, learning_rate: f64, step: u64, steps_per_epoch: usize, epochs: u64) -> f64 {
        let per_epoch = steps_per_epoch.max(1) as f64;
        let epoch = step as f64 / per_epoch;
        let warmup_steps = self.warmup_epochs * per_epoch;
        if (step as f64) < warmup_steps {
            return learning_rate * ((step + 1) as f64 / warmup_steps).min(1.0);
        }
        match self.decay {
            RateDecay::Constant => learning_rate,
            RateDecay::Step { every, factor } => learning_rate * factor.powf((epoch / every).floor()),
            RateDecay::Exponential { every, factor } => learning_rate * factor.powf(epoch / every),
            RateDecay::Cosine { floor } => {
                let room = (epochs as f64 - self.warmup_epochs).max(1.0 / per_epoch);
                let done = ((epoch - self.warmup_epochs) / room).min(1.0);
                floor + (learning_rate - floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(warmup_epochs: f64, decay: RateDecay) -> Schedule {
        Schedule { learning_rate: Some(1.0), warmup_epochs, decay }
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} should be {b}");
    }

    #[test]
    fn warm_up_is_linear_and_never_zero() {
        let s = schedule(2.0, RateDecay::Constant);
        close(s.rate(1.0, 0, 10, 5), 0.05);
        close(s.rate(1.0, 9, 10, 5), 0.5);
        close(s.rate(1.0, 19, 10, 5), 1.0);
        close(s.rate(1.0, 20, 10, 5), 1.0);
    }

    #[test]
    fn cosine_goes_from_the_rate_through_its_half_to_the_floor() {
        let s = schedule(1.0, RateDecay::Cosine { floor: 0.1 });
        close(s.rate(1.0, 10, 10, 11), 1.0);
        close(s.rate(1.0, 60, 10, 11), 0.55);
        close(s.rate(1.0, 110, 10, 11), 0.1);
        close(s.rate(1.0, 500, 10, 11), 0.1);
    }

    #[test]
    fn steps_and_exponential_multiply() {
        let s = schedule(0.0, RateDecay::Step { every: 30.0, factor: 0.1 });
        close(s.rate(1.0, 299, 10, 90), 1.0);
        close(s.rate(1.0, 300, 10, 90), 0.1);
        close(s.rate(1.0, 600, 10, 90), 0.01);
        let s = schedule(0.0, RateDecay::Exponential { every: 2.4, factor: 0.97 });
        close(s.rate(1.0, 24, 10, 90), 0.97);
        close(s.rate(1.0, 48, 10, 90), 0.97 * 0.97);
    }

    #[test]
    fn impossible_numbers_are_refused_by_name() {
        let wrong = Schedule::default().validate(-1.0);
        assert!(wrong.unwrap_err().to_string().contains("learning_rate = -1"));
        let wrong = schedule(0.0, RateDecay::Step { every: 0.0, factor: 0.1 });
        assert!(wrong.validate(1.0).unwrap_err().to_string().contains("every = 0"));
    }
}
