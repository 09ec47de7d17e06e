//! How parameters start. Everything is drawn from [`Rng`], so a seed gives the same network to the bit.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// The distribution a parameter is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All the same.
    Constant {
        /// The value.
        value: f64,
    },
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in [−bound, bound).
    Uniform {
        /// Half the width.
        bound: f64,
    },
    /// Normal around 0, redrawn beyond two standard deviations.
    TruncatedNormal {
        /// Standard deviation before truncation.
        std: f64,
    },
    /// Glorot & Bengio 2010, equation 16: variance gain²·2/(fan_in + fan_out).
    Xavier {
        /// Normal or uniform.
        distribution: Distribution,
        /// 1 for linear and sigmoid, 5/3 for tanh.
        gain: f64,
    },
    /// He et al. 2015 ("Delving deep into rectifiers"), equation 10: variance gain²/fan.
    Kaiming {
        /// Normal or uniform.
        distribution: Distribution,
        /// Which fan divides.
        fan: Fan,
        /// √2 for ReLU; √(2/(1 + slope²)) for leaky ReLU.
        gain: f64,
    },
}

/// The shape of a random initialiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Gaussian.
    Normal,
    /// Uniform with the same variance: bound = √3·std.
    Uniform,
    /// Gaussian within two standard deviations, widened so that its variance is the one asked for.
    TruncatedNormal,
}

/// Which connections an initialiser counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fan {
    /// Inputs of a unit: keeps the variance of activations.
    In,
    /// Outputs that a unit feeds: keeps the variance of gradients.
    Out,
}

/// Standard deviation of a standard normal truncated at ±2.
const TRUNCATED_STD: f64 = 0.879_596_566_170_685_3;

impl Init {
    /// He initialisation for ReLU, normal, by fan-out: what ResNet and EfficientNet are trained from.
    pub const HE_NORMAL_FAN_OUT: Self =
        Self::Kaiming { distribution: Distribution::Normal, fan: Fan::Out, gain: std::f64::consts::SQRT_2 };

    /// He initialisation for ReLU.
    pub fn he(distribution: Distribution, fan: Fan) -> Self {
        Self::Kaiming { distribution, fan, gain: std::f64::consts::SQRT_2 }
    }

    /// Xavier initialisation with gain 1.
    pub fn xavier(distribution: Distribution) -> Self {
        Self::Xavier { distribution, gain: 1.0 }
    }

    /// Draws a tensor of `shape`: `[out, in / groups, kernel h, kernel w]`, `[out, in]`, or `[n]`.
    ///
    /// Fans are PyTorch's: inputs a filter sees, and filters times kernel area, whatever the groups.
    pub fn sample(&self, shape: &[usize], rng: &mut Rng) -> Vec<f32> {
        let n = shape.iter().product();
        let (fan_in, fan_out) = fans(shape);
        match *self {
            Self::Zeros => vec![0.0; n],
            Self::Ones => vec![1.0; n],
            Self::Constant { value } => vec![value as f32; n],
            Self::Normal { std } => draw(n, std, Distribution::Normal, rng),
            Self::Uniform { bound } => (0..n).map(|_| rng.uniform_in(-bound, bound) as f32).collect(),
            Self::TruncatedNormal { std } => draw(n, std * TRUNCATED_STD, Distribution::TruncatedNormal, rng),
            Self::Xavier { distribution, gain } => {
                draw(n, gain * (2.0 / (fan_in + fan_out)).sqrt(), distribution, rng)
            }
            Self::Kaiming { distribution, fan, gain } => {
                let fan = match fan {
                    Fan::In => fan_in,
                    Fan::Out => fan_out,
                };
                draw(n, gain / fan.sqrt(), distribution, rng)
            }
        }
    }
}

fn fans(shape: &[usize]) -> (f64, f64) {
    let area: usize = shape.iter().skip(2).product();
    let out = shape.first().copied().unwrap_or(1);
    let inputs = shape.get(1).copied().unwrap_or(1);
    ((inputs * area).max(1) as f64, (out * area).max(1) as f64)
}

/// `n` values around 0 whose standard deviation is `std`.
fn draw(n: usize, std: f64, distribution: Distribution, rng: &mut Rng) -> Vec<f32> {
    let mut one = || match distribution {
        Distribution::Normal => std * rng.normal(),
        Distribution::Uniform => {
            let bound = 3f64.sqrt() * std;
            rng.uniform_in(-bound, bound)
        }
        Distribution::TruncatedNormal => loop {
            let z = rng.normal();
            if z.abs() <= 2.0 {
                break std / TRUNCATED_STD * z;
            }
        },
    };
    (0..n).map(|_| one() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(init: Init, shape: &[usize]) -> (f64, f64, f64) {
        let values = init.sample(shape, &mut Rng::new(5));
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        let largest = values.iter().fold(0f64, |m, &v| m.max(f64::from(v).abs()));
        (mean, var.sqrt(), largest)
    }

    #[test]
    fn every_distribution_has_the_standard_deviation_of_its_paper() {
        let shape = [64, 32, 3, 3];
        let (fan_in, fan_out) = (288f64, 576f64);
        use Distribution::{Normal, TruncatedNormal, Uniform};
        for distribution in [Normal, Uniform, TruncatedNormal] {
            for (init, expected) in [
                (Init::he(distribution, Fan::In), (2.0 / fan_in).sqrt()),
                (Init::he(distribution, Fan::Out), (2.0 / fan_out).sqrt()),
                (Init::xavier(distribution), (2.0 / (fan_in + fan_out)).sqrt()),
            ] {
                let (mean, std, largest) = moments(init, &shape);
                assert!(mean.abs() < 0.03 * expected, "{init:?}: mean {mean}");
                assert!((std / expected - 1.0).abs() < 0.02, "{init:?}: {std} against {expected}");
                if distribution == Uniform {
                    assert!(largest <= 3f64.sqrt() * expected * 1.0001);
                }
            }
        }
        let (_, std, largest) = moments(Init::TruncatedNormal { std: 0.5 }, &shape);
        assert!(largest <= 1.0 && (std / (0.5 * TRUNCATED_STD) - 1.0).abs() < 0.02);
        let (_, std, _) = moments(Init::Normal { std: 0.1 }, &shape);
        assert!((std / 0.1 - 1.0).abs() < 0.02);
    }

    #[test]
    fn a_seed_gives_the_same_values_to_the_bit() {
        let init = Init::HE_NORMAL_FAN_OUT;
        let a = init.sample(&[8, 4, 3, 3], &mut Rng::new(9));
        let b = init.sample(&[8, 4, 3, 3], &mut Rng::new(9));
        assert!(a.iter().zip(&b).all(|(x, y)| x.to_bits() == y.to_bits()));
    }

    #[test]
    fn constants_are_constant() {
        assert_eq!(Init::Zeros.sample(&[3], &mut Rng::new(0)), [0.0; 3]);
        assert_eq!(Init::Ones.sample(&[3], &mut Rng::new(0)), [1.0; 3]);
        assert_eq!(Init::Constant { value: -2.5 }.sample(&[2], &mut Rng::new(0)), [-2.5; 2]);
    }
}
