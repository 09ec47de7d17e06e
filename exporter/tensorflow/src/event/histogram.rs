//! Counts of values in buckets of one width, as `tf.summary.histogram` makes them.

/// Buckets of a histogram whose values differ: TensorFlow's default.
pub const BUCKETS: usize = 30;

/// Values counted by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    low: f32,
    high: f32,
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts the finite ones of `values`; NaN and infinities have no place on an axis.
    ///
    /// ```
    /// use tallow_tensorflow::event::Histogram;
    ///
    /// let histogram = Histogram::of(&[0.0, 1.0, 1.0, f32::NAN]);
    /// assert_eq!(histogram.total(), 3);
    /// assert_eq!(histogram.buckets().last(), Some(&[29.0f32 as f64 / 30.0, 1.0, 2.0]));
    /// ```
    pub fn of(values: &[f32]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (low, high) = finite()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Self { low: 0.0, high: 0.0, counts: vec![] };
        }
        if low == high {
            return Self { low, high, counts: vec![finite().count() as u64] };
        }
        let mut counts = vec![0; BUCKETS];
        // In f64, because high − low may be beyond f32.
        let scale = BUCKETS as f64 / (f64::from(high) - f64::from(low));
        for value in finite() {
            let bucket = ((f64::from(value) - f64::from(low)) * scale) as usize;
            counts[bucket.min(BUCKETS - 1)] += 1;
        }
        Self { low, high, counts }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Left edge, right edge (inclusive in the last) and count of each bucket. Equal values fill one bucket of width
    /// 1 around them, so that there is something to see.
    pub fn buckets(&self) -> Vec<[f64; 3]> {
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        match self.counts.as_slice() {
            [count] => vec![[low - 0.5, low + 0.5, *count as f64]],
            counts => {
                let n = counts.len();
                let edge = |bucket: usize| {
                    if bucket == n { high } else { low + (high - low) * bucket as f64 / n as f64 }
                };
                let bucket = |(i, &count): (usize, &u64)| [edge(i), edge(i + 1), count as f64];
                counts.iter().enumerate().map(bucket).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of no particular order, of both signs and many sizes.
    fn values(n: usize) -> Vec<f32> {
        let value = |i: usize| {
            let x = (i as f32 * 12.9898).sin() * 43_758.547;
            (x - x.floor() - 0.4) * 10f32.powi((i % 7) as i32 - 3)
        };
        (0..n).map(value).collect()
    }

    #[test]
    fn every_finite_value_is_in_one_bucket_and_the_edges_join() {
        for n in [2, 3, 100, 10_000] {
            let mut values = values(n);
            values.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
            let histogram = Histogram::of(&values);
            let buckets = histogram.buckets();
            assert_eq!(buckets.len(), BUCKETS);
            assert_eq!(buckets.iter().map(|bucket| bucket[2]).sum::<f64>(), n as f64);
            assert!(buckets.windows(2).all(|pair| pair[0][1] == pair[1][0]));
            let smallest = values.iter().copied().filter(|v| v.is_finite()).fold(f32::INFINITY, f32::min);
            assert_eq!(buckets[0][0], f64::from(smallest));
        }
    }

    #[test]
    fn equal_values_no_values_and_the_widest_range() {
        assert_eq!(Histogram::of(&[2.0; 5]).buckets(), [[1.5, 2.5, 5.0]]);
        assert!(Histogram::of(&[f32::NAN]).buckets().is_empty());
        let widest = Histogram::of(&[f32::MIN, 0.0, f32::MAX]);
        let counts: Vec<f64> = widest.buckets().iter().map(|bucket| bucket[2]).collect();
        assert_eq!((counts[0], counts[15], counts[29], widest.total()), (1.0, 1.0, 1.0, 3));
    }
}
