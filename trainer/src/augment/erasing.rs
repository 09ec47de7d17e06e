//! Random erasing (Zhong et al. 2020, "Random erasing data augmentation", algorithm 1): a box of the normalised image
//! is overwritten, with the sizes of torchvision's and timm's `RandomErasing` and timm's fillings.

use serde::{Deserialize, Serialize};
use tallow_builder::Rng;

use crate::error::{Error, Result};

/// Overwrites a random box, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomErasing {
    /// Probability that an image loses a box.
    pub probability: f64,
    /// Least and largest share of the image's area.
    pub scale: (f64, f64),
    /// Least and largest height / width; uniform in its logarithm.
    pub ratio: (f64, f64),
    /// What stands in the box.
    pub fill: Fill,
}

/// What an erased box holds, after normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// 0, the mean colour.
    Const,
    /// One colour, each channel standard normal.
    Rand,
    /// Noise, each value standard normal.
    Pixel,
}

impl Default for RandomErasing {
    /// torchvision's probability, sizes and shapes, and noise, which the paper finds best (its table 3).
    fn default() -> Self {
        Self { probability: 0.5, scale: (0.02, 0.33), ratio: (0.3, 3.3), fill: Fill::Pixel }
    }
}

/// Tries to fit a box before the image is left alone.
const TRIES: usize = 10;

/// Where a box lies: rows and columns, the ends excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub rows: (usize, usize),
    pub columns: (usize, usize),
}

impl RandomErasing {
    pub(super) fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.probability) {
            let value = self.probability.to_string();
            let remedy = "a probability lies between 0 and 1";
            return Err(Error::Setting { name: "random_erasing.probability", value, remedy });
        }
        let remedy = "shares of the area: [least, largest], above 0 and at most 1";
        let ranges = [
            ("random_erasing.scale", self.scale, 1.0, remedy),
            ("random_erasing.ratio", self.ratio, f64::MAX, "height / width: [least, largest], above 0"),
        ];
        for (name, (low, high), most, remedy) in ranges {
            if !(low > 0.0 && low <= high && high <= most) {
                return Err(Error::Setting { name, value: format!("[{low}, {high}]"), remedy });
            }
        }
        Ok(())
    }

    /// Erases a box of an image (3, height, width), or nothing.
    pub(super) fn apply(&self, image: &mut [f32], height: usize, width: usize, rng: &mut Rng) {
        if rng.chance(self.probability)
            && let Some(area) = self.area(height, width, rng)
        {
            self.fill(image, height, width, area, rng);
        }
    }

    /// A random box that leaves something of every row and column; `None` if no try fits.
    pub(super) fn area(&self, height: usize, width: usize, rng: &mut Rng) -> Option<Area> {
        let whole = (height * width) as f64;
        for _ in 0..TRIES {
            let target = whole * rng.uniform_in(self.scale.0, self.scale.1);
            let aspect = rng.uniform_in(self.ratio.0.ln(), self.ratio.1.ln()).exp();
            let h = (target * aspect).sqrt().round_ties_even() as usize;
            let w = (target / aspect).sqrt().round_ties_even() as usize;
            if h < height && w < width {
                let (top, left) = (rng.below(height - h + 1), rng.below(width - w + 1));
                return Some(Area { rows: (top, top + h), columns: (left, left + w) });
            }
        }
        None
    }

    fn fill(&self, image: &mut [f32], height: usize, width: usize, area: Area, rng: &mut Rng) {
        for plane in image.chunks_exact_mut(height * width) {
            let color = if self.fill == Fill::Rand { rng.normal() as f32 } else { 0.0 };
            for row in area.rows.0..area.rows.1 {
                for value in &mut plane[row * width..][area.columns.0..area.columns.1] {
                    *value = if self.fill == Fill::Pixel { rng.normal() as f32 } else { color };
                }
            }
        }
    }
}
