//! Shapes of one sample, and padding.

use serde::{Deserialize, Serialize};

/// The shape of one sample; the batch axis comes before it and is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A feature map, or an image: channels × height × width.
    Map {
        /// Channels.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A vector of features, or logits.
    Vector {
        /// Length.
        features: usize,
    },
}

impl Shape {
    /// A feature map of channels × height × width.
    pub fn map(channels: usize, height: usize, width: usize) -> Self {
        Self::Map { channels, height, width }
    }

    /// A vector.
    pub fn vector(features: usize) -> Self {
        Self::Vector { features }
    }

    /// Number of elements of one sample.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Channels of a feature map, length of a vector.
    pub fn channels(&self) -> usize {
        match *self {
            Self::Map { channels, .. } => channels,
            Self::Vector { features } => features,
        }
    }

    /// The dimensions without the batch axis.
    pub fn dims(&self) -> Vec<usize> {
        match *self {
            Self::Map { channels, height, width } => vec![channels, height, width],
            Self::Vector { features } => vec![features],
        }
    }

    /// The dimensions with a batch axis before them.
    pub fn with_batch(&self, batch: usize) -> Vec<usize> {
        std::iter::once(batch).chain(self.dims()).collect()
    }

    pub(crate) fn dims_text(&self) -> String {
        self.dims().iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.dims().iter().map(usize::to_string).collect();
        f.pad(&texts.join("×"))
    }
}

/// Zero rows and columns added around a feature map: what every [`Padding`] resolves to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Pads {
    /// The same number of rows or columns on every side.
    pub fn all(pad: usize) -> Self {
        Self { top: pad, bottom: pad, left: pad, right: pad }
    }

    /// True where nothing is added.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// Rows above, columns to the left, rows below, columns to the right: ONNX's order.
    pub fn onnx(&self) -> [usize; 4] {
        [self.top, self.left, self.bottom, self.right]
    }
}

/// How a layer pads, as its author writes it. It resolves to [`Pads`] when the layer is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many rows and columns on each side.
    Explicit(Pads),
    /// None: only places where the whole window fits.
    Valid,
    /// TensorFlow's SAME: the output has ⌈input / stride⌉ places, and an odd pixel goes to the bottom and right.
    Same,
}

impl From<usize> for Padding {
    fn from(pad: usize) -> Self {
        Self::Explicit(Pads::all(pad))
    }
}

impl From<Pads> for Padding {
    fn from(pads: Pads) -> Self {
        Self::Explicit(pads)
    }
}

impl Padding {
    /// The rows and columns this stands for, for an input of `size` [height, width] pixels.
    pub fn resolve(self, size: [usize; 2], window: &Window) -> Pads {
        match self {
            Self::Explicit(pads) => pads,
            Self::Valid => Pads::default(),
            Self::Same => {
                let total = |axis: usize| {
                    let places = size[axis].div_ceil(window.stride[axis]).max(1);
                    ((places - 1) * window.stride[axis] + window.extent(axis)).saturating_sub(size[axis])
                };
                let (rows, columns) = (total(0), total(1));
                Pads {
                    top: rows / 2,
                    bottom: rows - rows / 2,
                    left: columns / 2,
                    right: columns - columns / 2,
                }
            }
        }
    }
}

/// A sliding window: what convolutions and pools have in common. Each pair is [height, width].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Size of the kernel.
    pub kernel: [usize; 2],
    /// Step between places.
    pub stride: [usize; 2],
    /// Step between the kernel's elements.
    pub dilation: [usize; 2],
    /// Padding around the input.
    pub pads: Pads,
}

impl Window {
    /// Pixels that the dilated kernel spans along an axis (0 is height).
    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis].max(1) - 1) * self.dilation[axis] + 1
    }

    /// Height and width of the output, or `None` where the window does not fit into the padded input.
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let padded = [height + self.pads.top + self.pads.bottom, width + self.pads.left + self.pads.right];
        let places = |axis: usize| {
            padded[axis].checked_sub(self.extent(axis)).map(|room| room / self.stride[axis] + 1)
        };
        Some([places(0)?, places(1)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: usize) -> Window {
        Window { kernel: [kernel; 2], stride: [stride; 2], dilation: [1; 2], pads: Pads::default() }
    }

    #[test]
    fn same_puts_the_odd_pixel_right_and_bottom() {
        // 224 at kernel 3, stride 2: 112 places need 225 pixels, so one row below and one column right.
        let pads = Padding::Same.resolve([224, 224], &window(3, 2));
        assert_eq!(pads, Pads { top: 0, bottom: 1, left: 0, right: 1 });
        assert_eq!(Padding::Same.resolve([225, 225], &window(3, 2)), Pads::all(1));
        assert_eq!(Padding::Same.resolve([7, 8], &window(1, 2)), Pads::default());
    }

    #[test]
    fn same_gives_the_ceiling_of_input_over_stride() {
        for size in 1..40 {
            for kernel in 1..8 {
                for stride in 1..5 {
                    let mut w = window(kernel, stride);
                    w.pads = Padding::Same.resolve([size, size], &w);
                    assert_eq!(w.output(size, size), Some([size.div_ceil(stride); 2]));
                }
            }
        }
    }

    #[test]
    fn a_window_larger_than_its_padded_input_has_no_output() {
        assert_eq!(window(7, 1).output(6, 9), None);
        assert_eq!(Window { pads: Pads::all(1), ..window(7, 2) }.output(6, 9), Some([1, 3]));
    }
}
