//! im2col and its transpose: the pixels that a convolution's window sees, laid out as columns of a matrix.
//!
//! The matrix has a row for each (channel, kernel row, kernel column) and a column for each output pixel. It is made
//! a tile of whole output rows at a time, so that a tile stays in the cache until the product has read it.

use std::ops::Range;

use crate::graph::Window;

/// The shapes of one convolution.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub window: Window,
    pub groups: usize,
    pub images: usize,
    /// Channels, rows and columns of the input.
    pub input: [usize; 3],
    /// Channels, rows and columns of the output.
    pub output: [usize; 3],
}

/// Floats that a tile aims at: half of a 2 MiB second-level cache.
const TILE: usize = 256 * 1024;
/// Fewest columns of a tile, below which a product spends its time packing the weights.
const FEWEST_COLUMNS: usize = 192;

impl Geometry {
    /// Input channels that a filter sees.
    pub fn group_inputs(&self) -> usize {
        self.input[0] / self.groups
    }

    /// Filters of a group.
    pub fn group_outputs(&self) -> usize {
        self.output[0] / self.groups
    }

    /// Rows of the column matrix: numbers a filter has.
    pub fn depth(&self) -> usize {
        self.group_inputs() * self.window.kernel[0] * self.window.kernel[1]
    }

    /// Pixels of one output map.
    pub fn pixels(&self) -> usize {
        self.output[1] * self.output[2]
    }

    /// Numbers of one input image.
    pub fn input_size(&self) -> usize {
        self.input.iter().product()
    }

    /// Numbers of one output image.
    pub fn output_size(&self) -> usize {
        self.output.iter().product()
    }

    /// True where the columns are the input itself: a 1×1 window at every pixel.
    pub fn is_pointwise(&self) -> bool {
        self.window.kernel == [1, 1] && self.window.stride == [1, 1] && self.window.pads.is_zero()
    }

    /// True where each filter sees one channel.
    pub fn is_depthwise(&self) -> bool {
        self.groups == self.input[0]
    }

    /// Images that one tile holds where a single one is too small to fill it.
    pub fn images_per_tile(&self) -> usize {
        (self.columns_per_tile() / self.pixels()).max(1)
    }

    fn columns_per_tile(&self) -> usize {
        // A pointwise convolution needs no columns unless its images are too small to be products of their own.
        if self.is_pointwise() && self.pixels() >= 64 {
            return self.pixels();
        }
        (TILE / self.depth()).max(FEWEST_COLUMNS)
    }

    /// Splits the output rows of `images` consecutive images into tiles. A row is numbered image·height + y; a tile
    /// holds whole images, or lies within one.
    pub fn tiles(&self, images: usize) -> Vec<Range<usize>> {
        let height = self.output[1];
        let together = self.images_per_tile();
        if self.columns_per_tile() >= self.pixels() {
            let step = together * height;
            return (0..images * height).step_by(step).map(|r| r..(r + step).min(images * height)).collect();
        }
        let rows = (self.columns_per_tile() / self.output[2]).max(1);
        let even = height.div_ceil(height.div_ceil(rows));
        let within = (0..height).step_by(even).map(|y| y..(y + even).min(height));
        (0..images)
            .flat_map(|i| within.clone().map(move |r| i * height + r.start..i * height + r.end))
            .collect()
    }

    /// For a kernel column, the output columns that read inside the image, and the input column of the first.
    fn inside(&self, kx: usize) -> (Range<usize>, usize) {
        let (stride, width) = (self.window.stride[1], self.input[2]);
        let (offset, left) = (kx * self.window.dilation[1], self.window.pads.left);
        let first = left.saturating_sub(offset).div_ceil(stride);
        let end = (width + left).saturating_sub(offset).div_ceil(stride).min(self.output[2]);
        (first..end.max(first), (first * stride + offset).saturating_sub(left))
    }

    /// The input row that kernel row `ky` reads for output row `y`, if it is inside the image.
    fn input_row(&self, y: usize, ky: usize) -> Option<usize> {
        let row = y * self.window.stride[0] + ky * self.window.dilation[0];
        row.checked_sub(self.window.pads.top).filter(|&row| row < self.input[1])
    }

