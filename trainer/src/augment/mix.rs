//! Images mixed of two each, within a batch: mixup (Zhang et al. 2018, "mixup: Beyond empirical risk minimization",
//! section 2) and CutMix (Yun et al. 2019, section 3.1 and algorithm 1), drawn once for a batch as timm's `Mixup` does
//! in its mode `batch`: the partner of image i of N is image N − 1 − i.

use serde::{Deserialize, Serialize};
use tallow_builder::Rng;

use crate::data::{Batch, Images};
use crate::error::{Error, Result};

/// How the images of a batch are mixed. An α of 0 leaves a method out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// Mixup's α: the share of an image in the sum of two is drawn from Beta(α, α).
    pub mixup: f64,
    /// CutMix's α: the share of an image that a box of another leaves is drawn from Beta(α, α).
    pub cutmix: f64,
    /// Probability that a batch is mixed at all.
    pub probability: f64,
    /// Probability of CutMix instead of mixup, where both are on.
    pub switch: f64,
}

impl Default for Mix {
    /// Nothing is mixed; timm's probabilities for what is switched on.
    fn default() -> Self {
        Self { mixup: 0.0, cutmix: 0.0, probability: 1.0, switch: 0.5 }
    }
}

/// What a mixed batch shows besides its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixed {
    /// The other class of each image.
    pub others: Vec<u32>,
    /// Share of the batch's own labels, which are the dominant ones: at least ½.
    pub share: f64,
}

/// What is done to one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Draw {
    /// Each image stays.
    Nothing,
    /// Each image keeps this share and takes the rest of its partner.
    Mixup(f64),
    /// Each image takes the pixels in a box of its partner.
    CutMix(Cut),
}

/// A box of pixels: rows and columns, the ends excluded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub rows: (usize, usize),
    pub columns: (usize, usize),
}

impl Cut {
    /// The box of area 1 − `share` around `center` (row, column), as far as it lies in the image.
    pub(super) fn around(center: (usize, usize), share: f64, height: usize, width: usize) -> Self {
        let side = (1.0 - share).sqrt();
        let clipped = |center: usize, length: usize| {
            let cut = (length as f64 * side) as usize;
            (center.saturating_sub(cut / 2), (center + cut.div_ceil(2)).min(length))
        };
        Self { rows: clipped(center.0, height), columns: clipped(center.1, width) }
    }

    /// What the box leaves of an image: λ, corrected to the area that it really has.
    pub(super) fn share(&self, height: usize, width: usize) -> f64 {
        let area = (self.rows.1 - self.rows.0) * (self.columns.1 - self.columns.0);
        1.0 - area as f64 / (height * width) as f64
    }
}

impl Mix {
    /// Refuses numbers that are no α and no probability.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            if !(value >= 0.0 && value.is_finite()) {
                let remedy = "choose a number above 0, such as 0.2 or 1, or 0 for none";
                return Err(Error::Setting { name, value: value.to_string(), remedy });
            }
        }
        for (name, value) in [("mix.probability", self.probability), ("mix.switch", self.switch)] {
            if !(0.0..=1.0).contains(&value) {
                let remedy = "a probability lies between 0 and 1";
                return Err(Error::Setting { name, value: value.to_string(), remedy });
            }
        }
        Ok(())
    }

    /// Mixes a batch; what is drawn comes from the batch's own generator. Labels become the dominant ones.
    pub(crate) fn apply(&self, batch: &mut Batch, rng: &mut Rng) {
        self.draw(batch.height, batch.width, rng).apply(batch);
    }

    fn draw(&self, height: usize, width: usize, rng: &mut Rng) -> Draw {
        let (mixup, cutmix) = (self.mixup > 0.0, self.cutmix > 0.0);
        if !(mixup || cutmix) || !rng.chance(self.probability) {
            return Draw::Nothing;
        }
        if cutmix && (!mixup || rng.chance(self.switch)) {
            let share = rng.beta(self.cutmix, self.cutmix);
            Draw::CutMix(Cut::around((rng.below(height), rng.below(width)), share, height, width))
        } else {
            Draw::Mixup(rng.beta(self.mixup, self.mixup))
        }
    }
}

impl Draw {
    pub(super) fn apply(self, batch: &mut Batch) {
        let (height, width) = (batch.height, batch.width);
        let share = match self {
            Self::Nothing => return,
            Self::Mixup(share) => share,
            Self::CutMix(cut) => cut.share(height, width),
        };
        let len = 3 * height * width;
        match (self, &mut batch.images) {
            (Self::CutMix(cut), Images::Floats(images)) => {
                partners(images, len, |one, other| swap(one, other, cut, height, width));
            }
            (Self::CutMix(cut), Images::Bytes(images)) => {
                let mut mirrored = images.mirrored.iter().zip(images.mirrored.iter().rev());
                partners(&mut images.pixels, len, |one, other| {
                    let mirrored =
                        mirrored.next().map_or([false; 2], |(&one, &other)| [one != 0, other != 0]);
                    swap_pixels(one, other, mirrored, cut, width);
                });
            }
            (_, Images::Floats(images)) => blend_partners(images, len, share),
            // Bytes are too coarse for it: left to whoever normalises them.
            (_, Images::Bytes(images)) => images.share = Some(share),
        }
        let others: Vec<u32> = batch.labels.iter().rev().copied().collect();
        let (labels, others, share) = if share < 0.5 {
            (others, std::mem::take(&mut batch.labels), 1.0 - share)
        } else {
            (std::mem::take(&mut batch.labels), others, share)
        };
        batch.labels = labels;
        batch.mixed = Some(Mixed { others, share });
    }
}

/// Does something to the first and last image of a batch, to the second and the last but one, and so on. An odd batch's
/// middle image is its own partner and stays as it is.
fn partners<T>(images: &mut [T], len: usize, mut mix: impl FnMut(&mut [T], &mut [T])) {
    let n = images.len() / len.max(1);
    for i in 0..n / 2 {
        let (front, back) = images.split_at_mut((n - 1 - i) * len);
        mix(&mut front[i * len..(i + 1) * len], &mut back[..len]);
    }
}

/// Mixup of images of `len` numbers, each of which keeps this share.
pub(crate) fn blend_partners(images: &mut [f32], len: usize, share: f64) {
    partners(images, len, |one, other| blend(one, other, share));
}

fn blend(one: &mut [f32], other: &mut [f32], share: f64) {
    let (share, rest) = (share as f32, (1.0 - share) as f32);
    for (a, b) in one.iter_mut().zip(other) {
        (*a, *b) = (*a * share + *b * rest, *b * share + *a * rest);
    }
}

fn swap(one: &mut [f32], other: &mut [f32], cut: Cut, height: usize, width: usize) {
    for plane in 0..3 {
        for row in cut.rows.0..cut.rows.1 {
            let start = (plane * height + row) * width;
            let pixels = start + cut.columns.0..start + cut.columns.1;
            one[pixels.clone()].swap_with_slice(&mut other[pixels]);
        }
    }
}

/// As [`swap`], of interleaved pixels that may have to be mirrored to be what is seen.
fn swap_pixels(one: &mut [u8], other: &mut [u8], mirrored: [bool; 2], cut: Cut, width: usize) {
    for row in cut.rows.0..cut.rows.1 {
        for column in cut.columns.0..cut.columns.1 {
            let [a, b] = mirrored
                .map(|mirrored| 3 * (row * width + if mirrored { width - 1 - column } else { column }));
            one[a..a + 3].swap_with_slice(&mut other[b..b + 3]);
        }
    }
}
