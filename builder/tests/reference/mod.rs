//! The plainest possible f64 versions of the kernels: one loop an index, nothing clever.

use tallow_builder::graph::Window;

/// The shape of a batch of feature maps.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    pub images: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Map {
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    pub fn dims(&self) -> [usize; 4] {
        [self.images, self.channels, self.height, self.width]
    }

    fn at(&self, image: usize, channel: usize, y: usize, x: usize) -> usize {
        ((image * self.channels + channel) * self.height + y) * self.width + x
    }
}

/// Outputs and gradients; what does not apply stays empty.
#[derive(Default)]
pub struct Expected {
    pub y: Vec<f64>,
    pub dx: Vec<f64>,
    pub dw: Vec<f64>,
    pub db: Vec<f64>,
    pub mean: Vec<f64>,
    pub var: Vec<f64>,
}

/// A sliding window over a batch.
pub struct Reference {
    pub map: Map,
    pub window: Window,
}

impl Reference {
    pub fn output(&self) -> [usize; 2] {
        self.window.output(self.map.height, self.map.width).unwrap()
    }

    /// For each output place: its index within a map, and the (kernel index, pixel) pairs inside the image.
    fn places(&self) -> Vec<Vec<(usize, [usize; 2])>> {
        let Window { kernel, stride, dilation, pads } = self.window;
        let [rows, columns] = self.output();
        let mut places = vec![];
        for oy in 0..rows {
            for ox in 0..columns {
                let mut seen = vec![];
                for ky in 0..kernel[0] {
                    for kx in 0..kernel[1] {
                        let y = (oy * stride[0] + ky * dilation[0]) as i64 - pads.top as i64;
                        let x = (ox * stride[1] + kx * dilation[1]) as i64 - pads.left as i64;
                        let inside = (0..self.map.height as i64).contains(&y)
                            && (0..self.map.width as i64).contains(&x);
                        if inside {
                            seen.push((ky * kernel[1] + kx, [y as usize, x as usize]));
                        }
                    }
                }
                places.push(seen);
            }
        }
        places
    }

    pub fn conv(
        &self,
        x: &[f32],
        w: &[f32],
        b: Option<&[f32]>,
        filters: usize,
        groups: usize,
        grad: &[f32],
    ) -> Expected {
        let map = self.map;
        let places = self.places();
        let area = self.window.kernel[0] * self.window.kernel[1];
        let (group_in, group_out) = (map.channels / groups, filters / groups);
        let mut e = Expected {
            y: vec![0.0; map.images * filters * places.len()],
            dx: vec![0.0; x.len()],
            dw: vec![0.0; w.len()],
            db: vec![0.0; filters],
            ..Expected::default()
        };
        for image in 0..map.images {
            for filter in 0..filters {
                for (place, seen) in places.iter().enumerate() {
                    let out = (image * filters + filter) * places.len() + place;
                    let g = f64::from(grad[out]);
                    e.y[out] = b.map_or(0.0, |b| f64::from(b[filter]));
                    e.db[filter] += g;
                    for c in 0..group_in {
                        for &(k, [py, px]) in seen {
                            let xi = map.at(image, filter / group_out * group_in + c, py, px);
                            let wi = (filter * group_in + c) * area + k;
                            e.y[out] += f64::from(w[wi]) * f64::from(x[xi]);
                            e.dx[xi] += f64::from(w[wi]) * g;
                            e.dw[wi] += f64::from(x[xi]) * g;
                        }
                    }
                }
            }
        }
        e
    }

    pub fn max_pool(&self, x: &[f32], grad: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let places = self.places();
        let (mut y, mut dx) = (vec![], vec![0.0; x.len()]);
        for plane in 0..self.map.images * self.map.channels {
            for seen in &places {
                let pixel =
                    |p: [usize; 2]| plane * self.map.height * self.map.width + p[0] * self.map.width + p[1];
                let mut best = pixel(seen[0].1);
                for &(_, p) in seen {
                    if x[pixel(p)] > x[best] {
                        best = pixel(p);
                    }
                }
                dx[best] += f64::from(grad[y.len()]);
                y.push(f64::from(x[best]));
            }
        }
        (y, dx)
    }

    pub fn avg_pool(&self, x: &[f32], grad: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let places = self.places();
        let area = (self.window.kernel[0] * self.window.kernel[1]) as f64;
        let (mut y, mut dx) = (vec![], vec![0.0; x.len()]);
        for plane in 0..self.map.images * self.map.channels {
            for seen in &places {
                let g = f64::from(grad[y.len()]);
                let mut sum = 0.0;
                for &(_, [py, px]) in seen {
                    let pixel = (plane * self.map.height + py) * self.map.width + px;
                    sum += f64::from(x[pixel]);
                    dx[pixel] += g / area;
                }
                y.push(sum / area);
            }
        }
        (y, dx)
    }
}

/// Batch normalisation with the batch's moments, or with `running` ones, which are constants.
pub fn batch_norm(
    map: Map,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f64,
    running: Option<(&[f32], &[f32])>,
    grad: &[f32],
) -> Expected {
    let pixels = map.height * map.width;
    let n = (map.images * pixels) as f64;
    let mut e = Expected { y: vec![0.0; x.len()], dx: vec![0.0; x.len()], ..Expected::default() };
    for c in 0..map.channels {
        let indices: Vec<usize> = (0..x.len()).filter(|i| i / pixels % map.channels == c).collect();
        let value = |i: usize| f64::from(x[i]);
        let (mean, var) = match running {
            Some((mean, var)) => (f64::from(mean[c]), f64::from(var[c])),
            None => {
                let mean = indices.iter().map(|&i| value(i)).sum::<f64>() / n;
                (mean, indices.iter().map(|&i| (value(i) - mean).powi(2)).sum::<f64>() / n)
            }
        };
        let std = (var + eps).sqrt();
        let normalised = |i: usize| (value(i) - mean) / std;
        let g = |i: usize| f64::from(grad[i]);
        let db: f64 = indices.iter().map(|&i| g(i)).sum();
        let dw: f64 = indices.iter().map(|&i| g(i) * normalised(i)).sum();
        for &i in &indices {
            e.y[i] = f64::from(scale[c]) * normalised(i) + f64::from(shift[c]);
            let centred = if running.is_some() { g(i) } else { g(i) - db / n - normalised(i) * dw / n };
            e.dx[i] = f64::from(scale[c]) / std * centred;
        }
        e.mean.push(mean);
        e.var.push(var);
        e.dw.push(dw);
        e.db.push(db);
    }
    e
}
