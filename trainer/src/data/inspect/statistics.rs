//! Numbers over all pixels, exact and independent of the order in which images are added.

use image::RgbImage;

/// Sums over images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Pixels so far.
    pixels: u64,
    sums: [u64; 3],
    squares: [u64; 3],
    /// Width and height of each image.
    sizes: Vec<(u32, u32)>,
}

/// The least, the middle and the largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Spread {
    /// The least.
    pub min: u32,
    /// The middle one; of an even count, the larger of the middle two.
    pub median: u32,
    /// The largest.
    pub max: u32,
}

impl Statistics {
    /// Adds an image.
    pub fn add(&mut self, image: &RgbImage) {
        self.pixels += u64::from(image.width()) * u64::from(image.height());
        self.sizes.push(image.dimensions());
        // Rows keep the sums small enough for 32 bits, which is faster.
        for row in image.as_raw().chunks(3 * 4096) {
            let (mut sums, mut squares) = ([0u32; 3], [0u64; 3]);
            for pixel in row.as_chunks::<3>().0 {
                for (channel, &level) in pixel.iter().enumerate() {
                    let level = u32::from(level);
                    sums[channel] += level;
                    squares[channel] += u64::from(level * level);
                }
            }
            for channel in 0..3 {
                self.sums[channel] += u64::from(sums[channel]);
                self.squares[channel] += squares[channel];
            }
        }
    }

    /// Adds the images of `other`.
    pub fn merge(mut self, mut other: Self) -> Self {
        self.pixels += other.pixels;
        for channel in 0..3 {
            self.sums[channel] += other.sums[channel];
            self.squares[channel] += other.squares[channel];
        }
        self.sizes.append(&mut other.sizes);
        self
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.sizes.len()
    }

    /// Mean of R, G, B over all pixels, on a scale of 0 to 1; `None` without pixels.
    pub fn mean(&self) -> Option<[f64; 3]> {
        (self.pixels > 0).then(|| self.sums.map(|sum| sum as f64 / self.pixels as f64 / 255.0))
    }

    /// Standard deviation of R, G, B over all pixels, on a scale of 0 to 1; `None` without pixels.
    pub fn std(&self) -> Option<[f64; 3]> {
        let mean = self.mean()?;
        Some(std::array::from_fn(|channel| {
            let square = self.squares[channel] as f64 / self.pixels as f64 / (255.0 * 255.0);
            (square - mean[channel] * mean[channel]).max(0.0).sqrt()
        }))
    }

    /// Columns and rows of the images; `None` without images.
    pub fn spread(&self) -> Option<[Spread; 2]> {
        let spread = |side: fn(&(u32, u32)) -> u32| {
            let mut sides: Vec<u32> = self.sizes.iter().map(side).collect();
            sides.sort_unstable();
            let (min, max) = (*sides.first()?, *sides.last()?);
            Some(Spread { min, median: sides[sides.len() / 2], max })
        };
        Some([spread(|size| size.0)?, spread(|size| size.1)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn mean_deviation_and_sizes_are_those_of_all_pixels() {
        let mut one = Statistics::default();
        one.add(&RgbImage::from_pixel(2, 1, Rgb([0, 100, 255])));
        let mut other = Statistics::default();
        other.add(&RgbImage::from_pixel(5000, 4, Rgb([255, 100, 255])));
        other.add(&RgbImage::from_pixel(3, 2, Rgb([0, 100, 255])));
        let all = one.clone().merge(other.clone());
        assert_eq!(
            (all.mean(), all.std()),
            (other.clone().merge(one.clone()).mean(), other.merge(one).std())
        );
        let share = 20_000.0 / 20_008.0;
        let [mean, std] = [all.mean().unwrap(), all.std().unwrap()];
        for (found, expected) in mean.iter().zip([share, 100.0 / 255.0, 1.0]) {
            assert!((found - expected).abs() < 1e-12, "{mean:?}");
        }
        for (found, expected) in std.iter().zip([(share * (1.0 - share)).sqrt(), 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-7, "{std:?}");
        }
        let [width, height] = all.spread().unwrap();
        assert_eq!(width, Spread { min: 2, median: 3, max: 5000 });
        assert_eq!(height, Spread { min: 1, median: 2, max: 4 });
        assert_eq!((Statistics::default().mean(), Statistics::default().spread()), (None, None));
    }
}
