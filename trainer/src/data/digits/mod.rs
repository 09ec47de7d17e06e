//! The embedded data set: UCI's optical digits, 1,797 grey images of 8x8 pixels in ten classes (CC BY 4.0).
//! One PNG sheet and a text of labels, written by `make_digits.py`; README.md here names source and licence.
//! Small enough to train on in seconds, and there when no other data is.

use image::{GrayImage, Luma, Rgb, RgbImage};

use super::{Dataset, Labelled, Sample};
use crate::error::Result;

/// Side of a digit in pixels.
const SIDE: u32 = 8;
static SHEET: &[u8] = include_bytes!("digits.png");
static LABELS: &str = include_str!("digits.txt");

/// UCI's optical digits: RGB images of 8x8 with the grey level in every channel, value 16 being 255.
pub struct Digits {
    sheet: GrayImage,
    labels: Vec<u32>,
    classes: Vec<String>,
}

impl Default for Digits {
    fn default() -> Self {
        Self::new()
    }
}

impl Digits {
    /// Unpacks the data set, in scikit-learn's order.
    pub fn new() -> Self {
        let sheet = image::load_from_memory_with_format(SHEET, image::ImageFormat::Png)
            .expect("the embedded PNG is whole: a test decodes it")
            .into_luma8();
        Self {
            sheet,
            labels: LABELS.chars().filter_map(|c| c.to_digit(10)).collect(),
            classes: (0..10).map(|digit| digit.to_string()).collect(),
        }
    }
}

impl Dataset for Digits {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn load(&self, index: usize) -> Result<Sample> {
        let columns = self.sheet.width() / SIDE;
        let (left, top) = (index as u32 % columns * SIDE, index as u32 / columns * SIDE);
        let image = RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let &Luma([grey]) = self.sheet.get_pixel(left + x, top + y);
            Rgb([grey; 3])
        });
        Ok(Sample { image, label: self.labels[index] })
    }

    fn origin(&self, index: usize) -> String {
        format!("digits #{index}")
    }

    fn known_label(&self, index: usize) -> Option<u32> {
        Some(self.label(index))
    }
}

impl Labelled for Digits {
    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a, 64 bits.
    fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn values_and_labels_are_scikit_learns() {
        let digits = Digits::new();
        assert_eq!(digits.len(), 1797);
        let values = (0..digits.len()).flat_map(|index| {
            let image = digits.load(index).unwrap().image;
            image
                .pixels()
                .map(|&Rgb([r, g, b])| {
                    assert!(r == g && g == b);
                    r
                })
                .collect::<Vec<_>>()
        });
        // Both hashes are of `load_digits().images` and `.target` as uint8.
        let values = values.map(|level| (f64::from(level) * 16.0 / 255.0).round() as u8);
        assert_eq!(fnv(values), 0x493f_a2f6_7df5_50a1);
        assert_eq!(fnv((0..digits.len()).map(|i| digits.label(i) as u8)), 0x5c66_ed87_5b0a_9785);
    }
}
