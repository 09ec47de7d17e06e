//! The section `[compute]` of the settings.

use serde::{Deserialize, Serialize};
use tallow_cuda::{DeviceSpec, Precision};

/// Where and how a run computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ComputeConfig {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceSpec,
    /// Of what is computed; parameters, sums and the optimiser are f32.
    pub precision: Precision,
    /// Whether most activations are computed once more on the way back instead of being kept.
    pub checkpoint_activations: bool,
}
