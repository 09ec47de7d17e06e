//! Sharpness with Pillow's arithmetic, equal to the bit: the image is blended with a smoothed version of itself
//! (Haeberli & Voorhies 1994).

use image::RgbImage;

use super::color::blend;

/// Pillow's `SMOOTH`: a 3x3 mean in which the pixel itself counts five times.
const CENTER: f32 = 5.0 / 13.0;
const AROUND: f32 = 1.0 / 13.0;

/// Factor 0 smooths, 1 keeps, beyond 1 sharpens. The outermost pixels stay.
pub(super) fn adjust_sharpness(image: &mut RgbImage, factor: f32) {
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width < 3 || height < 3 {
        return;
    }
    let source = image.as_raw().clone();
    let length = 3 * width;
    let weighted = |at: usize, center: f32| {
        let value = |at: usize| f32::from(source[at]);
        value(at - 3) * AROUND + value(at) * center + value(at + 3) * AROUND
    };
    for (row, values) in image.chunks_exact_mut(length).enumerate().take(height - 1).skip(1) {
        for (column, value) in values.iter_mut().enumerate().take(length - 3).skip(3) {
            let at = row * length + column;
            // Single precision, from the lower row up, as Pillow sums: the last bit depends on it.
            let smooth = 0.5 + weighted(at + length, AROUND) + weighted(at, CENTER);
            let smooth = (smooth + weighted(at - length, AROUND)) as u8;
            *value = blend(smooth, source[at], factor);
        }
    }
}
