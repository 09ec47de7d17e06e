//! How a photo becomes a network's input: resize, centre crop, normalise.
//! The same description travels from the trainer through the `.onnx` file to the runtime.
//! Geometry: torchvision's `Resize(short side)` + `CenterCrop` on PIL images.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::normalize::Normalizer;
use crate::resize::{Interpolation, half_rounded_to_even, resize_and_crop};

/// The way from RGB pixels to a network's input `[3, height, width]`.
///
/// ```
/// use tallow_input::{Preprocess, RgbImage};
/// let photo = RgbImage::new(640, 480);
/// let preprocess = Preprocess { crop_fraction: 0.875, ..Preprocess::imagenet(224, 224) };
/// assert_eq!(preprocess.resized_size(640, 480), (341, 256));
/// assert_eq!(preprocess.apply(&photo)?.len(), 3 * 224 * 224);
/// # Ok::<(), tallow_input::InputError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Columns of the network's input, pixels.
    pub width: u32,
    /// Rows of the network's input, pixels.
    pub height: u32,
    /// Mean of R, G, B for pixels scaled to 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B for pixels scaled to 0..1.
    pub std: [f32; 3],
    /// The resize filter.
    #[serde(default)]
    pub interpolation: Interpolation,
    /// The part of the resized short side that the crop keeps: 0.875 resizes to 256 for an input of 224;
    /// 1 keeps the whole short side. The resized side is rounded down, as timm does.
    #[serde(default = "whole")]
    pub crop_fraction: f64,
}

fn whole() -> f64 {
    1.0
}

impl Preprocess {
    /// ImageNet's mean and standard deviation, bilinear, no crop margin.
    pub fn imagenet(width: u32, height: u32) -> Preprocess {
        Preprocess {
            width,
            height,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            interpolation: Interpolation::Bilinear,
            crop_fraction: 1.0,
        }
    }

    /// Numbers in one image's input: 3 · height · width.
    pub fn len(&self) -> usize {
        3 * self.width as usize * self.height as usize
    }

