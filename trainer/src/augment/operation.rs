//! The operations that learned and random policies choose from, with torchvision's magnitudes (its `_apply_op` and
//! `_augmentation_space`): magnitudes are single-precision numbers, evenly spaced over an operation's range.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::affine::{self, AffineFilter};
use super::color::{adjust_brightness, adjust_contrast, adjust_saturation};
use super::sharpness::adjust_sharpness;
use super::tone;

/// One kind of change to an image (Cubuk et al. 2019, "AutoAugment", table 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Rows shifted the further down they are.
    ShearX,
    /// Columns shifted the further right they are.
    ShearY,
    /// To the right or left.
    TranslateX,
    /// Down or up.
    TranslateY,
    /// About the centre.
    Rotate,
    /// Blended with black.
    Brightness,
    /// Blended with grey: saturation.
    Color,
    /// Blended with its mean grey.
    Contrast,
    /// Blended with a smoothed version.
    Sharpness,
    /// Fewer bits a value.
    Posterize,
    /// Bright values inverted.
    Solarize,
    /// Each channel stretched to its full range.
    AutoContrast,
    /// Each channel's histogram made even.
    Equalize,
    /// All values inverted.
    Invert,
}

use Operation::{
    AutoContrast, Brightness, Color, Contrast, Equalize, Identity, Invert, Posterize, Rotate, Sharpness,
    ShearX, ShearY, Solarize, TranslateX, TranslateY,
};

impl Operation {
    /// Whether its magnitude also comes negative.
    pub(super) fn is_signed(self) -> bool {
        !matches!(self, Identity | Posterize | Solarize | AutoContrast | Equalize | Invert)
    }

    /// Magnitude number `level` of `levels`, for an image of that size; 0 for operations that have none.
    pub(super) fn magnitude(self, level: u32, levels: u32, width: u32, height: u32) -> f64 {
        let spaced = |low: f32, high: f32| f64::from(linspace(low, high, levels, level));
        // A share of the paper's 331 pixels.
        let part = |side: u32| (150.0 / 331.0 * f64::from(side)) as f32;
        match self {
            ShearX | ShearY => spaced(0.0, 0.3),
            TranslateX => spaced(0.0, part(width)),
            TranslateY => spaced(0.0, part(height)),
            Rotate => spaced(0.0, 30.0),
            Brightness | Color | Contrast | Sharpness => spaced(0.0, 0.9),
            Posterize => f64::from(8.0 - (level as f32 / ((levels - 1) as f32 / 4.0)).round_ties_even()),
            Solarize => spaced(255.0, 0.0),
            Identity | AutoContrast | Equalize | Invert => 0.0,
        }
    }

    /// Changes `image` by as much as `magnitude` says.
    pub(super) fn apply(self, image: &mut RgbImage, magnitude: f64, filter: AffineFilter) {
        let factor = (1.0 + magnitude) as f32;
        match self {
            Identity => {}
            ShearX => *image = affine::shear_x(image, magnitude, filter),
            ShearY => *image = affine::shear_y(image, magnitude, filter),
            TranslateX => *image = affine::translate(image, magnitude as i64, 0),
            TranslateY => *image = affine::translate(image, 0, magnitude as i64),
            Rotate => *image = affine::rotate(image, magnitude, filter),
            Brightness => adjust_brightness(image, factor),
            Color => adjust_saturation(image, factor),
            Contrast => adjust_contrast(image, factor),
            Sharpness => adjust_sharpness(image, factor),
            Posterize => tone::posterize(image, magnitude as u32),
            Solarize => tone::solarize(image, magnitude),
            AutoContrast => tone::autocontrast(image),
            Equalize => tone::equalize(image),
            Invert => tone::invert(image),
        }
    }
}

/// `torch.linspace(low, high, levels)[level]` in single precision: from the nearer end, by a fused multiply-add.
fn linspace(low: f32, high: f32, levels: u32, level: u32) -> f32 {
    let step = (high - low) / (levels - 1) as f32;
    if level < levels / 2 {
        step.mul_add(level as f32, low)
    } else {
        (-step).mul_add((levels - 1 - level) as f32, high)
    }
}
