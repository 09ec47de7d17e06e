//! Dropout and stochastic depth.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cpu::{GRAIN, contiguous, storage, values};
use super::gpu;
use crate::rng::{Rng, random_bits};

/// What is dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutUnit {
    /// Single elements: dropout.
    Element,
    /// Whole images: stochastic depth (Huang et al. 2016, "Deep networks with stochastic depth", section 3).
    Image,
}

/// Products with 0 with probability p and with 1/(1 − p) otherwise, which keep the mean (Srivastava et al. 2014, inverted
/// form). What is dropped depends on one number that was drawn and on the place of an element or image alone, so that
/// nothing is stored and every device drops the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    pub(super) unit: DropoutUnit,
    p: f64,
    pub(super) seed: u64,
}

impl Dropout {
    /// Draws what will be dropped with probability `p`, in [0, 1).
    pub fn draw(unit: DropoutUnit, p: f64, rng: &mut Rng) -> Self {
        Self { unit, p, seed: rng.next_u64() }
    }

    /// x `[N, …]` after dropout, tracked by candle's autograd where x is. The gradient of x is the same of y's.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x]) {
            return gpu::dropout(x, self);
        }
        contiguous(x)?.apply_op1(*self)
    }

    /// Upper halves of random bits below this drop.
    pub(super) fn threshold(&self) -> u32 {
        (self.p * f64::from(u32::MAX)).round() as u32
    }

    /// What kept elements are multiplied with.
    pub(super) fn factor(&self) -> f32 {
        (1.0 / (1.0 - self.p)) as f32
    }

    /// The factor of an element or image, by its place.
    fn factor_at(&self, place: usize) -> f32 {
        let drops = ((random_bits(self.seed, place as u64) >> 32) as u32) < self.threshold();
        if drops { 0.0 } else { self.factor() }
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(self.name(), x, layout)?;
        let unit = match self.unit {
            DropoutUnit::Element => 1,
            DropoutUnit::Image => x.len() / layout.dims()[0].max(1),
        }
        .max(1);
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(unit)
            .with_min_len(GRAIN.div_ceil(unit))
            .zip(x.par_chunks(unit))
            .enumerate()
            .for_each(|(place, (y, x))| {
                let factor = self.factor_at(place);
                for (y, x) in y.iter_mut().zip(x) {
                    *y = factor * x;
                }
            });
        Ok((storage(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(x, layout)], |[x]| self.forward(x))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.forward(grad)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// The shares of what is dropped, over all and at neighbouring places, are those of independent draws.
    #[test]
    fn elements_drop_independently_and_keep_the_mean() {
        let n = 200_000;
        let ones = Tensor::ones(n, candle_core::DType::F32, &Device::Cpu).unwrap();
        for p in [0.1, 0.2, 0.5, 0.9] {
            let dropout = Dropout::draw(DropoutUnit::Element, p, &mut Rng::new(5));
            let y: Vec<f32> = dropout.forward(&ones).unwrap().to_vec1().unwrap();
            assert!(y.iter().all(|&v| v == 0.0 || v == dropout.factor()));
            let share = |dropped: &dyn Fn(usize) -> bool| {
                (0..n - 64).filter(|&i| dropped(i)).count() as f64 / (n - 64) as f64
            };
            assert!((share(&|i| y[i] == 0.0) - p).abs() < 0.005, "{p}");
            for lag in [1, 2, 4, 64] {
                let both = share(&|i| y[i] == 0.0 && y[i + lag] == 0.0);
                assert!((both - p * p).abs() < 0.006, "{p}, {lag} apart: {both}");
            }
        }
    }

    #[test]
    fn draws_differ_and_images_go_as_a_whole() {
        let ones = Tensor::ones((64, 3, 5, 7), candle_core::DType::F32, &Device::Cpu).unwrap();
        let mut rng = Rng::new(9);
        let mut draw = || {
            let y = Dropout::draw(DropoutUnit::Image, 0.4, &mut rng).forward(&ones).unwrap();
            let y: Vec<Vec<f32>> = y.flatten_from(1).unwrap().to_vec2().unwrap();
            assert!(y.iter().all(|image| image.iter().all(|v| *v == image[0])));
            y.iter().map(|image| image[0] == 0.0).collect::<Vec<bool>>()
        };
        let dropped = draw();
        assert!((10..42).contains(&dropped.iter().filter(|d| **d).count()), "{dropped:?}");
        assert_ne!(draw(), dropped);
    }
}
