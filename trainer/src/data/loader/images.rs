//! A batch's images, as the network sees them or as 8-bit pixels with what is left to do to them: for a GPU that goes
//! four times as fast over the bus, and nearly all that is done to every pixel is done there.

use std::borrow::Cow;

use image::{RgbImage, imageops};
use tallow_input::Normalizer;

use crate::augment::blend_partners;

/// The images of a batch; the views of a sample come one after another.
#[derive(Clone, Debug, PartialEq)]
pub enum Images {
    /// (N · views, 3, height, width), normalised.
    Floats(Vec<f32>),
    /// What is not normalised yet.
    Bytes(Bytes),
}

/// Images of 8-bit pixels, and what is still to be done to them, in this order: mirror, normalise, blend.
#[derive(Clone, Debug, PartialEq)]
pub struct Bytes {
    /// (N · views, height, width, 3), red first.
    pub pixels: Vec<u8>,
    /// For each of the N samples 1 if its views are to be mirrored, else 0.
    pub mirrored: Vec<u8>,
    /// By what to normalise.
    pub scale: Scale,
    /// The share that image i keeps, and takes the rest from image N − 1 − i; `None` where images are not blended.
    pub share: Option<f64>,
}

/// Normalisation: v becomes (v / 255 − mean) / std.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Of pixels scaled to 0..1, in the order R, G, B.
    pub mean: [f32; 3],
    /// Likewise.
    pub std: [f32; 3],
}

impl Images {
    /// Room for so many samples of so many numbers each; bytes where it is said how to normalise them.
    pub(super) fn room(samples: usize, len: usize, bytes: Option<Scale>) -> Self {
        match bytes {
            None => Self::Floats(vec![0.0; samples * len]),
            Some(scale) => {
                let (pixels, mirrored) = (vec![0; samples * len], vec![0; samples]);
                Self::Bytes(Bytes { pixels, mirrored, scale, share: None })
            }
        }
    }

    /// Puts a sample, which is alone in `from`, at a position.
    pub(super) fn put(&mut self, position: usize, from: &Self) {
        match (self, from) {
            (Self::Floats(to), Self::Floats(from)) => put(to, position, from),
            (Self::Bytes(to), Self::Bytes(from)) => {
                put(&mut to.pixels, position, &from.pixels);
                put(&mut to.mirrored, position, &from.mirrored);
            }
            _ => unreachable!("all samples of an epoch are of one kind"),
        }
    }

    /// Drops all samples of `len` numbers but those at `positions`, which ascend.
    pub(super) fn keep(&mut self, positions: &[usize], len: usize) {
        match self {
            Self::Floats(values) => keep(values, positions, len),
            Self::Bytes(bytes) => {
                keep(&mut bytes.pixels, positions, len);
                keep(&mut bytes.mirrored, positions, 1);
            }
        }
    }

    /// (N · views, 3, height, width), normalised.
    pub(super) fn floats(&self, height: usize, width: usize) -> Cow<'_, [f32]> {
        match self {
            Self::Floats(values) => Cow::Borrowed(values),
            Self::Bytes(bytes) => Cow::Owned(bytes.floats(height, width)),
        }
    }
}

fn put<T: Copy>(to: &mut [T], position: usize, from: &[T]) {
    to[position * from.len()..][..from.len()].copy_from_slice(from);
}

fn keep<T: Copy>(values: &mut Vec<T>, positions: &[usize], len: usize) {
    for (to, from) in positions.iter().enumerate() {
        values.copy_within(from * len..(from + 1) * len, to * len);
    }
    values.truncate(positions.len() * len);
}

impl Bytes {
    /// The same numbers as where the host does everything.
    fn floats(&self, height: usize, width: usize) -> Vec<f32> {
        let normalizer = Normalizer::new(self.scale.mean, self.scale.std);
        let mut floats = vec![0.0; self.pixels.len()];
        let sample = self.pixels.len() / self.mirrored.len().max(1);
        let size = (3 * height * width).max(1);
        for (i, (out, pixels)) in
            floats.chunks_exact_mut(size).zip(self.pixels.chunks_exact(size)).enumerate()
        {
            let image = RgbImage::from_raw(width as u32, height as u32, pixels.to_vec());
            let mut image = image.expect("as many bytes as the image has");
            if self.mirrored[i * size / sample] != 0 {
                imageops::flip_horizontal_in_place(&mut image);
            }
            normalizer.fill_chw(&image, out).expect("as many numbers as the image has bytes");
        }
        if let Some(share) = self.share {
            blend_partners(&mut floats, sample, share);
        }
        floats
    }
}
