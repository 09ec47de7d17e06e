//! What an engine gave for a series of batches, and how far two engines are apart.

use ndarray::{Array4, ArrayD};
use tallow_builder::Rng;

/// One output for each batch of a series.
pub(crate) type Series = Vec<ArrayD<f32>>;

/// The outputs of an engine by name.
pub(crate) type Outputs = Vec<(String, Series)>;

/// How far two engines are apart over a whole series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) max_abs: f64,
    /// `max_abs` over the reference's largest magnitude.
    pub(crate) max_rel: f64,
    /// Share of images whose largest output is the same.
    pub(crate) top1: f64,
}

/// The largest difference so far, and the largest magnitude of the reference.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Distance {
    pub(crate) max_abs: f64,
    largest: f64,
}

impl Distance {
    pub(crate) fn add(&mut self, reference: impl Into<f64>, other: impl Into<f64>) {
        let reference = reference.into();
        // A number that is not finite differs from everything: `max` alone would pass over a NaN.
        let difference = (reference - other.into()).abs();
        self.max_abs = if difference.is_finite() { self.max_abs.max(difference) } else { f64::INFINITY };
        self.largest = self.largest.max(reference.abs());
    }

    /// All of two arrays of one shape.
    pub(crate) fn add_all<T: Copy + Into<f64>>(&mut self, reference: &ArrayD<T>, other: &ArrayD<f32>) {
        reference.iter().zip(other).for_each(|(a, b)| self.add(*a, *b));
    }

    /// Relative to the reference's largest magnitude.
    pub(crate) fn max_rel(&self) -> f64 {
        match self.max_abs {
            max if max == 0.0 || max.is_infinite() => max,
            max => max / self.largest,
        }
    }
}

/// Random images with what photographs have and noise lacks: each has a brightness and a slope of its own in every
/// channel, which outlive a network's averaging. Values are of order one; each batch has its own numbers.
pub(crate) fn random_images(seed: u64, batches: &[usize], sample: [usize; 3]) -> Vec<Array4<f32>> {
    let [channels, height, width] = sample;
    let batch = |(i, &n): (usize, &usize)| {
        let mut rng = Rng::stream(seed, &[i as u64]);
        let mut images = Array4::zeros((n, channels, height, width));
        for mut image in images.outer_iter_mut() {
            for mut plane in image.outer_iter_mut() {
                let [level, down, right] = std::array::from_fn(|_| rng.normal());
                for ((y, x), value) in plane.indexed_iter_mut() {
                    let place = |at: usize, length: usize| at as f64 / length as f64 - 0.5;
                    let slope = down * place(y, height) + right * place(x, width);
                    *value = (level + slope + 0.5 * rng.normal()) as f32;
                }
            }
        }
        images
    };
    batches.iter().enumerate().map(batch).collect()
}

/// Compares two series.
///
/// # Errors
/// Where shapes differ; the text says which.
pub(crate) fn compare(reference: &Series, other: &Series) -> Result<Difference, String> {
    let mut distance = Distance::default();
    let (mut same, mut rows) = (0usize, 0usize);
    for (a, b) in reference.iter().zip(other) {
        if a.shape() != b.shape() {
            return Err(format!("its output has the shape {:?} instead of {:?}", b.shape(), a.shape()));
        }
        distance.add_all(a, b);
        for (a, b) in a.outer_iter().zip(b.outer_iter()) {
            rows += 1;
            same += usize::from(top(a.iter()) == top(b.iter()));
        }
    }
    let top1 = same as f64 / rows.max(1) as f64;
    Ok(Difference { max_abs: distance.max_abs, max_rel: distance.max_rel(), top1 })
}

/// The index of the largest, the first of equals.
fn top<'a>(values: impl Iterator<Item = &'a f32>) -> Option<usize> {
    let better = |best: Option<(usize, f32)>, (i, &v): (usize, &f32)| match best {
        Some((_, largest)) if v <= largest || v.is_nan() => best,
        _ => Some((i, v)),
    };
    values.enumerate().fold(None, better).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn series(values: [f32; 4]) -> Series {
        let [a, b, c, d] = values;
        vec![array![[a, b]].into_dyn(), array![[c, d]].into_dyn()]
    }

    #[test]
    fn differences_are_over_the_whole_series() {
        let d = compare(&series([1.0, 2.0, 3.0, -4.0]), &series([1.0, 2.5, 3.0, 4.0])).unwrap();
        assert_eq!(d, Difference { max_abs: 8.0, max_rel: 2.0, top1: 0.5 });
        let d = compare(&series([0.0; 4]), &series([0.0; 4])).unwrap();
        assert_eq!(d, Difference { max_abs: 0.0, max_rel: 0.0, top1: 1.0 });
        assert!(compare(&series([0.0; 4]), &series([0.0, 0.0, 0.0, 1.0])).unwrap().max_rel.is_infinite());
    }

    #[test]
    fn numbers_that_are_not_finite_never_agree() {
        for (a, b) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY)]
        {
            let d = compare(&series([a, 0.0, 0.0, 0.0]), &series([b, 0.0, 0.0, 0.0])).unwrap();
            assert!(d.max_abs.is_infinite());
            assert!(d.max_rel.is_infinite());
        }
    }

    #[test]
    fn another_shape_is_told() {
        let other = vec![array![[1.0, 2.0, 3.0]].into_dyn(), array![[1.0f32]].into_dyn()];
        let text = compare(&series([0.0; 4]), &other).unwrap_err();
        assert_eq!(text, "its output has the shape [1, 3] instead of [1, 2]");
    }

    #[test]
    fn a_seed_gives_the_same_images_and_each_batch_its_own() {
        let images = random_images(1, &[1, 3], [2, 4, 5]);
        assert_eq!(images, random_images(1, &[1, 3], [2, 4, 5]));
        assert_eq!(images[1].dim(), (3, 2, 4, 5));
        assert_ne!(images[0][[0, 0, 0, 0]], images[1][[0, 0, 0, 0]]);
    }
}