    /// True if the input has no numbers, which [`validate`](Self::validate) refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks every field's range.
    ///
    /// # Errors
    /// [`InputError::Preprocess`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), InputError> {
        let wrong = |field, value: String, expected| Err(InputError::Preprocess { field, value, expected });
        let sizes = 1..=crate::MAX_SIDE;
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if !sizes.contains(&side) {
                return wrong(field, side.to_string(), "1 to 16384 pixels");
            }
        }
        if self.mean.iter().any(|m| !m.is_finite()) {
            return wrong("mean", format!("{:?}", self.mean), "three finite numbers");
        }
        if self.std.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return wrong("std", format!("{:?}", self.std), "three numbers above 0");
        }
        if !(0.05..=20.0).contains(&self.crop_fraction) {
            return wrong("crop_fraction", self.crop_fraction.to_string(), "0.05 to 20");
        }
        Ok(())
    }

    /// The (width, height) that an image of that size is resized to before the crop.
    ///
    /// For a square input: the short side becomes `size / crop_fraction`, the long side
    /// `int(short * long / short)`, as torchvision's `Resize` has it. For others, the smallest size with the image's
    /// aspect that the crop with its margin fits in, the other side rounded, as timm's `ResizeKeepRatio` has it.
    pub fn resized_size(&self, width: u32, height: u32) -> (u32, u32) {
        let (want_width, want_height) = (self.before_crop(self.width), self.before_crop(self.height));
        let (w, h) = (u64::from(width).max(1), u64::from(height).max(1));
        if want_width != want_height {
            let ratio = (w as f64 / want_width as f64).min(h as f64 / want_height as f64);
            let resized = |side: u64| (side as f64 / ratio).round_ties_even() as u32;
            return (resized(w), resized(h));
        }
        let clamp = |side: u64| u32::try_from(side).unwrap_or(u32::MAX);
        if w <= h {
            (clamp(want_width), clamp(want_width * h / w))
        } else {
            (clamp(want_height * w / h), clamp(want_height))
        }
    }

    /// `floor(side / crop_fraction)`; the small addend keeps fractions made by a division of whole numbers exact.
    fn before_crop(&self, side: u32) -> u64 {
        ((f64::from(side) / self.crop_fraction + 1e-6).floor() as u64).max(1)
    }

    /// The part of an image of that size that the network sees, in the image's pixels: left, top, width, height. It
    /// reaches beyond the image where the crop pads.
    pub fn seen(&self, width: u32, height: u32) -> [f64; 4] {
        let (resized_width, resized_height) = self.resized_size(width, height);
        let axis = |side: u32, resized: u32, crop: u32| {
            let scale = f64::from(side) / f64::from(resized.max(1));
            let start = if resized >= crop {
                f64::from(half_rounded_to_even(resized - crop))
            } else {
                -f64::from((crop - resized) / 2)
            };
            (start * scale, f64::from(crop) * scale)
        };
        let (left, seen_width) = axis(width, resized_width, self.width);
        let (top, seen_height) = axis(height, resized_height, self.height);
        [left, top, seen_width, seen_height]
    }

    /// Resizes and crops to `width` x `height`, still 8-bit RGB.
    ///
    /// # Errors
    /// [`InputError::Preprocess`] for a field out of range, [`InputError::Geometry`] for an image that is empty
    /// or so narrow that it would be resized beyond [`MAX_PIXELS`](crate::MAX_PIXELS).
    pub fn pixels(&self, image: &RgbImage) -> Result<RgbImage, InputError> {
        self.validate()?;
        let resized = self.resized_size(image.width(), image.height());
        resize_and_crop(image, resized, (self.width, self.height), self.interpolation)
    }

    /// One image as a network's input: `[3, height, width]`, R, G, B planes, normalised.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels).
    pub fn apply(&self, image: &RgbImage) -> Result<Vec<f32>, InputError> {
        self.apply_batch(std::iter::once(image))
    }

    /// Images as one batch `[N, 3, height, width]`.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels).
    pub fn apply_batch<'a>(
        &self,
        images: impl IntoIterator<Item = &'a RgbImage>,
    ) -> Result<Vec<f32>, InputError> {
        let normalizer = self.normalizer();
        let mut batch = Vec::new();
        for image in images {
            let pixels = self.pixels(image)?;
            let start = batch.len();
            batch.resize(start + self.len(), 0.0);
            normalizer.fill_chw(&pixels, &mut batch[start..])?;
        }
        Ok(batch)
    }

    /// The normalisation alone, for images that already have the network's size.
    pub fn normalizer(&self) -> Normalizer {
        Normalizer::new(self.mean, self.std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resized_side_is_floored_but_ratios_of_whole_numbers_stay_exact() {
        for (resized, crop) in
            [(256, 224), (384, 380), (489, 456), (561, 528), (633, 600), (320, 300), (256, 240)]
        {
            let preprocess = Preprocess {
                crop_fraction: f64::from(crop) / f64::from(resized),
                ..Preprocess::imagenet(crop, crop)
            };
            assert_eq!(preprocess.resized_size(1000, 1000), (resized, resized), "{crop}/{resized}");
        }
        let timm = Preprocess { crop_fraction: 0.882, ..Preprocess::imagenet(240, 240) };
        assert_eq!(timm.resized_size(500, 400), (340, 272)); // floor(240 / 0.882) = 272
    }

    #[test]
    fn a_wide_input_is_resized_until_the_crop_fits() {
        let preprocess = Preprocess::imagenet(64, 32);
        assert_eq!(preprocess.resized_size(100, 100), (64, 64));
        assert_eq!(preprocess.resized_size(300, 100), (96, 32));
        assert_eq!(preprocess.resized_size(200, 100), (64, 32));
        assert_eq!(preprocess.pixels(&RgbImage::new(31, 77)).unwrap().dimensions(), (64, 32));
    }

    #[test]
    fn inputs_that_are_not_square_are_resized_as_timm_resizes() {
        // timm 1.0's ResizeKeepRatio((floor(height / crop), floor(width / crop))).get_params, sizes width × height.
        for (input, crop, image, resized) in [
            ((256, 128), 0.875, (512, 512), (292, 292)),
            ((256, 128), 0.875, (451, 300), (292, 194)),
            ((256, 128), 0.875, (640, 427), (292, 195)),
            ((256, 128), 1.0, (1000, 333), (384, 128)),
            ((128, 256), 0.95, (451, 300), (404, 269)),
            ((96, 160), 0.9, (333, 500), (118, 177)),
            ((160, 96), 0.875, (400, 5), (8720, 109)),
            ((4, 8), 1.0, (5, 16), (4, 13)),
            ((8, 4), 1.0, (16, 5), (13, 4)),
            ((2, 4), 1.0, (4, 10), (2, 5)),
            ((2, 3), 1.0, (4, 5), (2, 3)),
        ] {
            let preprocess = Preprocess { crop_fraction: crop, ..Preprocess::imagenet(input.0, input.1) };
            assert_eq!(preprocess.resized_size(image.0, image.1), resized, "{input:?} {crop} {image:?}");
        }
    }

    #[test]
    fn what_is_seen_is_the_crop_in_the_images_own_pixels() {
        let preprocess = Preprocess { crop_fraction: 0.875, ..Preprocess::imagenet(224, 224) };
        // 512×256 is resized to itself; the crop is its middle.
        assert_eq!(preprocess.seen(512, 256), [144.0, 16.0, 224.0, 224.0]);
        assert_eq!(preprocess.seen(1024, 512), [288.0, 32.0, 448.0, 448.0]);
        let beyond = Preprocess { crop_fraction: 2.0, ..Preprocess::imagenet(224, 224) };
        assert_eq!(beyond.seen(112, 112), [-56.0, -56.0, 224.0, 224.0]);
    }

    #[test]
    fn fields_out_of_range_are_named() {
        let good = Preprocess::imagenet(8, 8);
        let image = RgbImage::new(8, 8);
        for (bad, field) in [
            (Preprocess { width: 0, ..good }, "width"),
            (Preprocess { height: 100_000, ..good }, "height"),
            (Preprocess { std: [1.0, 0.0, 1.0], ..good }, "std"),
            (Preprocess { mean: [f32::NAN; 3], ..good }, "mean"),
            (Preprocess { crop_fraction: f64::NAN, ..good }, "crop_fraction"),
            (Preprocess { crop_fraction: 1e-9, ..good }, "crop_fraction"),
        ] {
            let text = bad.apply(&image).unwrap_err().to_string();
            assert!(text.starts_with(&format!("preprocessing: {field} is ")), "{text}");
        }
    }

    #[test]
    fn an_absurdly_narrow_image_is_an_error_not_an_allocation() {
        let text = Preprocess::imagenet(600, 600).apply(&RgbImage::new(1, 16_000)).unwrap_err().to_string();
        assert_eq!(
            text,
            "cannot resize: from 1x16000 to 600x9600000 pixels, which are more than 178956970: cut the long side"
        );
        assert!(Preprocess::imagenet(8, 8).apply(&RgbImage::new(0, 0)).is_err());
    }

    #[test]
    fn json_keeps_the_short_decimal_numbers_and_tolerates_unknown_fields() {
        let preprocess =
            Preprocess { interpolation: Interpolation::Bicubic, ..Preprocess::imagenet(224, 224) };
        let text = serde_json::to_string(&preprocess).unwrap();
        assert_eq!(
            text,
            r#"{"width":224,"height":224,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],"interpolation":"bicubic","crop_fraction":1.0}"#
        );
        assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), preprocess);
        let later = r#"{"width":2,"height":3,"mean":[0,0,0],"std":[1,1,1],"antialias":"gamma"}"#;
        assert_eq!(serde_json::from_str::<Preprocess>(later).unwrap().crop_fraction, 1.0);
    }
}
