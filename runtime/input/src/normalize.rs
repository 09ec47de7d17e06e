//! 8-bit pixels to the numbers a network sees: `(v / 255 - mean) / std` in f32, channel by channel.
//! Equal to torchvision's `ToTensor` and `Normalize` to the bit, through a table of the 256 values.
//! Layout: interleaved RGB in, planes (C, H, W) out.

use image::RgbImage;

use crate::error::InputError;

/// The 256 possible results for each channel.
#[derive(Debug, Clone)]
pub struct Normalizer {
    table: [[f32; 256]; 3],
}

impl Normalizer {
    /// For a mean and a standard deviation of pixels scaled to 0..1, in the order R, G, B.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Normalizer {
        let mut table = [[0.0; 256]; 3];
        for (channel, row) in table.iter_mut().enumerate() {
            for (value, slot) in row.iter_mut().enumerate() {
                *slot = (value as f32 / 255.0 - mean[channel]) / std[channel];
            }
        }
        Normalizer { table }
    }

    /// Writes an image as three planes: `out` has 3 · height · width numbers.
    ///
    /// # Errors
    /// [`InputError::BufferLength`] if `out` is longer or shorter.
    pub fn fill_chw(&self, image: &RgbImage, out: &mut [f32]) -> Result<(), InputError> {
        let pixels = image.width() as usize * image.height() as usize;
        if out.len() != 3 * pixels {
            return Err(InputError::BufferLength { expected: 3 * pixels, actual: out.len() });
        }
        let (red, rest) = out.split_at_mut(pixels);
        let (green, blue) = rest.split_at_mut(pixels);
        let [to_red, to_green, to_blue] = &self.table;
        let planes = red.iter_mut().zip(green).zip(blue);
        for (((r, g), b), pixel) in planes.zip(image.as_raw().chunks_exact(3)) {
            *r = to_red[usize::from(pixel[0])];
            *g = to_green[usize::from(pixel[1])];
            *b = to_blue[usize::from(pixel[2])];
        }
        Ok(())
    }
}

/// Normalises one image into `out`, planes of shape (3, height, width); for many images keep a [`Normalizer`].
///
/// # Errors
/// [`InputError::BufferLength`] if `out` has not 3 · height · width numbers.
pub fn fill_chw(image: &RgbImage, mean: [f32; 3], std: [f32; 3], out: &mut [f32]) -> Result<(), InputError> {
    Normalizer::new(mean, std).fill_chw(image, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_planes_and_a_wrong_buffer_is_an_error() {
        let image = RgbImage::from_raw(2, 1, vec![0, 51, 255, 255, 102, 0]).unwrap();
        let mut out = [9.0; 6];
        fill_chw(&image, [0.5, 0.0, 1.0], [0.5, 1.0, 0.25], &mut out).unwrap();
        assert_eq!(out, [-1.0, 1.0, 51.0 / 255.0, 102.0 / 255.0, 0.0, -4.0]);
        let text = fill_chw(&image, [0.0; 3], [1.0; 3], &mut out[..5]).unwrap_err().to_string();
        assert_eq!(text, "a buffer of 5 numbers was given for an image that needs 6");
    }
}
