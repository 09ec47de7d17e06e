//! Tone curves with Pillow's arithmetic, equal to the bit: autocontrast, equalize, invert, posterize, solarize. Each
//! is a table of 256 values, for all channels alike or made of a channel's own histogram.

use image::RgbImage;

/// A table of what each value becomes.
type Curve = [u8; 256];

/// Stretches each channel so that its least value becomes 0 and its largest 255.
pub(super) fn autocontrast(image: &mut RgbImage) {
    each_channel(image, |counts| {
        let low = counts.iter().position(|&count| count > 0)?;
        let high = counts.iter().rposition(|&count| count > 0)?;
        if high <= low {
            return None;
        }
        let scale = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * scale;
        Some(std::array::from_fn(|value| (value as f64 * scale + offset) as u8))
    });
}

/// Makes each channel's values about equally frequent.
pub(super) fn equalize(image: &mut RgbImage) {
    each_channel(image, |counts| {
        let last = counts.iter().rfind(|&&count| count > 0)?;
        let step = (counts.iter().sum::<u64>() - last) / 255;
        if step == 0 {
            return None;
        }
        let mut n = step / 2;
        Some(std::array::from_fn(|value| {
            let level = (n / step).min(255) as u8;
            n += counts[value];
            level
        }))
    });
}

/// The negative.
pub(super) fn invert(image: &mut RgbImage) {
    image.iter_mut().for_each(|value| *value = 255 - *value);
}

/// Keeps the highest `bits` bits of each value.
pub(super) fn posterize(image: &mut RgbImage, bits: u32) {
    let mask = !((1u16 << (8 - bits.min(8))) - 1) as u8;
    image.iter_mut().for_each(|value| *value &= mask);
}

/// Inverts the values from `threshold` on.
pub(super) fn solarize(image: &mut RgbImage, threshold: f64) {
    for value in image.iter_mut().filter(|value| f64::from(**value) >= threshold) {
        *value = 255 - *value;
    }
}

/// Applies to each channel the curve that `curve` makes of its histogram; `None` leaves it alone.
fn each_channel(image: &mut RgbImage, curve: impl Fn(&[u64; 256]) -> Option<Curve>) {
    let mut counts = [[0u64; 256]; 3];
    for pixel in image.pixels() {
        for (counts, &value) in counts.iter_mut().zip(&pixel.0) {
            counts[usize::from(value)] += 1;
        }
    }
    let identity: Curve = std::array::from_fn(|value| value as u8);
    let curves = counts.map(|counts| curve(&counts).unwrap_or(identity));
    for pixel in image.pixels_mut() {
        for (curve, value) in curves.iter().zip(&mut pixel.0) {
            *value = curve[usize::from(*value)];
        }
    }
}
