//! Random colours: torchvision's `ColorJitter` with Pillow's 8-bit arithmetic, equal to the bit.
//! Brightness, contrast and saturation blend the image with black, with its mean grey and with its grey version
//! (Haeberli & Voorhies 1994, "Image processing by interpolation and extrapolation"); hue turns the hue of HSV.

use image::RgbImage;
use serde::{Deserialize, Serialize};
use tallow_builder::Rng;

use crate::error::{Error, Result};

/// How far colours may stray. 0 leaves a property alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// The factor is uniform in [max(0, 1 − brightness), 1 + brightness].
    pub brightness: f64,
    /// The factor is uniform in [max(0, 1 − contrast), 1 + contrast].
    pub contrast: f64,
    /// The factor is uniform in [max(0, 1 − saturation), 1 + saturation].
    pub saturation: f64,
    /// The turn is uniform in [−hue, hue], where 1 is a full circle; at most 0.5.
    pub hue: f64,
}

impl ColorJitter {
    pub(super) fn validate(&self) -> Result<()> {
        let factors = [self.brightness, self.contrast, self.saturation];
        for (name, value) in ["brightness", "contrast", "saturation"].into_iter().zip(factors) {
            if !(value >= 0.0 && value.is_finite()) {
                let value = value.to_string();
                return Err(Error::Setting {
                    name,
                    value,
                    remedy: "how far the factor may stray from 1: at least 0",
                });
            }
        }
        if !(0.0..=0.5).contains(&self.hue) {
            let value = self.hue.to_string();
            return Err(Error::Setting {
                name: "hue",
                value,
                remedy: "part of a full circle: between 0 and 0.5",
            });
        }
        Ok(())
    }

    /// Applies the four changes in random order.
    pub(super) fn apply(&self, image: &mut RgbImage, rng: &mut Rng) {
        let mut order = [0, 1, 2, 3];
        rng.shuffle(&mut order);
        let mut factor = |spread: f64| rng.uniform_in((1.0 - spread).max(0.0), 1.0 + spread) as f32;
        let (brightness, contrast, saturation) =
            (factor(self.brightness), factor(self.contrast), factor(self.saturation));
        let turn = rng.uniform_in(-self.hue, self.hue);
        for change in order {
            match change {
                0 if self.brightness > 0.0 => adjust_brightness(image, brightness),
                1 if self.contrast > 0.0 => adjust_contrast(image, contrast),
                2 if self.saturation > 0.0 => adjust_saturation(image, saturation),
                3 if self.hue > 0.0 => adjust_hue(image, turn),
                _ => {}
            }
        }
    }
}

/// Blends `value` with `toward`: factor 1 keeps it, 0 gives `toward`, beyond 1 extrapolates; truncated to 8 bits.
pub(super) fn blend(toward: u8, value: u8, factor: f32) -> u8 {
    (f32::from(toward) + factor * (f32::from(value) - f32::from(toward))) as u8
}

/// ITU-R 601-2 luma in 16-bit fixed point.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

/// Blends with black.
pub(super) fn adjust_brightness(image: &mut RgbImage, factor: f32) {
    blend_all(image, 0, factor);
}

/// Blends with the grey of the image's mean luma.
pub(super) fn adjust_contrast(image: &mut RgbImage, factor: f32) {
    let sum: u64 = image.pixels().map(|pixel| u64::from(luma(pixel.0))).sum();
    let count = u64::from(image.width()) * u64::from(image.height());
    let mean = (sum as f64 / count.max(1) as f64 + 0.5) as u8;
    blend_all(image, mean, factor);
}

/// Blends every sample with the same value: 256 cases.
fn blend_all(image: &mut RgbImage, toward: u8, factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|value| blend(toward, value as u8, factor));
    image.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
}

/// Blends with the pixel's own grey.
pub(super) fn adjust_saturation(image: &mut RgbImage, factor: f32) {
    for pixel in image.pixels_mut() {
        let grey = luma(pixel.0);
        pixel.0 = pixel.0.map(|value| blend(grey, value, factor));
    }
}

/// Turns the hue by `turn` of a full circle, in steps of 1/255 as HSV with 8 bits has them.
pub(super) fn adjust_hue(image: &mut RgbImage, turn: f64) {
    let steps = (turn * 255.0) as i32 as u8;
    let turned: [HuePosition; 256] =
        std::array::from_fn(|hue| HuePosition::of((hue as u8).wrapping_add(steps)));
    for pixel in image.pixels_mut() {
        let [hue, saturation, value] = rgb_to_hsv(pixel.0);
        pixel.0 = hsv_to_rgb(&turned[usize::from(hue)], saturation, value);
    }
}

/// Where a hue lies on the circle: which sixth of it, and how far into that.
#[derive(Clone, Copy)]
struct HuePosition {
    sextant: u8,
    fraction: f64,
}

impl HuePosition {
    fn of(hue: u8) -> Self {
        let position = f64::from(hue) * 6.0 / 255.0;
        let sextant = position as u8;
        Self { sextant: sextant % 6, fraction: f64::from((position - f64::from(sextant)) as f32) }
    }
}

/// RGB to HSV (Smith 1978), all in 0..=255. Single and double precision where Pillow has them.
fn rgb_to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max == min {
        return [0, 0, max];
    }
    let range = f32::from(max - min);
    let saturation = range / f32::from(max);
    let distance = |channel: u8| f32::from(max - channel) / range;
    let sextant = if r == max {
        distance(b) - distance(g)
    } else if g == max {
        (2.0 + f64::from(distance(r)) - f64::from(distance(b))) as f32
    } else {
        (4.0 + f64::from(distance(g)) - f64::from(distance(r))) as f32
    };
    // At least 5/6 and below 2: the fraction is had without a call to the mathematics library.
    let turns = f64::from(sextant) / 6.0 + 1.0;
    let hue = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, max]
}

/// HSV to RGB, saturation and value in 0..=255.
fn hsv_to_rgb(hue: &HuePosition, saturation: u8, value: u8) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let saturation = f64::from((f64::from(saturation) / 255.0) as f32);
    // Rounds values that are not negative, halves up.
    let scaled = |factor: f64| (f64::from(value) * factor + 0.5) as u8;
    let p = scaled(1.0 - saturation);
    let q = scaled(1.0 - saturation * hue.fraction);
    let t = scaled(1.0 - saturation * (1.0 - hue.fraction));
    match hue.sextant {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}
