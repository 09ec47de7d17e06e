//! One channel of one image, padded and split by the stride, so that every read of a sliding window is contiguous.
//!
//! For a horizontal stride s the columns of the padded plane are dealt into s phases (column x goes to phase x mod s).
//! What kernel column kx reads for output columns 0, 1, 2, … is then one run of one phase, whatever the stride and
//! the dilation, and the loops over it vectorise.

use super::cpu::LANES;
use crate::graph::Window;

/// The layout of a padded, phase-split plane.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    window: Window,
    /// Rows and columns of the unpadded plane.
    input: [usize; 2],
    /// Rows and columns of the window's output.
    output: [usize; 2],
    /// Padded rows that the window reaches.
    rows: usize,
    /// Columns of one phase, with room for whole vectors at the end.
    phase: usize,
}

impl Plane {
    pub fn new(window: Window, input: [usize; 2], output: [usize; 2]) -> Self {
        let reach = |axis: usize| (output[axis] - 1) * window.stride[axis] + window.extent(axis);
        let phase = reach(1).div_ceil(window.stride[1]) + LANES;
        Self { window, input, output, rows: reach(0), phase }
    }

    /// Floats of a buffer for the plane.
    pub fn len(&self) -> usize {
        self.rows * self.window.stride[1] * self.phase
    }

    /// Where each kernel element's run starts for output row 0, in the kernel's order. For output row y it starts
    /// [`Self::row_step`]·y later.
    pub fn taps(&self) -> Vec<usize> {
        let Window { kernel, stride, dilation, .. } = self.window;
        let tap = |ky: usize, kx: usize| {
            let column = kx * dilation[1];
            (ky * dilation[0] * stride[1] + column % stride[1]) * self.phase + column / stride[1]
        };
        (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| tap(ky, kx))).collect()
    }

    /// Distance in the buffer from one output row's runs to the next's.
    pub fn row_step(&self) -> usize {
        self.window.stride[0] * self.window.stride[1] * self.phase
    }

    /// Rows and columns of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Copies a plane into the buffer, `padding` around it.
    #[inline(always)]
    pub fn load(&self, plane: &[f32], padding: f32, buffer: &mut [f32]) {
        buffer.fill(padding);
        self.rows(|row, phase, start, columns| {
            let source = plane[row * self.input[1]..(row + 1) * self.input[1]].iter();
            let source = source.skip(phase).step_by(self.window.stride[1]);
            for (to, from) in buffer[start..start + columns].iter_mut().zip(source) {
                *to = *from;
            }
        });
    }

    /// Copies the buffer back to a plane, without its padding. Pixels that no window reaches become 0.
    #[inline(always)]
    pub fn store(&self, buffer: &[f32], plane: &mut [f32]) {
        plane.fill(0.0);
        self.rows(|row, phase, start, columns| {
            let target = plane[row * self.input[1]..(row + 1) * self.input[1]].iter_mut();
            let target = target.skip(phase).step_by(self.window.stride[1]);
            for (from, to) in buffer[start..start + columns].iter().zip(target) {
                *to = *from;
            }
        });
    }

    /// Visits every run that holds pixels: (image row, first image column, where the run starts in the buffer, how
    /// many pixels it has); pixels of a run are a stride apart in the image.
    #[inline(always)]
    fn rows(&self, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let Window { stride: [_, stride], pads, .. } = self.window;
        let room = self.phase - LANES;
        for row in 0..self.input[0].min(self.rows.saturating_sub(pads.top)) {
            for first in 0..stride.min(self.input[1]) {
                let padded = first + pads.left;
                let column = padded / stride;
                let columns = (self.input[1] - first).div_ceil(stride).min(room.saturating_sub(column));
                let start = ((row + pads.top) * stride + padded % stride) * self.phase + column;
                visit(row, first, start, columns);
            }
        }
    }
}
