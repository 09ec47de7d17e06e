//! The arithmetic of Pillow's `Image.resize` on 8-bit RGB, to the bit: fixed-point weights of 22 bits,
//! columns first, then rows, rounded and clipped to 8 bits after each pass.
//! The order is that of Pillow before 13.0, behind which published networks were trained (13.0 picks the
//! cheaper order, which moves some pixels by one level).

use crate::resize::Interpolation;

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
    fn of(&self, output: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[output];
        (first, &self.weights[output * self.stride..][..count])
    }
}

/// Resizes interleaved RGB `pixels` of `from` (width, height) to `to`, both without a zero side.
pub(crate) fn resample(
    pixels: &[u8],
    from: (usize, usize),
    to: (usize, usize),
    interpolation: Interpolation,
) -> Vec<u8> {
    let (filter, support): (fn(f64) -> f64, f64) = match interpolation {
        Interpolation::Nearest => return nearest(pixels, from, to),
        Interpolation::Bilinear => (triangle, 1.0),
        Interpolation::Bicubic => (cubic, 2.0),
    };
    let wide = if from.0 == to.0 {
        pixels.to_vec()
    } else {
        columns(pixels, from, &taps(from.0, to.0, filter, support))
    };
    if from.1 == to.1 { wide } else { rows(&wide, to.0, &taps(from.1, to.1, filter, support)) }
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
fn taps(from: usize, to: usize, filter: fn(f64) -> f64, support: f64) -> Taps {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = support * stretch;
    let stride = support.ceil() as usize * 2 + 1;
    let mut taps = Taps { spans: Vec::with_capacity(to), weights: vec![0; to * stride], stride };
    let mut exact = Vec::with_capacity(stride);
    for output in 0..to {
        let center = (output as f64 + 0.5) * scale;
        // Float to integer conversion truncates and saturates at 0, which is the clipping wanted here.
        let first = (center - support + 0.5) as usize;
        let last = ((center + support + 0.5) as usize).min(from);
        exact.clear();
        exact.extend((first..last).map(|at| filter((at as f64 - center + 0.5) * (1.0 / stretch))));
        let total: f64 = exact.iter().sum();
        for (weight, exact) in taps.weights[output * stride..].iter_mut().zip(&exact) {
            let scaled = exact / total * f64::from(1u32 << FRACTION_BITS);
            *weight = (scaled + 0.5f64.copysign(scaled)) as i32;
        }
        taps.spans.push((first, last - first));
    }
    taps
}

fn to_pixel(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

/// Resizes each row.
fn columns(pixels: &[u8], (width, height): (usize, usize), taps: &Taps) -> Vec<u8> {
    let to = taps.spans.len();
    let mut out = vec![0; 3 * to * height];
    for (source, target) in pixels.chunks_exact(3 * width).zip(out.chunks_exact_mut(3 * to)) {
        for (output, pixel) in target.chunks_exact_mut(3).enumerate() {
            let (first, weights) = taps.of(output);
            let mut sums = [HALF; 3];
            for (rgb, weight) in source[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(rgb) {
                    *sum += i32::from(*value) * weight;
                }
            }
            for (value, sum) in pixel.iter_mut().zip(sums) {
                *value = to_pixel(sum);
            }
        }
    }
    out
}

/// Resizes each column, a whole row of sums at a time.
fn rows(pixels: &[u8], width: usize, taps: &Taps) -> Vec<u8> {
    let row = 3 * width;
    let mut out = vec![0; row * taps.spans.len()];
    let mut sums = vec![0i32; row];
    for (output, target) in out.chunks_exact_mut(row).enumerate() {
        let (first, weights) = taps.of(output);
        sums.fill(HALF);
        for (source, weight) in pixels[row * first..].chunks_exact(row).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(source) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (value, sum) in target.iter_mut().zip(&sums) {
            *value = to_pixel(*sum);
        }
    }
    out
}

/// Takes the pixel in which each output pixel's centre falls.
fn nearest(pixels: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
    // Pillow adds the step up in double precision; a product would round otherwise at exact pixel borders.
    let positions = |from: usize, to: usize| -> Vec<usize> {
        let step = from as f64 / to as f64;
        let starts = std::iter::successors(Some(step * 0.5), |at| Some(at + step));
        starts.take(to).map(|at| (at as usize).min(from - 1)).collect()
    };
    let across = positions(from.0, to.0);
    let mut out = Vec::with_capacity(3 * to.0 * to.1);
    for y in positions(from.1, to.1) {
        let row = &pixels[3 * from.0 * y..][..3 * from.0];
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
                let flat = [3, 128, 255].repeat(from.0 * from.1);
                assert_eq!(resample(&flat, from, to, interpolation), [3, 128, 255].repeat(to.0 * to.1));
            }
        }
    }
}
