//! The section `[compute]` of the settings.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use serde::{Deserialize, Serialize};
use tallow_cuda::DeviceSpec;

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

/// The precision of products and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 24 bits, as on a CPU.
    #[default]
    F32,
    /// f32 whose products round their factors to 11 bits.
    Tf32,
    /// 8 bits with the range of f32.
    Bf16,
    /// 11 bits with a small range, which takes a loss scale.
    F16,
}

impl Precision {
    /// The type of activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::F32, Self::Tf32, Self::Bf16, Self::F16];
        let found = all.into_iter().find(|precision| precision.to_string() == text);
        found.ok_or_else(|| "give f32, tf32, bf16 or f16".to_owned())
    }
}
