//! Convolution as a product of the filters with the columns of [`super::columns`], a tile at a time.

use std::ops::Range;

use rayon::prelude::*;

use super::columns::Geometry;
use super::matrix::{Into, Matrix, multiply};

/// Buffers that a worker keeps from tile to tile.
#[derive(Default)]
struct Scratch {
    columns: Vec<f32>,
    packed: Vec<f32>,
}

/// The first `length` floats of a buffer, grown where needed; the content is whatever was there.
fn room(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// Shares that a batch is split into at least, whatever the number of threads, so that results are the same to the bit
/// on any machine that computes with the same instructions.
const SHARES: usize = 4;

/// How a batch is dealt out: images a task takes, and threads that each product may use in addition.
fn deal(g: &Geometry) -> (usize, usize) {
    let images = g.images_per_tile().min(g.images.div_ceil(SHARES)).max(1);
    (images, rayon::current_num_threads().div_ceil(g.images.div_ceil(images).max(1)))
}

/// A group's weights: filters × depth.
fn filters<'a>(g: &Geometry, weight: &'a [f32], group: usize) -> Matrix<'a> {
    let (rows, depth) = (g.group_outputs(), g.depth());
    Matrix::rows(&weight[group * rows * depth..], rows, depth, depth)
}

/// Where a tile that lies within one image starts in an output-shaped batch.
fn output_start(g: &Geometry, group: usize, rows: &Range<usize>) -> usize {
    let [channels, height, width] = g.output;
    let (image, y) = (rows.start / height, rows.start % height);
    (image * channels + group * g.group_outputs()) * g.pixels() + y * width
}

/// Whether a tile lies within one image, so that its pixels form a strided matrix where they are.
fn within_one_image(g: &Geometry, rows: &Range<usize>) -> bool {
    rows.len() <= g.output[1]
}

/// The column matrix of a tile; for a pointwise convolution of one image that is the image itself.
fn columns<'a>(
    g: &Geometry,
    images: &'a [f32],
    group: usize,
    rows: &Range<usize>,
    buffer: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let width = g.output[2];
    let (depth, count) = (g.depth(), rows.len() * width);
    if g.is_pointwise() && within_one_image(g, rows) {
        let (image, y) = (rows.start / g.output[1], rows.start % g.output[1]);
        let start = image * g.input_size() + group * g.group_inputs() * g.pixels() + y * width;
        return Matrix::rows(&images[start..], depth, count, g.pixels());
    }
    let columns = room(buffer, depth * count);
    g.gather(images, group, rows, columns);
    Matrix::rows(columns, depth, count, count)
}

/// A tile of an output-shaped gradient as a matrix: in place within one image, packed otherwise.
fn gradient<'a>(
    g: &Geometry,
    grad: &'a [f32],
    group: usize,
    rows: &Range<usize>,
    buffer: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let (filters, count) = (g.group_outputs(), rows.len() * g.output[2]);
    if within_one_image(g, rows) {
        return Matrix::rows(&grad[output_start(g, group, rows)..], filters, count, g.pixels());
    }
    let packed = room(buffer, filters * count);
    g.pack_output(grad, group, rows, packed);
    Matrix::rows(packed, filters, count, count)
}

