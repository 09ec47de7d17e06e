//! The arithmetic of Pillow's `Image.resize` on 8-bit RGB, to the bit: fixed-point weights of 22 bits,
//! columns first, then rows, rounded and clipped to 8 bits after each pass.
//! The order is that of Pillow before 13.0, behind which published networks were trained (13.0 picks the
//! cheaper order, which moves some pixels by one level).

use std::ops::Range;

use image::RgbImage;

use crate::resize::{Interpolation, Region};

/// Bits of a weight's fraction: an i32 less 8 bits of pixel and 2 of headroom for a cubic's overshoot.
const FRACTION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (FRACTION_BITS - 1);

/// For each output position: the first input position and the weights from there on.
struct Taps {
    spans: Vec<(usize, usize)>,
    weights: Vec<i32>,
    stride: usize,
}

impl Taps {
    #[inline(always)]
    fn of(&self, output: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[output];
        (first, &self.weights[output * self.stride..][..count])
    }
}

/// A rectangle of an interleaved RGB image.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// The whole image.
    pub pixels: &'a [u8],
    /// Its columns.
    pub columns: usize,
    /// The rectangle; its sides are not 0.
    pub region: Region,
}

impl<'a> View<'a> {
    /// All of an image.
    pub fn of(image: &'a RgbImage) -> Self {
        let (width, height) = image.dimensions();
        Self {
            pixels: image.as_raw(),
            columns: width as usize,
            region: Region { left: 0, top: 0, width, height },
        }
    }

    /// A row of the rectangle.
    #[inline(always)]
    pub fn row(&self, y: usize) -> &'a [u8] {
        let Region { left, top, width, .. } = self.region;
        &self.pixels[3 * ((top as usize + y) * self.columns + left as usize)..][..3 * width as usize]
    }
}

/// Resizes a view to `to` (width, height), of which only the pixels of `window` are made. No side is 0.
pub(crate) fn resample(
    view: View<'_>,
    to: (u32, u32),
    window: Region,
    interpolation: Interpolation,
) -> Vec<u8> {
    let Region { width, height, .. } = view.region;
    let across = Axis { from: width, to: to.0, first: window.left, count: window.width };
    let down = Axis { from: height, to: to.1, first: window.top, count: window.height };
    let (filter, support): (fn(f64) -> f64, f64) = match interpolation {
        Interpolation::Nearest => return nearest(view, across, down),
        Interpolation::Bilinear => (triangle, 1.0),
        Interpolation::Bicubic => (cubic, 2.0),
    };
    let down_taps = taps(down, filter, support);
    let first = down_taps.spans.iter().map(|&(first, _)| first).min().unwrap_or(0);
    let last = down_taps.spans.iter().map(|&(first, count)| first + count).max().unwrap_or(0);
    let across_taps = taps(across, filter, support);
    pulp::Arch::new().dispatch(Passes { view, range: first..last, across: &across_taps, down: &down_taps })
}

/// Both passes, compiled for the best instruction set this machine has.
struct Passes<'a> {
    view: View<'a>,
    /// Rows that some output row is made of.
    range: Range<usize>,
    across: &'a Taps,
    down: &'a Taps,
}

impl pulp::WithSimd for Passes<'_> {
    type Output = Vec<u8>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> Vec<u8> {
        let first = self.range.start;
        let wide = columns(self.view, self.range, self.across);
        rows(&wide, self.across.spans.len(), first, self.down)
    }
}

