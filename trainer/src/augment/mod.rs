//! From a decoded image to a training or validation input: random crops, flips, policies and colours with
//! torchvision's semantics, then normalisation and erasing. [`Augment`] is the configuration, [`TrainTransform`] and
//! [`EvalTransform`] are what the loader calls; everything random comes from the sample's own generator. [`Mix`] mixes
//! the images of a batch.

mod affine;
mod color;
mod crop;
mod erasing;
mod mix;
mod operation;
mod policy;
mod sharpness;
mod subpolicies;
#[cfg(test)]
mod tests;
mod tone;

use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};
use tallow_builder::Rng;
use tallow_input::{Interpolation, Normalizer, Preprocess, Views, resized_crop};

use crate::data::{Scale, Transform};
use crate::error::{Error, Result};

pub use affine::AffineFilter;
pub use color::ColorJitter;
pub use crop::RandomResizedCrop;
pub use erasing::{Fill, RandomErasing};
pub(crate) use mix::blend_partners;
pub use mix::{Mix, Mixed};
pub use policy::{AutoAugment, Policy, RandAugment};

/// What is done to training images, in this order: crop and resize to the network's input, pad and crop, flip, a policy,
/// colours; after normalisation, erasing.
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
    /// Operations drawn at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
    /// Operations of a learned policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_augment: Option<AutoAugment>,
    /// Random brightness, contrast, saturation and hue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color_jitter: Option<ColorJitter>,
    /// A random box of the input is overwritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_erasing: Option<RandomErasing>,
    /// How often an epoch has each image, each time augmented differently; an epoch is as many times longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeated_augment: Option<u32>,
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
        if let Some(repeats) = self.repeated_augment.filter(|repeats| !(1..=MOST_REPEATS).contains(repeats)) {
            let remedy = "an epoch has each image 1 to 1000 times, such as 3";
            return Err(Error::Setting { name: "repeated_augment", value: repeats.to_string(), remedy });
        }
        if self.rand_augment.is_some() && self.auto_augment.is_some() {
            let remedy = "takes the place of auto_augment: choose one of them";
            return Err(Error::Setting { name: "rand_augment", value: "on".into(), remedy });
        }
        self.rand_augment.as_ref().map_or(Ok(()), RandAugment::validate)?;
        self.random_erasing.as_ref().map_or(Ok(()), RandomErasing::validate)?;
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
        let (mut image, mirrored) = self.unmirrored(image, preprocess, rng)?;
        if mirrored {
            imageops::flip_horizontal_in_place(&mut image);
        }
        Ok(image)
    }

    /// As [`Self::pixels`], but whether the image is to be mirrored is only told where nothing comes after that.
    fn unmirrored(
        &self,
        image: &RgbImage,
        preprocess: &Preprocess,
        rng: &mut Rng,
    ) -> Result<(RgbImage, bool)> {
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
        let mirrored = self.horizontal_flip > 0.0 && rng.chance(self.horizontal_flip);
        if self.rand_augment.is_none() && self.auto_augment.is_none() && self.color_jitter.is_none() {
            return Ok((image, mirrored));
        }
        if mirrored {
            imageops::flip_horizontal_in_place(&mut image);
        }
        if let Some(policy) = &self.rand_augment {
            policy.apply(&mut image, rng);
        }
        if let Some(policy) = &self.auto_augment {
            policy.apply(&mut image, rng);
        }
        if let Some(jitter) = &self.color_jitter {
            jitter.apply(&mut image, rng);
        }
        Ok((image, false))
    }
}

/// More repetitions of an image are no use to anybody.
const MOST_REPEATS: u32 = 1000;

/// An image that cannot be brought to the network's input; the loader adds where it comes from.
fn unusable(error: tallow_input::InputError) -> Error {
    Error::Unusable { reason: error.to_string() }
}

fn scale(preprocess: &Preprocess) -> Scale {
    Scale { mean: preprocess.mean, std: preprocess.std }
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
        self.normalizer.fill_chw(&image, out).map_err(unusable)?;
        if let Some(erasing) = &self.augment.random_erasing {
            let (height, width) = self.output_size();
            erasing.apply(out, height, width, rng);
        }
        Ok(())
    }

    fn scale(&self) -> Option<Scale> {
        // What is erased is filled with normalised numbers.
        self.augment.random_erasing.is_none().then(|| scale(&self.preprocess))
    }

    fn apply_bytes(&self, image: RgbImage, rng: &mut Rng, out: &mut [u8]) -> Result<bool> {
        let (image, mirrored) = self.augment.unmirrored(&image, &self.preprocess, rng)?;
        out.copy_from_slice(image.as_raw());
        Ok(mirrored)
    }
}

/// What validation and prediction see: resize, centre crop or several, normalise, nothing random.
pub struct EvalTransform {
    preprocess: Preprocess,
    normalizer: Normalizer,
    views: Views,
}

impl EvalTransform {
    /// Brings images to the input that `preprocess` describes.
    ///
    /// # Errors
    /// [`Error::Input`] for a preprocessing that makes no sense.
    pub fn new(preprocess: Preprocess) -> Result<Self> {
        Self::with_views(preprocess, Views::One)
    }

    /// The same for several views of each image: test-time augmentation.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_views(preprocess: Preprocess, views: Views) -> Result<Self> {
        preprocess.validate()?;
        Ok(Self { preprocess, normalizer: preprocess.normalizer(), views })
    }
}

impl Transform for EvalTransform {
    fn views(&self) -> Views {
        self.views
    }

    fn output_size(&self) -> (usize, usize) {
        (self.preprocess.height as usize, self.preprocess.width as usize)
    }

    fn apply(&self, image: RgbImage, _: &mut Rng, out: &mut [f32]) -> Result<()> {
        let views = self.preprocess.views(&image, self.views).map_err(unusable)?;
        for (view, out) in views.iter().zip(out.chunks_exact_mut(self.preprocess.len())) {
            self.normalizer.fill_chw(view, out).map_err(unusable)?;
        }
        Ok(())
    }

    fn scale(&self) -> Option<Scale> {
        Some(scale(&self.preprocess))
    }

    fn apply_bytes(&self, image: RgbImage, _: &mut Rng, out: &mut [u8]) -> Result<bool> {
        let views = self.preprocess.views(&image, self.views).map_err(unusable)?;
        for (view, out) in views.iter().zip(out.chunks_exact_mut(self.preprocess.len())) {
            out.copy_from_slice(view.as_raw());
        }
        Ok(false)
    }
}
