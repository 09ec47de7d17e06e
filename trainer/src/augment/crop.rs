//! Where to cut: torchvision's `RandomResizedCrop` (Szegedy et al. 2014, section 6) and the padded random crop of
//! the CIFAR recipe (He et al. 2015, section 4.2).
//! Only regions are chosen here; resizing is `tallow_input`'s.

use image::{RgbImage, imageops};
use serde::{Deserialize, Serialize};
use tallow_builder::Rng;
use tallow_input::Region;

use crate::error::{Error, Result};

/// Cuts out a part of random area and aspect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Least and largest share of the image's area.
    pub scale: (f64, f64),
    /// Least and largest width / height; uniform in its logarithm.
    pub ratio: (f64, f64),
}

impl Default for RandomResizedCrop {
    /// torchvision's: 8 to 100 % of the area, aspects from 3:4 to 4:3.
    fn default() -> Self {
        Self { scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) }
    }
}

/// Tries to fit a random region before falling back to the middle of the image.
const TRIES: usize = 10;

impl RandomResizedCrop {
    pub(super) fn validate(&self) -> Result<()> {
        let check = |name, (low, high): (f64, f64), most: f64, remedy| {
            let sound = low > 0.0 && low <= high && high <= most;
            if sound {
                Ok(())
            } else {
                Err(Error::Setting { name, value: format!("[{low}, {high}]"), remedy })
            }
        };
        check("scale", self.scale, 1.0, "shares of the area: [least, largest], above 0 and at most 1")?;
        check("ratio", self.ratio, f64::MAX, "width / height: [least, largest], above 0")
    }

    /// A random region of a `width` x `height` image.
    ///
    /// If no try fits, the largest centred region whose aspect is within `ratio`.
    pub(super) fn region(&self, width: u32, height: u32, rng: &mut Rng) -> Region {
        let (low, high) = self.ratio;
        let area = f64::from(width) * f64::from(height);
        for _ in 0..TRIES {
            let target = area * rng.uniform_in(self.scale.0, self.scale.1);
            let aspect = rng.uniform_in(low.ln(), high.ln()).exp();
            let w = (target * aspect).sqrt().round_ties_even();
            let h = (target / aspect).sqrt().round_ties_even();
            if w >= 1.0 && w <= f64::from(width) && h >= 1.0 && h <= f64::from(height) {
                let (w, h) = (w as u32, h as u32);
                let top = rng.below((height - h + 1) as usize) as u32;
                let left = rng.below((width - w + 1) as usize) as u32;
                return Region { left, top, width: w, height: h };
            }
        }
        let aspect = f64::from(width) / f64::from(height);
        let (w, h) = if aspect < low {
            (width, (f64::from(width) / low).round_ties_even() as u32)
        } else if aspect > high {
            ((f64::from(height) * high).round_ties_even() as u32, height)
        } else {
            (width, height)
        };
        // An extreme aspect can round to nothing or to one pixel too many.
        let (w, h) = (w.clamp(1, width.max(1)), h.clamp(1, height.max(1)));
        let (left, top) = (width.saturating_sub(w) / 2, height.saturating_sub(h) / 2);
        Region { left, top, width: w, height: h }
    }
}

/// Pads `pad` black pixels on every side and cuts the image's own size out at a random place.
pub(super) fn pad_and_crop(image: &RgbImage, pad: u32, rng: &mut Rng) -> RgbImage {
    let places = 2 * pad as usize + 1;
    let top = i64::from(pad) - rng.below(places) as i64;
    let left = i64::from(pad) - rng.below(places) as i64;
    let mut cropped = RgbImage::new(image.width(), image.height());
    imageops::replace(&mut cropped, image, left, top);
    cropped
}
