//! When what is written.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Event files for TensorBoard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TensorboardConfig {
    /// Whether any are written.
    pub enabled: bool,
    /// Steps between two scalars of single batches.
    pub scalar_steps: u64,
    /// Epochs between two histograms of weights, gradients and activations, taken at an epoch's first step; 0 for none.
    pub histogram_epochs: u64,
    /// Epochs between two sets of pictures and PR curves, the last epoch always among them; 0 for none.
    pub picture_epochs: u64,
}

impl Default for TensorboardConfig {
    fn default() -> Self {
        Self { enabled: true, scalar_steps: 10, histogram_epochs: 1, picture_epochs: 10 }
    }
}

impl TensorboardConfig {
    /// Refuses impossible numbers.
    ///
    /// # Errors
    /// [`Error::Setting`] with the number's name.
    pub fn validate(&self) -> Result<()> {
        if self.scalar_steps == 0 {
            let remedy = "choose at least 1, or enabled = false";
            return Err(Error::Setting { name: "tensorboard.scalar_steps", value: "0".into(), remedy });
        }
        Ok(())
    }

    /// Whether histograms are due in an epoch (from 0).
    pub fn histograms_due(&self, epoch: u64) -> bool {
        self.enabled && self.histogram_epochs > 0 && epoch.is_multiple_of(self.histogram_epochs)
    }

    /// Whether pictures are due in an epoch (from 0) of a run of `epochs`.
    pub fn pictures_due(&self, epoch: u64, epochs: u64) -> bool {
        let every = self.picture_epochs;
        self.enabled && every > 0 && (epoch.is_multiple_of(every) || epoch + 1 == epochs)
    }
}
