//! Resizing and cropping with torchvision's geometry and Pillow's filters.
//! Filters are antialiased, and their results equal `PIL.Image.resize` to the bit.
//! All sizes are in pixels; images are 8-bit RGB.

use std::borrow::Cow;

use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};

use crate::decode::MAX_PIXELS;
use crate::error::InputError;
use crate::resample::{View, resample};

/// The filter that makes new pixels out of old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The pixel whose centre is nearest.
    Nearest,
    /// The triangle filter, support 1.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
}

/// A rectangle of pixels inside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Resizes an image to `width` x `height`, whatever its aspect, as `PIL.Image.resize` does.
///
/// # Errors
/// [`InputError::Geometry`] where a side is 0 or the result has more than [`MAX_PIXELS`] pixels.
pub fn resize(
    image: &RgbImage,
    width: u32,
    height: u32,
    interpolation: Interpolation,
) -> Result<RgbImage, InputError> {
    let whole = Region { left: 0, top: 0, width: image.width(), height: image.height() };
    resized_crop(image, whole, width, height, interpolation)
}

/// Cuts `region` out of an image, then resizes it to `width` x `height`.
///
/// As torchvision's `resized_crop`, no pixel outside the region has a part in the result.
///
/// # Errors
/// [`InputError::Geometry`] where a side is 0, the region reaches beyond the image, or the result has more
/// than [`MAX_PIXELS`] pixels.
pub fn resized_crop(
    image: &RgbImage,
    region: Region,
    width: u32,
    height: u32,
    interpolation: Interpolation,
) -> Result<RgbImage, InputError> {
    let Region { left, top, width: w, height: h } = region;
    let refuse = |reason: String| InputError::Geometry { action: "resize", reason };
    if w == 0 || h == 0 || width == 0 || height == 0 {
        return Err(refuse(format!("from {w}x{h} to {width}x{height} pixels")));
    }
    let beyond = |start: u32, length: u32, side: u32| u64::from(start) + u64::from(length) > u64::from(side);
    if beyond(left, w, image.width()) || beyond(top, h, image.height()) {
        let (iw, ih) = image.dimensions();
        return Err(refuse(format!(
            "the region {w}x{h} at ({left}, {top}) reaches beyond the image's {iw}x{ih}"
        )));
    }
    let too_many = || {
        refuse(format!(
            "from {w}x{h} to {width}x{height} pixels, which are more than {MAX_PIXELS}: cut the long side"
        ))
    };
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(too_many());
    }
    let window = Region { left: 0, top: 0, width, height };
    resized_window(image, region, (width, height), window, interpolation).ok_or_else(too_many)
}

/// Resizes `region` to `to` (width, height), of which only `window` is made; `None` if that is too large for memory.
/// No side may be 0, and regions must lie in what they are regions of.
fn resized_window(
    image: &RgbImage,
    region: Region,
    to: (u32, u32),
    window: Region,
    interpolation: Interpolation,
) -> Option<RgbImage> {
    if (region.width, region.height) == to {
        let (left, top) = (region.left + window.left, region.top + window.top);
        let cut = View { region: Region { left, top, ..window }, ..View::of(image) };
        let rows: Vec<&[u8]> = (0..window.height as usize).map(|y| cut.row(y)).collect();
        return RgbImage::from_raw(window.width, window.height, rows.concat());
    }
    let view = View { region, ..View::of(image) };
    RgbImage::from_raw(window.width, window.height, resample(view, to, window, interpolation))
}

/// [`resize`] to `resized` (width, height), then [`center_crop`] to `width` x `height`: the same pixels, but those that
/// the crop leaves out are not made.
///
/// # Errors
/// As [`resize`].
pub(crate) fn resize_and_crop(
    image: &RgbImage,
    resized: (u32, u32),
    (width, height): (u32, u32),
    interpolation: Interpolation,
) -> Result<RgbImage, InputError> {
    let (full_width, full_height) = resized;
    let fits = (1..=full_width).contains(&width) && (1..=full_height).contains(&height);
    let in_memory = u64::from(full_width) * u64::from(full_height) <= MAX_PIXELS;
    if fits && in_memory && image.width() > 0 && image.height() > 0 {
        let left = half_rounded_to_even(full_width - width);
        let top = half_rounded_to_even(full_height - height);
        let whole = Region { left: 0, top: 0, width: image.width(), height: image.height() };
        let window = Region { left, top, width, height };
        if let Some(cropped) = resized_window(image, whole, resized, window, interpolation) {
            return Ok(cropped);
        }
    }
    Ok(center_crop(&resize(image, full_width, full_height, interpolation)?, width, height))
}

/// Cuts `width` x `height` pixels out of the middle, padding with black where the image is smaller.
///
/// Offsets are torchvision's `center_crop`: half the difference, rounded to even; an odd row or column of
/// padding goes to the bottom or right.
pub fn center_crop(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let mut image = Cow::Borrowed(image);
    if width > image.width() || height > image.height() {
        let (full_width, full_height) = (width.max(image.width()), height.max(image.height()));
        let mut padded = RgbImage::new(full_width, full_height);
        let left = (full_width - image.width()) / 2;
        let top = (full_height - image.height()) / 2;
        imageops::replace(&mut padded, &*image, left.into(), top.into());
        image = Cow::Owned(padded);
    }
    if image.dimensions() == (width, height) {
        return image.into_owned();
    }
    let left = half_rounded_to_even(image.width() - width);
    let top = half_rounded_to_even(image.height() - height);
    imageops::crop_imm(&*image, left, top, width, height).to_image()
}

/// `round(n / 2)` as Python rounds: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2.
pub(crate) fn half_rounded_to_even(n: u32) -> u32 {
    let half = n / 2;
    half + (n % 2) * (half % 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_as_in_python() {
        let rounded: Vec<u32> = (0..10).map(half_rounded_to_even).collect();
        assert_eq!(rounded, [0, 0, 1, 2, 2, 2, 3, 4, 4, 4]);
    }

    #[test]
    fn impossible_sizes_are_errors_with_the_sizes() {
        let image = RgbImage::new(4, 3);
        let text = resize(&image, 0, 5, Interpolation::Bilinear).unwrap_err().to_string();
        assert_eq!(text, "cannot resize: from 4x3 to 0x5 pixels");
        let region = Region { left: 2, top: 0, width: 3, height: 3 };
        let text = resized_crop(&image, region, 2, 2, Interpolation::Nearest).unwrap_err().to_string();
        assert_eq!(text, "cannot resize: the region 3x3 at (2, 0) reaches beyond the image's 4x3");
    }
}
