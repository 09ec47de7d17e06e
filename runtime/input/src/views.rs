//! Test-time augmentation: one photo seen several ways, and the mean of what a network says of them (Krizhevsky et al.
//! 2012, "ImageNet classification with deep convolutional neural networks", section 4.1). Crops are torchvision's
//! `FiveCrop` and `TenCrop`.

use image::{RgbImage, imageops};

use crate::card::OutputKind;
use crate::error::InputError;
use crate::preprocess::Preprocess;
use crate::resize::{center_crop, resize};

/// The ways in which a photo is shown to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Views {
    /// Its middle, as [`Preprocess::pixels`] gives it.
    #[default]
    One,
    /// Its middle and the mirror image of that.
    Flip,
    /// The four corners and the middle of the resized photo.
    FiveCrop,
    /// The same of the photo and of its mirror image.
    TenCrop,
}

/// Every choice by the name that it has on a command line.
const NAMES: [(&str, Views); 4] =
    [("one", Views::One), ("flip", Views::Flip), ("five", Views::FiveCrop), ("ten", Views::TenCrop)];

impl Views {
    /// How many there are of one photo.
    pub fn count(self) -> usize {
        match self {
            Views::One => 1,
            Views::Flip => 2,
            Views::FiveCrop => 5,
            Views::TenCrop => 10,
        }
    }
}

impl std::str::FromStr for Views {
    type Err = String;

    fn from_str(name: &str) -> Result<Views, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, views)| *views).ok_or_else(|| {
            format!("`{name}` is none of the ways to look at an image: choose one, flip, five or ten")
        })
    }
}

impl std::fmt::Display for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = NAMES.iter().find(|(_, views)| views == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

impl Preprocess {
    /// The views of an image, each of `width` x `height`, still 8-bit RGB.
    ///
    /// The crops are of the image as it is resized before the centre crop: where `crop_fraction` is 1 and the image as
    /// wide as high, they are all the same.
    ///
    /// # Errors
    /// As [`pixels`](Self::pixels).
    pub fn views(&self, image: &RgbImage, views: Views) -> Result<Vec<RgbImage>, InputError> {
        if let Views::One | Views::Flip = views {
            let middle = self.pixels(image)?;
            let mirrored = (views == Views::Flip).then(|| imageops::flip_horizontal(&middle));
            return Ok(std::iter::once(middle).chain(mirrored).collect());
        }
        self.validate()?;
        let (width, height) = self.resized_size(image.width(), image.height());
        let resized = resize(image, width, height, self.interpolation)?;
        // Where the photo is smaller than the input, it is padded as for the centre crop.
        let resized = center_crop(&resized, width.max(self.width), height.max(self.height));
        let mut crops = five(&resized, self.width, self.height);
        if views == Views::TenCrop {
            crops.extend(five(&imageops::flip_horizontal(&resized), self.width, self.height));
        }
        Ok(crops)
    }
}

/// Upper left, upper right, lower left, lower right, middle, of an image that is at least as large.
fn five(image: &RgbImage, width: u32, height: u32) -> Vec<RgbImage> {
    let (right, bottom) = (image.width() - width, image.height() - height);
    let corner = |(x, y)| imageops::crop_imm(image, x, y, width, height).to_image();
    let corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)].map(corner);
    corners.into_iter().chain([center_crop(image, width, height)]).collect()
}

/// The mean of the probabilities that a network gives the views of each image, computed in f64: from rows of `classes`
/// scores, the views of an image one after another, to one row an image.
///
/// # Panics
/// If the scores are no whole number of images.
pub fn mean_probabilities(scores: &[f32], kind: OutputKind, classes: usize, views: Views) -> Vec<f32> {
    let image = classes * views.count();
    assert_eq!(scores.len() % image, 0, "scores are rows of {classes} classes, {} an image", views.count());
    let mean = |scores: &[f32]| {
        let mut sums = vec![0.0; classes];
        for row in scores.chunks_exact(classes) {
            let probabilities = match kind {
                OutputKind::Probabilities => row.iter().copied().map(f64::from).collect(),
                OutputKind::Logits => softmax(row),
            };
            sums.iter_mut().zip(probabilities).for_each(|(sum, probability)| *sum += probability);
        }
        sums.into_iter().map(|sum| (sum / views.count() as f64) as f32).collect::<Vec<f32>>()
    };
    scores.chunks_exact(image).flat_map(mean).collect()
}

/// Probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|v| f64::from(v - max).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixel (x, y) is [x, y, 0]: a crop tells where it lies.
    fn map(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 0]))
    }

    /// torchvision's `F.ten_crop(image, [4, 6])` on a 15 x 9 image: the first and the last pixel of each crop. The middle of the mirror image is not the mirror image of the middle where a margin is odd.
    #[test]
    fn crops_are_torchvisions() {
        let preprocess = Preprocess { crop_fraction: 4.0 / 9.0, ..Preprocess::imagenet(6, 4) };
        assert_eq!(preprocess.resized_size(15, 9), (15, 9));
        let crops = preprocess.views(&map(15, 9), Views::TenCrop).unwrap();
        let corner = |crop: &RgbImage| (crop.get_pixel(0, 0).0, crop.get_pixel(5, 3).0);
        let expected = [
            ([0, 0, 0], [5, 3, 0]),
            ([9, 0, 0], [14, 3, 0]),
            ([0, 5, 0], [5, 8, 0]),
            ([9, 5, 0], [14, 8, 0]),
            ([4, 2, 0], [9, 5, 0]),
            ([14, 0, 0], [9, 3, 0]),
            ([5, 0, 0], [0, 3, 0]),
            ([14, 5, 0], [9, 8, 0]),
            ([5, 5, 0], [0, 8, 0]),
            ([10, 2, 0], [5, 5, 0]),
        ];
        assert_eq!(crops.iter().map(corner).collect::<Vec<_>>(), expected);
        assert_eq!(preprocess.views(&map(15, 9), Views::FiveCrop).unwrap(), crops[..5]);
        let [middle, mirrored] = &preprocess.views(&map(15, 9), Views::Flip).unwrap()[..] else {
            panic!("two views")
        };
        assert_eq!(*middle, preprocess.pixels(&map(15, 9)).unwrap());
        assert_eq!(*mirrored, imageops::flip_horizontal(middle));
        assert_eq!(preprocess.views(&map(15, 9), Views::One).unwrap(), std::slice::from_ref(middle));
    }

    #[test]
    fn a_photo_that_is_smaller_than_the_crop_is_padded() {
        let preprocess = Preprocess { crop_fraction: 2.0, ..Preprocess::imagenet(8, 8) };
        let crops = preprocess.views(&map(4, 4), Views::FiveCrop).unwrap();
        assert!(crops.iter().all(|crop| *crop == preprocess.pixels(&map(4, 4)).unwrap()));
    }

    #[test]
    fn probabilities_are_averaged_not_logits() {
        let scores = [0.0, 100.0, 100.0, 0.0, 1.0, 1.0, 0.0, 3f32.ln()];
        let mean = mean_probabilities(&scores, OutputKind::Logits, 2, Views::Flip);
        for (found, expected) in mean.iter().zip([0.5, 0.5, 0.375, 0.625]) {
            assert!((found - expected).abs() < 1e-6, "{mean:?}");
        }
        let mean = mean_probabilities(&[0.2, 0.8, 0.6, 0.4], OutputKind::Probabilities, 2, Views::Flip);
        assert_eq!(mean, [0.4, 0.6]);
    }

    #[test]
    fn names_read_back_and_others_are_refused() {
        for (name, views) in NAMES {
            assert_eq!((views.to_string().as_str(), name.parse()), (name, Ok(views)));
        }
        assert!("twelve".parse::<Views>().unwrap_err().contains("one, flip, five or ten"));
    }
}
