//! In which numbers is computed.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The precision of products and activations. Parameters are f32 in any case, sums are taken in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Precision {
    /// 24 bits, as on a CPU.
    #[default]
    F32,
    /// f32 whose products round their factors to 11 bits.
    Tf32,
    /// 11 bits, up to 65504: training takes a loss scale.
    F16,
    /// 8 bits, as far as f32 goes.
    Bf16,
}

impl Precision {
    /// All of them, the finest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::F16, Self::Bf16];

    /// The type of activations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Tf32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The largest relative error of one rounding, 2⁻ᵇ for numbers of b bits.
    pub fn unit(self) -> f64 {
        match self {
            Self::F32 => 2f64.powi(-24),
            Self::Tf32 | Self::F16 => 2f64.powi(-11),
            Self::Bf16 => 2f64.powi(-8),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// The names that are printed, and what other libraries call the same.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" | "fp32" | "float32" => Ok(Self::F32),
            "tf32" => Ok(Self::Tf32),
            "f16" | "fp16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            _ => Err(Error::Precision),
        }
    }
}

impl TryFrom<String> for Precision {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Precision> for String {
    fn from(precision: Precision) -> Self {
        precision.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_named_as_they_are_printed() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse::<Precision>().unwrap(), precision);
        }
        let error = "fp8".parse::<Precision>().unwrap_err().to_string();
        assert!(error.contains("tf32, f16 or bf16"), "{error}");
    }

    #[test]
    fn what_other_libraries_call_a_precision_is_understood() {
        for (names, precision) in [
            (&["fp32", "float32"][..], Precision::F32),
            (&["fp16", "float16"], Precision::F16),
            (&["bfloat16"], Precision::Bf16),
        ] {
            for name in names {
                assert_eq!(name.parse::<Precision>().unwrap(), precision, "{name}");
            }
        }
    }
}