    /// Calls `visit` for each row segment of a tile: where it starts in the column matrix, its output columns inside
    /// the image, and where the first of them lies in `images` (`None` where the whole segment is padding).
    #[inline(always)]
    fn segments(
        &self,
        group: usize,
        rows: &Range<usize>,
        mut visit: impl FnMut(usize, Range<usize>, Option<usize>),
    ) {
        let [channels, in_height, in_width] = self.input;
        let [_, out_height, out_width] = self.output;
        let columns = rows.len() * out_width;
        let inside: Vec<_> = (0..self.window.kernel[1]).map(|kx| self.inside(kx)).collect();
        let mut depth = 0;
        for channel in group * self.group_inputs()..(group + 1) * self.group_inputs() {
            for ky in 0..self.window.kernel[0] {
                for (xs, first) in &inside {
                    for (i, row) in rows.clone().enumerate() {
                        let (image, y) = (row / out_height, row % out_height);
                        let source = self.input_row(y, ky).filter(|_| !xs.is_empty()).map(|in_row| {
                            ((image * channels + channel) * in_height + in_row) * in_width + first
                        });
                        visit(depth * columns + i * out_width, xs.clone(), source);
                    }
                    depth += 1;
                }
            }
        }
    }

    /// im2col: writes the tile `rows` of a group of `images` to `columns` (depth × rows·width).
    pub fn gather(&self, images: &[f32], group: usize, rows: &Range<usize>, columns: &mut [f32]) {
        let (width, stride) = (self.output[2], self.window.stride[1]);
        self.segments(group, rows, |start, xs, source| {
            let segment = &mut columns[start..start + width];
            let Some(source) = source else {
                segment.fill(0.0);
                return;
            };
            segment[..xs.start].fill(0.0);
            segment[xs.end..].fill(0.0);
            let count = xs.len();
            let inside = &mut segment[xs];
            if stride == 1 {
                copy(inside, &images[source..source + count]);
            } else {
                for (value, pixel) in inside.iter_mut().zip(images[source..].iter().step_by(stride)) {
                    *value = *pixel;
                }
            }
        });
    }

    /// col2im: adds the tile's columns to the pixels they were taken from.
    pub fn scatter(&self, columns: &[f32], group: usize, rows: &Range<usize>, images: &mut [f32]) {
        let (width, stride) = (self.output[2], self.window.stride[1]);
        self.segments(group, rows, |start, xs, source| {
            let Some(source) = source else { return };
            let inside = &columns[start..start + width][xs];
            if stride == 1 {
                for (pixel, value) in images[source..source + inside.len()].iter_mut().zip(inside) {
                    *pixel += *value;
                }
            } else {
                for (pixel, value) in images[source..].iter_mut().step_by(stride).zip(inside) {
                    *pixel += *value;
                }
            }
        });
    }

    /// Copies a tile's pixels of an output-shaped batch, whose maps lie apart, into rows of one matrix
    /// (filters × rows·width).
    pub fn pack_output(&self, images: &[f32], group: usize, rows: &Range<usize>, packed: &mut [f32]) {
        for (from, to) in self.output_runs(group, rows) {
            packed[to.clone()].copy_from_slice(&images[from..from + to.len()]);
        }
    }

    /// The reverse of [`Self::pack_output`].
    pub fn unpack_output(&self, packed: &[f32], group: usize, rows: &Range<usize>, images: &mut [f32]) {
        for (from, to) in self.output_runs(group, rows) {
            images[from..from + to.len()].copy_from_slice(&packed[to]);
        }
    }

    fn output_runs(&self, group: usize, rows: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let [channels, height, width] = self.output;
        let (pixels, filters, columns) = (self.pixels(), self.group_outputs(), rows.len() * width);
        let images = rows.start / height..rows.end.div_ceil(height);
        let first_image = images.start;
        (0..filters).flat_map(move |filter| {
            images.clone().map(move |image| {
                let start = filter * columns + (image - first_image) * pixels;
                ((image * channels + group * filters + filter) * pixels, start..start + pixels)
            })
        })
    }
}

/// A copy that is quick for the short rows of small maps, where a call to `memcpy` would cost more than the copy.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    if to.len() >= 16 {
        to.copy_from_slice(from);
    } else {
        for (a, b) in to.iter_mut().zip(from) {
            *a = *b;
        }
    }
}