/// The part of an axis that is made.
#[derive(Clone, Copy)]
struct Axis {
    from: u32,
    to: u32,
    /// The first output position.
    first: u32,
    /// How many.
    count: u32,
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution kernel with a = -0.5 (Keys 1981, equation 15).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The weights of one axis. When reducing, the filter is stretched by the reduction (antialiasing).
fn taps(axis: Axis, filter: fn(f64) -> f64, support: f64) -> Taps {
    let Axis { from, to, first, count } = axis;
    let (scale, from) = (f64::from(from) / f64::from(to), from as usize);
    let stretch = scale.max(1.0);
    let support = support * stretch;
    let stride = support.ceil() as usize * 2 + 1;
    let count = count as usize;
    let mut taps = Taps { spans: Vec::with_capacity(count), weights: vec![0; count * stride], stride };
    let mut exact = Vec::with_capacity(stride);
    for (output, weights) in (first..).zip(taps.weights.chunks_exact_mut(stride)) {
        let center = (f64::from(output) + 0.5) * scale;
        // Float to integer conversion truncates and saturates at 0, which is the clipping wanted here.
        let first = (center - support + 0.5) as usize;
        let last = ((center + support + 0.5) as usize).min(from);
        exact.clear();
        exact.extend((first..last).map(|at| filter((at as f64 - center + 0.5) * (1.0 / stretch))));
        let total: f64 = exact.iter().sum();
        for (weight, exact) in weights.iter_mut().zip(&exact) {
            let scaled = exact / total * f64::from(1u32 << FRACTION_BITS);
            *weight = (scaled + 0.5f64.copysign(scaled)) as i32;
        }
        taps.spans.push((first, last - first));
    }
    taps
}

#[inline(always)]
fn to_pixel(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Resizes each of some rows. A pixel is taken as four bytes, of which the last is the next one's: four lanes are one
/// instruction, three are not. Pixels of the result have four bytes, too.
#[inline(always)]
fn columns(view: View<'_>, range: Range<usize>, taps: &Taps) -> Vec<[u8; 4]> {
    let width = taps.spans.len();
    let mut out = vec![[0; 4]; width * range.len()];
    let mut source = vec![0; 3 * view.region.width as usize + 1];
    for (y, target) in range.zip(out.chunks_exact_mut(width)) {
        let pixels = view.row(y);
        source[..pixels.len()].copy_from_slice(pixels);
        let taps = taps.spans.iter().zip(taps.weights.chunks_exact(taps.stride));
        for (pixel, (&(first, count), weights)) in target.iter_mut().zip(taps) {
            let values = &source[3 * first..3 * (first + count) + 1];
            let mut sums = [HALF; 4];
            for (four, &weight) in values.windows(4).step_by(3).zip(weights) {
                sums = std::array::from_fn(|lane| sums[lane] + i32::from(four[lane]) * weight);
            }
            *pixel = sums.map(to_pixel);
        }
    }
    out
}

/// Resizes each column, some columns at a time; `first` is the number of the first row of `pixels`.
#[inline(always)]
fn rows(pixels: &[[u8; 4]], width: usize, first: usize, taps: &Taps) -> Vec<u8> {
    const LANES: usize = 16;
    let mut out = vec![0; 3 * width * taps.spans.len()];
    for (output, target) in out.chunks_exact_mut(3 * width).enumerate() {
        let (start, weights) = taps.of(output);
        let source = &pixels[width * (start - first)..][..width * weights.len()];
        let (chunks, rest) = target.as_chunks_mut::<3>().0.as_chunks_mut::<LANES>();
        for (i, chunk) in chunks.iter_mut().enumerate() {
            let mut sums = [[HALF; 4]; LANES];
            for (source, &weight) in source.chunks_exact(width).zip(weights) {
                let values: &[[u8; 4]; LANES] =
                    source[i * LANES..][..LANES].try_into().expect("a whole chunk");
                for (sums, values) in sums.iter_mut().zip(values) {
                    for (sum, &value) in sums.iter_mut().zip(values) {
                        *sum += i32::from(value) * weight;
                    }
                }
            }
            for (pixel, sums) in chunk.iter_mut().zip(sums) {
                let [r, g, b, _] = sums.map(to_pixel);
                *pixel = [r, g, b];
            }
        }
        let start = width - rest.len();
        for (at, pixel) in rest.iter_mut().enumerate() {
            let mut sums = [HALF; 4];
            for (values, &weight) in source[start + at..].iter().step_by(width).zip(weights) {
                sums = std::array::from_fn(|lane| sums[lane] + i32::from(values[lane]) * weight);
            }
            let [r, g, b, _] = sums.map(to_pixel);
            *pixel = [r, g, b];
        }
    }
    out
}

/// Takes the pixel in which each output pixel's centre falls.
fn nearest(view: View<'_>, across: Axis, down: Axis) -> Vec<u8> {
    // Pillow adds the step up in double precision; a product would round otherwise at exact pixel borders.
    let positions = |axis: Axis| -> Vec<usize> {
        let step = f64::from(axis.from) / f64::from(axis.to);
        let starts = std::iter::successors(Some(step * 0.5), |at| Some(at + step));
        let wanted = starts.skip(axis.first as usize).take(axis.count as usize);
        wanted.map(|at| (at as usize).min(axis.from as usize - 1)).collect()
    };
    let across = positions(across);
    let mut out = Vec::with_capacity(3 * across.len() * down.count as usize);
    for y in positions(down) {
        let row = view.row(y);
        for x in &across {
            out.extend_from_slice(&row[3 * x..3 * x + 3]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_stays_flat_at_every_size() {
        for interpolation in [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic] {
            for (from, to) in [((7, 5), (3, 9)), ((1, 1), (6, 2)), ((300, 2), (1, 1)), ((4, 4), (4, 7))] {
                let flat = [3, 128, 255].repeat(from.0 as usize * from.1 as usize);
                let region = Region { left: 0, top: 0, width: from.0, height: from.1 };
                let view = View { pixels: &flat, columns: from.0 as usize, region };
                let window = Region { left: 0, top: 0, width: to.0, height: to.1 };
                let expected = [3, 128, 255].repeat(to.0 as usize * to.1 as usize);
                assert_eq!(resample(view, to, window, interpolation), expected);
            }
        }
    }
}
