//! A batch of images as a graph takes it: normalised floats, channels first, or bytes, channels last.

use std::fmt;

use ndarray::{Array4, ArrayView4, Axis, Slice, s};

/// Images for one run.
#[derive(Debug, Clone, Copy)]
pub enum Batch<'a> {
    /// Normalised: `[N, C, H, W]`.
    Floats(ArrayView4<'a, f32>),
    /// As decoded, at the network's size: `[N, H, W, 3]`. The graph normalises them itself.
    Pixels(ArrayView4<'a, u8>),
}

impl<'a> From<ArrayView4<'a, f32>> for Batch<'a> {
    fn from(images: ArrayView4<'a, f32>) -> Self {
        Self::Floats(images)
    }
}

impl<'a> From<ArrayView4<'a, u8>> for Batch<'a> {
    fn from(images: ArrayView4<'a, u8>) -> Self {
        Self::Pixels(images)
    }
}

impl Batch<'_> {
    /// Its axes.
    pub fn shape(&self) -> [usize; 4] {
        match self {
            Self::Floats(images) => images.dim().into(),
            Self::Pixels(images) => images.dim().into(),
        }
    }

    /// What the images are made of.
    pub fn element(&self) -> Element {
        match self {
            Self::Floats(_) => Element::Float,
            Self::Pixels(_) => Element::Byte,
        }
    }

    /// Calls `each` with `size` images at a time, the last ones filled up with zeros, and how many of them count.
    pub(crate) fn in_pieces<E>(
        &self,
        size: usize,
        mut each: impl FnMut(Batch<'_>, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        for start in (0..self.shape()[0]).step_by(size) {
            let rows = size.min(self.shape()[0] - start);
            let range = Slice::from(start..start + rows);
            match self {
                Self::Floats(images) => {
                    let filled = filled(images.slice_axis(Axis(0), range), size);
                    each(filled.view().into(), rows)?;
                }
                Self::Pixels(images) => {
                    let filled = filled(images.slice_axis(Axis(0), range), size);
                    each(filled.view().into(), rows)?;
                }
            }
        }
        Ok(())
    }
}

fn filled<T: Copy + Default>(images: ArrayView4<'_, T>, size: usize) -> Array4<T> {
    let (rows, a, b, c) = images.dim();
    let mut full = Array4::from_elem((size, a, b, c), T::default());
    full.slice_mut(s![..rows, .., .., ..]).assign(&images);
    full
}

/// What a graph's images are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats, normalised, `[N, C, H, W]`.
    Float,
    /// Bytes, `[N, H, W, 3]`.
    Byte,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "float32",
            Self::Byte => "uint8",
        })
    }
}
