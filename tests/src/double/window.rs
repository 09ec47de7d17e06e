//! Convolution and pooling in f64: each window's values are copied out, then multiplied or summed.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayD, ArrayView2, ArrayViewMut2, IxDyn};
use rayon::prelude::*;
use tallow_builder::graph::{Conv2d, Window};

/// Filters that one thread multiplies at a time.
const FILTERS: usize = 32;

/// A batch of maps as a flat slice.
struct Maps<'a> {
    values: &'a [f64],
    channels: usize,
    height: usize,
    width: usize,
}

impl<'a> Maps<'a> {
    fn of(x: &'a ArrayD<f64>) -> Self {
        let &[_, channels, height, width] = x.shape() else { unreachable!("shape inference gives maps") };
        let values = x.as_slice().expect("layers give values in standard order");
        Self { values, channels, height, width }
    }

    fn plane(&self, index: usize) -> &'a [f64] {
        let pixels = self.height * self.width;
        &self.values[index * pixels..][..pixels]
    }
}

fn places(window: &Window, maps: &Maps<'_>) -> [usize; 2] {
    window.output(maps.height, maps.width).expect("shape inference has seen to it that the window fits")
}

/// The pixel under one element of the window, for every place; `None` where that is padding.
fn pixels<'a>(
    window: &'a Window,
    size: [usize; 2],
    places: [usize; 2],
    element: [usize; 2],
) -> impl Iterator<Item = Option<usize>> + 'a {
    let at = move |place: usize, axis: usize, before: usize| {
        (place * window.stride[axis] + element[axis] * window.dilation[axis])
            .checked_sub(before)
            .filter(|&at| at < size[axis])
    };
    (0..places[0]).flat_map(move |row| {
        let y = at(row, 0, window.pads.top);
        (0..places[1]).map(move |column| Some(y? * size[1] + at(column, 1, window.pads.left)?))
    })
}

pub(super) fn convolution(
    x: &ArrayD<f64>,
    conv: &Conv2d,
    weight: &[f64],
    bias: Option<&[f64]>,
) -> ArrayD<f64> {
    let maps = Maps::of(x);
    let window = conv.window();
    let [rows, columns] = places(&window, &maps);
    let area = rows * columns;
    let images = x.shape()[0];
    let (inputs, filters) = (maps.channels / conv.groups, conv.out_channels / conv.groups);
    let length = inputs * conv.kernel[0] * conv.kernel[1];
    let mut y = vec![0.0; images * conv.out_channels * area];
    y.par_chunks_mut(filters * area).enumerate().for_each(|(task, y)| {
        let (image, group) = (task / conv.groups, task % conv.groups);
        let first = image * maps.channels + group * inputs;
        let seen = windows(&maps, &window, [rows, columns], first..first + inputs);
        let seen = ArrayView2::from_shape((length, area), &seen).expect("a row a weight");
        let weight = &weight[group * filters * length..][..filters * length];
        y.par_chunks_mut(FILTERS * area).zip(weight.par_chunks(FILTERS * length)).for_each(|(y, weight)| {
            let count = weight.len() / length;
            let weight = ArrayView2::from_shape((count, length), weight).expect("a row a filter");
            let mut y = ArrayViewMut2::from_shape((count, area), y).expect("a row a filter");
            general_mat_mul(1.0, &weight, &seen, 0.0, &mut y);
        });
        if let Some(bias) = bias {
            for (y, bias) in y.chunks_mut(area).zip(&bias[group * filters..]) {
                y.iter_mut().for_each(|y| *y += bias);
            }
        }
    });
    ArrayD::from_shape_vec(IxDyn(&[images, conv.out_channels, rows, columns]), y).expect("the output's shape")
}

/// A row for each element of the kernel over the planes, a column for each place (im2col).
fn windows(maps: &Maps<'_>, window: &Window, places: [usize; 2], planes: std::ops::Range<usize>) -> Vec<f64> {
    let mut seen =
        Vec::with_capacity(planes.len() * window.kernel[0] * window.kernel[1] * places[0] * places[1]);
    for plane in planes {
        let plane = maps.plane(plane);
        for row in 0..window.kernel[0] {
            for column in 0..window.kernel[1] {
                let pixels = pixels(window, [maps.height, maps.width], places, [row, column]);
                seen.extend(pixels.map(|pixel| pixel.map_or(0.0, |pixel| plane[pixel])));
            }
        }
    }
    seen
}

/// What `reduce` makes of the pixels in each window and of the window's area; padding is not among the pixels.
pub(super) fn pool(
    x: &ArrayD<f64>,
    window: &Window,
    reduce: impl Fn(&[f64], usize) -> f64 + Sync,
) -> ArrayD<f64> {
    let maps = Maps::of(x);
    let [rows, columns] = places(window, &maps);
    let area = window.kernel[0] * window.kernel[1];
    let mut y = vec![0.0; x.shape()[0] * maps.channels * rows * columns];
    y.par_chunks_mut(rows * columns).enumerate().for_each(|(plane, y)| {
        let plane = maps.plane(plane);
        let mut seen: Vec<Vec<f64>> = vec![Vec::with_capacity(area); rows * columns];
        for row in 0..window.kernel[0] {
            for column in 0..window.kernel[1] {
                let pixels = pixels(window, [maps.height, maps.width], [rows, columns], [row, column]);
                for (seen, pixel) in seen.iter_mut().zip(pixels) {
                    seen.extend(pixel.map(|pixel| plane[pixel]));
                }
            }
        }
        for (y, seen) in y.iter_mut().zip(&seen) {
            *y = reduce(seen, area);
        }
    });
    ArrayD::from_shape_vec(IxDyn(&[x.shape()[0], maps.channels, rows, columns]), y)
        .expect("the output's shape")
}