/// y for x, weight and bias.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut y = vec![0f32; g.images * g.output_size()];
    if y.is_empty() {
        return y;
    }
    let (together, threads) = deal(g);
    let into = if bias.is_some() { Into::Accumulate } else { Into::Replace };
    let block = |scratch: &mut Scratch, y: &mut [f32], x: &[f32]| {
        if let Some(bias) = bias {
            for (map, &b) in y.chunks_mut(g.pixels()).zip(bias.iter().cycle()) {
                map.fill(b);
            }
        }
        for rows in g.tiles(y.len() / g.output_size()) {
            let count = rows.len() * g.output[2];
            for group in 0..g.groups {
                let columns = columns(g, x, group, &rows, &mut scratch.columns);
                let filters = filters(g, weight, group);
                if within_one_image(g, &rows) {
                    let start = output_start(g, group, &rows);
                    multiply(&mut y[start..], g.pixels(), into, filters, columns, threads);
                } else {
                    let packed = room(&mut scratch.packed, filters.rows * count);
                    if bias.is_some() {
                        g.pack_output(y, group, &rows, packed);
                    }
                    multiply(packed, count, into, filters, columns, threads);
                    g.unpack_output(packed, group, &rows, y);
                }
            }
        }
    };
    y.par_chunks_mut(together * g.output_size())
        .zip(x.par_chunks(together * g.input_size()))
        .for_each_init(Scratch::default, |scratch, (y, x)| block(scratch, y, x));
    y
}

/// Gradient of x.
pub(super) fn input_gradient(g: &Geometry, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut dx = vec![0f32; g.images * g.input_size()];
    if dx.is_empty() {
        return dx;
    }
    let (together, threads) = deal(g);
    let block = |scratch: &mut Scratch, dx: &mut [f32], grad: &[f32]| {
        for rows in g.tiles(dx.len() / g.input_size()) {
            let count = rows.len() * g.output[2];
            for group in 0..g.groups {
                let gradient = gradient(g, grad, group, &rows, &mut scratch.packed);
                let filters = filters(g, weight, group).transposed();
                if g.is_pointwise() && within_one_image(g, &rows) {
                    let (image, y) = (rows.start / g.output[1], rows.start % g.output[1]);
                    let start =
                        image * g.input_size() + group * g.group_inputs() * g.pixels() + y * g.output[2];
                    multiply(&mut dx[start..], g.pixels(), Into::Replace, filters, gradient, threads);
                } else {
                    let columns = room(&mut scratch.columns, g.depth() * count);
                    multiply(columns, count, Into::Replace, filters, gradient, threads);
                    g.scatter(columns, group, &rows, dx);
                }
            }
        }
    };
    dx.par_chunks_mut(together * g.input_size())
        .zip(grad.par_chunks(together * g.output_size()))
        .for_each_init(Scratch::default, |scratch, (dx, grad)| block(scratch, dx, grad));
    dx
}

/// Gradient of the weight: each share of the images is summed by itself, and the shares are added in order.
pub(super) fn weight_gradient(g: &Geometry, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let share = g.images.div_ceil(SHARES).max(1);
    let inner = rayon::current_num_threads().div_ceil(g.images.clamp(1, SHARES));
    let size = g.output[0] * g.depth();
    if grad.is_empty() {
        return vec![0f32; size];
    }
    let partial = |x: &[f32], grad: &[f32]| {
        let mut scratch = Scratch::default();
        let mut dw = vec![0f32; size];
        for rows in g.tiles(grad.len() / g.output_size()) {
            for group in 0..g.groups {
                let columns = columns(g, x, group, &rows, &mut scratch.columns);
                let gradient = gradient(g, grad, group, &rows, &mut scratch.packed);
                let filters = &mut dw[group * g.group_outputs() * g.depth()..];
                multiply(filters, g.depth(), Into::Accumulate, gradient, columns.transposed(), inner);
            }
        }
        dw
    };
    let mut partials: Vec<Vec<f32>> = x
        .par_chunks(share * g.input_size())
        .zip(grad.par_chunks(share * g.output_size()))
        .map(|(x, grad)| partial(x, grad))
        .collect();
    let others = partials.split_off(1);
    let mut dw = partials.swap_remove(0);
    dw.par_chunks_mut(SUM).enumerate().for_each(|(i, totals)| {
        for other in &others {
            for (total, value) in totals.iter_mut().zip(&other[i * SUM..]) {
                *total += value;
            }
        }
    });
    dw
}

/// Weights that a thread sums at a time.
const SUM: usize = 16 * 1024;
