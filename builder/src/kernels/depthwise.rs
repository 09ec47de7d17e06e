//! Depthwise convolution, where each filter sees one channel: direct loops over phase-split planes.

use rayon::prelude::*;

use super::columns::Geometry;
use super::cpu::{LANES, lane_sum, vectorised};
use super::plane::Plane;

fn plane(g: &Geometry) -> Plane {
    Plane::new(g.window, [g.input[1], g.input[2]], [g.output[1], g.output[2]])
}

/// y `[N, C·m, H', W']` for x `[N, C, H, W]` and weight `[C·m, 1, kh, kw]`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (multiplier, area) = (g.group_outputs(), g.depth());
    let (in_pixels, out_pixels) = (g.input[1] * g.input[2], g.pixels());
    let plane = plane(g);
    let taps = plane.taps();
    let mut y = vec![0f32; g.images * g.output_size()];
    y.par_chunks_mut(multiplier * out_pixels).zip(x.par_chunks(in_pixels)).enumerate().for_each_init(
        || vec![0f32; plane.len()],
        |buffer, (i, (maps, pixels))| {
            let channel = i % g.input[0];
            vectorised(|| {
                plane.load(pixels, 0.0, buffer);
                for (j, map) in maps.chunks_mut(out_pixels).enumerate() {
                    let filter = channel * multiplier + j;
                    let kernel = &weight[filter * area..(filter + 1) * area];
                    correlate(&plane, buffer, &taps, kernel, bias.map_or(0.0, |b| b[filter]), map);
                }
            });
        },
    );
    y
}

/// One output map: a vector of neighbouring outputs stays in registers while all taps are added to it.
#[inline(always)]
fn correlate(plane: &Plane, buffer: &[f32], taps: &[usize], kernel: &[f32], bias: f32, map: &mut [f32]) {
    let [_, width] = plane.output();
    for (y, row) in map.chunks_mut(width).enumerate() {
        let source = &buffer[y * plane.row_step()..];
        for (chunk, out) in row.chunks_mut(LANES).enumerate() {
            let mut sums = [bias; LANES];
            for (&tap, &k) in taps.iter().zip(kernel) {
                let run = &source[tap + chunk * LANES..][..LANES];
                for lane in 0..LANES {
                    sums[lane] += k * run[lane];
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

/// Gradient of x: every output's gradient goes back to the pixels its window saw.
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let (multiplier, area) = (g.group_outputs(), g.depth());
    let (in_pixels, out_pixels) = (g.input[1] * g.input[2], g.pixels());
    let plane = plane(g);
    let taps = plane.taps();
    let mut dx = vec![0f32; g.images * g.input_size()];
    dx.par_chunks_mut(in_pixels).zip(grad.par_chunks(multiplier * out_pixels)).enumerate().for_each_init(
        || vec![0f32; plane.len()],
        |buffer, (i, (pixels, maps))| {
            let channel = i % g.input[0];
            vectorised(|| {
                buffer.fill(0.0);
                for (j, map) in maps.chunks(out_pixels).enumerate() {
                    let filter = channel * multiplier + j;
                    let kernel = &weight[filter * area..(filter + 1) * area];
                    for (y, row) in map.chunks(g.output[2]).enumerate() {
                        let target = &mut buffer[y * plane.row_step()..];
                        for (&tap, &k) in taps.iter().zip(kernel) {
                            for (value, &gradient) in target[tap..].iter_mut().zip(row) {
                                *value += k * gradient;
                            }
                        }
                    }
                }
                plane.store(buffer, pixels);
            });
        },
    );
    dx
}

/// Gradient of the weight: for each tap, the product of the gradient with the pixels that tap saw, summed in f64 over
/// rows and images.
pub(super) fn weight_gradient(g: &Geometry, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let (multiplier, area) = (g.group_outputs(), g.depth());
    let (in_pixels, out_pixels) = (g.input[1] * g.input[2], g.pixels());
    let plane = plane(g);
    let taps = plane.taps();
    let mut dw = vec![0f32; g.output[0] * area];
    dw.par_chunks_mut(multiplier * area).enumerate().for_each_init(
        || (vec![0f32; plane.len()], vec![0f64; multiplier * area]),
        |(buffer, sums), (channel, kernels)| {
            vectorised(|| {
                sums.fill(0.0);
                for image in 0..g.images {
                    let start = image * g.input_size() + channel * in_pixels;
                    plane.load(&x[start..start + in_pixels], 0.0, buffer);
                    let start = image * g.output_size() + channel * multiplier * out_pixels;
                    let maps = &grad[start..start + multiplier * out_pixels];
                    for (map, sums) in maps.chunks(out_pixels).zip(sums.chunks_mut(area)) {
                        for (y, row) in map.chunks(g.output[2]).enumerate() {
                            let source = &buffer[y * plane.row_step()..];
                            for (&tap, sum) in taps.iter().zip(sums.iter_mut()) {
                                *sum += lane_sum(row, &source[tap..tap + row.len()], |a, b| a * b);
                            }
                        }
                    }
                }
            });
            for (k, &sum) in kernels.iter_mut().zip(sums.iter()) {
                *k = sum as f32;
            }
        },
    );
    dw
}
