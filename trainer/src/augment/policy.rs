//! Policies that choose operations: RandAugment (Cubuk et al. 2020, section 3) and AutoAugment (Cubuk et al. 2019),
//! as torchvision has them.

use image::RgbImage;
use serde::{Deserialize, Serialize};
use tallow_builder::Rng;

use super::affine::AffineFilter;
use super::operation::Operation::{self, *};
use super::subpolicies::{CIFAR10, IMAGENET};
use crate::error::{Error, Result};

/// RandAugment's operations, torchvision's list.
pub(super) const RANDOM: [Operation; 14] = [
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
];

/// Magnitudes are numbered 0 to 30 in RandAugment.
const RANDOM_LEVELS: u32 = 31;
/// Magnitudes are numbered 0 to 9 in AutoAugment.
pub(super) const LEARNED_LEVELS: u32 = 10;
/// More operations than this leave nothing of a photo.
const MOST_OPERATIONS: u32 = 16;

/// So many operations in a row, each drawn from fourteen, all of one magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandAugment {
    /// Operations an image, the paper's N.
    pub operations: u32,
    /// Their magnitude, the paper's M: 0 to 30.
    pub magnitude: u32,
    /// The filter of shears and rotations.
    pub filter: AffineFilter,
}

impl Default for RandAugment {
    /// The paper's choice for ResNet-50 on ImageNet, and torchvision's.
    fn default() -> Self {
        Self { operations: 2, magnitude: 9, filter: AffineFilter::Nearest }
    }
}

impl RandAugment {
    pub(super) fn validate(&self) -> Result<()> {
        let setting =
            |name, value: u32, remedy| Err(Error::Setting { name, value: value.to_string(), remedy });
        if !(1..=MOST_OPERATIONS).contains(&self.operations) {
            return setting("rand_augment.operations", self.operations, "choose 1 to 16, such as 2");
        }
        if self.magnitude >= RANDOM_LEVELS {
            return setting("rand_augment.magnitude", self.magnitude, "choose 0 to 30, such as 9");
        }
        Ok(())
    }

    pub(super) fn apply(&self, image: &mut RgbImage, rng: &mut Rng) {
        let (width, height) = image.dimensions();
        for _ in 0..self.operations {
            let operation = RANDOM[rng.below(RANDOM.len())];
            let magnitude = operation.magnitude(self.magnitude, RANDOM_LEVELS, width, height);
            let is_negative = operation.is_signed() && rng.chance(0.5);
            operation.apply(image, if is_negative { -magnitude } else { magnitude }, self.filter);
        }
    }
}

/// One of 25 learned pairs of operations, each with a probability and a magnitude of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoAugment {
    /// Which pairs.
    pub policy: Policy,
    /// The filter of shears and rotations.
    #[serde(default)]
    pub filter: AffineFilter,
}

/// What AutoAugment's pairs were learned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Photos; what EfficientNet was trained with.
    ImageNet,
    /// Small pictures.
    Cifar10,
}

/// An operation, its probability and the number of its magnitude.
pub(super) type Step = (Operation, f64, u32);

impl AutoAugment {
    pub(super) fn apply(&self, image: &mut RgbImage, rng: &mut Rng) {
        let (width, height) = image.dimensions();
        let pairs = match self.policy {
            Policy::ImageNet => &IMAGENET,
            Policy::Cifar10 => &CIFAR10,
        };
        for (operation, probability, level) in pairs[rng.below(pairs.len())] {
            let (is_on, is_negative) = (rng.chance(probability), rng.chance(0.5));
            if is_on {
                let magnitude = operation.magnitude(level, LEARNED_LEVELS, width, height);
                let is_negative = operation.is_signed() && is_negative;
                operation.apply(image, if is_negative { -magnitude } else { magnitude }, self.filter);
            }
        }
    }
}
