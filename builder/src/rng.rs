//! Tallow's own random numbers: candle cannot seed its CPU generator, and a seed must reproduce a run to the bit.

use serde::{Deserialize, Serialize};

/// xoshiro256++ (Blackman & Vigna, 2019, "Scrambled linear pseudorandom number generators", section 4).
///
/// The whole state serialises, so a checkpoint can restore it. Work that runs in parallel takes a generator of its
/// own from [`Rng::stream`], keyed by what it works on, so that results do not depend on the order of threads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    state: [u64; 4],
}

/// The step of SplitMix64's state: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of SplitMix64 (Steele et al., 2014), which xoshiro's authors recommend for seeding.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(GOLDEN);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bits at a place of SplitMix64's sequence for `seed`: random access, for what a GPU draws for each element. The
/// kernels' `random_bits` gives the same.
pub(crate) fn random_bits(seed: u64, place: u64) -> u64 {
    split_mix(&mut seed.wrapping_add(place.wrapping_mul(GOLDEN)))
}

impl Rng {
    /// A generator that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self::stream(seed, &[])
    }

    /// An independent generator for `seed` and a key, such as `[epoch, sample]`.
    pub fn stream(seed: u64, key: &[u64]) -> Self {
        let mut mixer = seed;
        for &part in key {
            mixer = split_mix(&mut mixer) ^ part;
        }
        Self { state: std::array::from_fn(|_| split_mix(&mut mixer)) }
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform over 0..n without modulo bias (Lemire 2019, "Fast random integer generation in an interval").
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "Rng::below needs a non-empty range");
        let n = n as u64;
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as usize;
            }
        }
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Standard normal (Box & Muller 1958). The second value of the pair is dropped to keep the state small.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Beta(a, b), as X / (X + Y) of two gamma variates; both shapes must be above 0. Computed by logarithms, because
    /// the variates themselves vanish where shapes are small.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (self.log_gamma(a), self.log_gamma(b));
        1.0 / (1.0 + (y - x).exp())
    }

    /// The logarithm of a Gamma(shape, 1) variate (Marsaglia & Tsang 2000, "A simple method for generating gamma
    /// variables", section 3; shapes below 1 by their section 6: a variate of shape + 1 times U^(1 / shape)).
    fn log_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.uniform()).ln() / shape;
            return (self.log_gamma(shape + 1.0) + boost).max(f64::MIN);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let z = self.normal();
            let v = (1.0 + c * z).powi(3);
            let log_u = (1.0 - self.uniform()).ln();
            if v > 0.0 && log_u < 0.5 * z * z + d - d * v + d * v.ln() {
                return d.ln() + v.ln();
            }
        }
    }

    /// Shuffles in place (Fisher & Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of Vigna's splitmix64.c for seed 1234567.
    #[test]
    fn random_bits_are_split_mix_64s() {
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([0, 1, 2].map(|place| random_bits(1_234_567, place)), expected);
    }

    #[test]
    fn moments_of_uniform_and_normal_are_right() {
        let mut rng = Rng::new(7);
        let n = 200_000;
        let (mut u, mut z, mut zz) = (0.0, 0.0, 0.0);
        for _ in 0..n {
            u += rng.uniform();
            let x = rng.normal();
            z += x;
            zz += x * x;
        }
        let n = f64::from(n);
        assert!((u / n - 0.5).abs() < 0.005);
        assert!((z / n).abs() < 0.01);
        assert!((zz / n - 1.0).abs() < 0.02);
    }

    /// Against the distribution's own moments: mean a/(a+b), variance ab/((a+b)²(a+b+1)), and for equal shapes a
    /// fourth central moment of 3/(16(2a+1)(2a+3)).
    #[test]
    fn moments_of_beta_are_right() {
        let mut rng = Rng::new(3);
        let n = 200_000;
        for (a, b) in [(0.2, 0.2), (0.4, 0.4), (1.0, 1.0), (2.5, 2.5), (0.3, 4.0), (7.0, 1.5)] {
            let values: Vec<f64> = (0..n).map(|_| rng.beta(a, b)).collect();
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
            let mean = values.iter().sum::<f64>() / f64::from(n);
            let central =
                |k: i32| values.iter().map(|v| (v - a / (a + b)).powi(k)).sum::<f64>() / f64::from(n);
            assert!((mean - a / (a + b)).abs() < 0.005, "({a}, {b}): mean {mean}");
            let variance = a * b / ((a + b) * (a + b) * (a + b + 1.0));
            assert!((central(2) / variance - 1.0).abs() < 0.02, "({a}, {b}): variance {}", central(2));
            if a == b {
                let fourth = 3.0 / (16.0 * (2.0 * a + 1.0) * (2.0 * a + 3.0));
                assert!((central(4) / fourth - 1.0).abs() < 0.03, "({a}, {b}): fourth {}", central(4));
            }
        }
        let tiny: Vec<f64> = (0..1000).map(|_| rng.beta(1e-9, 1e-9)).collect();
        assert!(tiny.iter().all(|v| *v < 1e-6 || *v > 1.0 - 1e-6), "one of the two, and never NaN");
        assert!(rng.beta(f64::MIN_POSITIVE, f64::MIN_POSITIVE).is_finite());
    }

    #[test]
    fn below_reaches_every_value_about_equally() {
        let mut rng = Rng::new(1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
    }

    #[test]
    fn streams_differ_and_a_serialised_state_continues() {
        assert_ne!(Rng::stream(1, &[0, 1]).next_u64(), Rng::stream(1, &[1, 0]).next_u64());
        let mut rng = Rng::new(3);
        rng.next_u64();
        let text = serde_json::to_string(&rng).expect("plain integers serialise");
        let mut copy: Rng = serde_json::from_str(&text).expect("what was written reads back");
        assert_eq!(rng.next_u64(), copy.next_u64());
    }
}
