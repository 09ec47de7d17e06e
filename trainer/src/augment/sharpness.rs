//! Sharpness with Pillow's arithmetic, equal to the bit: the image is blended with a smoothed version of itself
//! (Haeberli & Voorhies 1994).

use image::{Rgb, RgbImage};

use super::color::blend;

/// Pillow's `SMOOTH`: a 3x3 mean in which the pixel itself counts five times.
const CENTER: f32 = 5.0 / 13.0;
const AROUND: f32 = 1.0 / 13.0;

/// Factor 0 smooths, 1 keeps, beyond 1 sharpens. The outermost pixels stay.
pub(super) fn adjust_sharpness(image: &mut RgbImage, factor: f32) {
    let (width, height) = image.dimensions();
    if width < 3 || height < 3 {
        return;
    }
    let source = image.clone();
    let row = |x: u32, y: u32, channel: usize, center: f32| {
        let value = |x: u32| f32::from(source.get_pixel(x, y).0[channel]);
        value(x - 1) * AROUND + value(x) * center + value(x + 1) * AROUND
    };
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let pixel = source.get_pixel(x, y).0;
            let sharpened = std::array::from_fn(|channel| {
                // Single precision, from the lower row up, as Pillow sums: the last bit depends on it.
                let smooth = 0.5 + row(x, y + 1, channel, AROUND) + row(x, y, channel, CENTER);
                let smooth = (smooth + row(x, y - 1, channel, AROUND)) as u8;
                blend(smooth, pixel[channel], factor)
            });
            image.put_pixel(x, y, Rgb(sharpened));
        }
    }
}
