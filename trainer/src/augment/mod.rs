//! From a decoded image to a training or validation input: random crops, flips and colours with torchvision's
//! semantics, then normalisation. [`Augment`] is the configuration, [`TrainTransform`] and [`EvalTransform`] are
//! what the loader calls; everything random comes from the sample's own generator.

mod color;
mod crop;
#[cfg(test)]
mod tests;

use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};
use tallow_builder::Rng;
use tallow_input::{Interpolation, Normalizer, Preprocess, resized_crop};

use crate::data::Transform;
use crate::error::{Error, Result};

pub use color::ColorJitter;
pub use crop::RandomResizedCrop;

/// What is done to training images, in this order: crop and resize to the network's input, pad and crop, flip,
/// colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Cuts out a random part and resizes it; without it, images are resized and centre-cropped as for validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Pads this many black pixels on each side, at the network's input size, and crops at a random place
    /// (He et al. 2015, section 4.2, with 4 pixels at 32x32).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_and_crop: Option<u32>,
    /// Probability of a mirror image.
    pub horizontal_flip: f64,
    /// Random brightness, contrast, saturation and hue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_jitter: Option<ColorJitter>,
    /// The resize filter in training; without it, the one of validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation: Option<Interpolation>,
}

impl Augment {
    /// ImageNet's usual recipe: random resized crop and horizontal flip.
    pub fn imagenet() -> Self {
        Self {
            random_resized_crop: Some(RandomResizedCrop::default()),
            horizontal_flip: 0.5,
            ..Self::default()
        }
    }

    /// CIFAR's usual recipe (He et al. 2015, section 4.2): pad by 4 and crop, horizontal flip.
    pub fn cifar() -> Self {
        Self { pad_and_crop: Some(4), horizontal_flip: 0.5, ..Self::default() }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the value that makes no sense.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.horizontal_flip) {
            return Err(Error::Setting {
                name: "horizontal_flip",
                value: self.horizontal_flip.to_string(),
                remedy: "a probability lies between 0 and 1",
            });
        }
        if let Some(pad) = self.pad_and_crop.filter(|&pad| pad > tallow_input::MAX_SIDE) {
            let value = pad.to_string();
            return Err(Error::Setting {
                name: "pad_and_crop",
                value,
                remedy: "pad by a few pixels, such as 4",
            });
        }
        if let Some(crop) = &self.random_resized_crop {
            crop.validate()?;
        }
        self.color_jitter.as_ref().map_or(Ok(()), ColorJitter::validate)
    }

    /// An augmented image of `preprocess`'s width and height, still 8-bit RGB.
    ///
    /// # Errors
    /// [`Error::Image`] if the image cannot be resized to that.
    pub fn pixels(&self, image: &RgbImage, preprocess: &Preprocess, rng: &mut Rng) -> Result<RgbImage> {
        let interpolation = self.interpolation.unwrap_or(preprocess.interpolation);
        let preprocess = Preprocess { interpolation, ..*preprocess };
        let resized = match &self.random_resized_crop {
            Some(crop) => {
                let region = crop.region(image.width(), image.height(), rng);
                resized_crop(image, region, preprocess.width, preprocess.height, interpolation)
            }
            None => preprocess.pixels(image),
        };
        let mut image = resized.map_err(unusable)?;
        if let Some(pad) = self.pad_and_crop {
            image = crop::pad_and_crop(&image, pad, rng);
        }
        if self.horizontal_flip > 0.0 && rng.chance(self.horizontal_flip) {
            imageops::flip_horizontal_in_place(&mut image);
        }
        if let Some(jitter) = &self.color_jitter {
            jitter.apply(&mut image, rng);
        }
        Ok(image)
    }
}

/// An image that cannot be brought to the network's input; the loader adds where it comes from.
fn unusable(error: tallow_input::InputError) -> Error {
    Error::Unusable { reason: error.to_string() }
}

/// What training sees: augmentation, then normalisation.
pub struct TrainTransform {
    augment: Augment,
    preprocess: Preprocess,
    normalizer: Normalizer,
}

impl TrainTransform {
    /// Augments by `augment` to the input that `preprocess` describes.
    ///
    /// # Errors
    /// [`Error::Setting`] for an augmentation and [`Error::Input`] for a preprocessing that makes no sense.
    pub fn new(augment: Augment, preprocess: Preprocess) -> Result<Self> {
        augment.validate()?;
        preprocess.validate()?;
        Ok(Self { augment, preprocess, normalizer: preprocess.normalizer() })
    }
}

impl Transform for TrainTransform {
    fn output_size(&self) -> (usize, usize) {
        (self.preprocess.height as usize, self.preprocess.width as usize)
    }

    fn apply(&self, image: RgbImage, rng: &mut Rng, out: &mut [f32]) -> Result<()> {
        let image = self.augment.pixels(&image, &self.preprocess, rng)?;
        self.normalizer.fill_chw(&image, out).map_err(unusable)
    }
}

/// What validation and prediction see: resize, centre crop, normalise, nothing random.
pub struct EvalTransform {
    preprocess: Preprocess,
    normalizer: Normalizer,
}

impl EvalTransform {
    /// Brings images to the input that `preprocess` describes.
    ///
    /// # Errors
    /// [`Error::Input`] for a preprocessing that makes no sense.
    pub fn new(preprocess: Preprocess) -> Result<Self> {
        preprocess.validate()?;
        Ok(Self { preprocess, normalizer: preprocess.normalizer() })
    }
}

impl Transform for EvalTransform {
    fn output_size(&self) -> (usize, usize) {
        (self.preprocess.height as usize, self.preprocess.width as usize)
    }

    fn apply(&self, image: RgbImage, _: &mut Rng, out: &mut [f32]) -> Result<()> {
        let image = self.preprocess.pixels(&image).map_err(unusable)?;
        self.normalizer.fill_chw(&image, out).map_err(unusable)
    }
}
