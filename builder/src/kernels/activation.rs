//! Elementwise nonlinearities and their derivatives.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::cpu::{GRAIN, contiguous, storage, values, vectorised};
use super::gpu;
use crate::graph::Activation;

/// A nonlinearity as a candle op.
#[derive(Clone, Copy, Debug)]
pub struct ActivationKernel(pub Activation);

impl ActivationKernel {
    /// The nonlinearity of x of any shape, tracked by candle's autograd where x is.
    ///
    /// # Errors
    /// Where x is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if gpu::takes(&[x]) {
            return gpu::activation(self.0, x);
        }
        contiguous(x)?.apply_op1(*self)
    }

    /// Gradient of x, given y = f(x).
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn input_gradient(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
        if gpu::is_on_gpu(x) {
            return gpu::activation_gradient(self.0, x, y, grad);
        }
        contiguous(x)?.apply_op3_no_bwd(&contiguous(y)?, &contiguous(grad)?, &Gradient(self.0))
    }
}

impl CustomOp1 for ActivationKernel {
    fn name(&self) -> &'static str {
        self.0.kind()
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(self.name(), x, layout)?;
        let y = match self.0 {
            Activation::Relu => map(x, relu),
            Activation::Relu6 => map(x, |x| if x > 6.0 { 6.0 } else { relu(x) }),
            Activation::LeakyRelu { slope } => {
                let slope = slope as f32;
                map(x, move |x| if x > 0.0 { x } else { slope * x })
            }
            Activation::Sigmoid { slope } => {
                let slope = slope as f32;
                map(x, move |x| sigmoid(slope * x))
            }
            Activation::Tanh => map(x, f32::tanh),
            Activation::Silu => map(x, |x| x * sigmoid(x)),
            Activation::HardSwish => map(x, |x| x * ((x + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0))),
        };
        Ok((storage(y), layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(x, layout)], |[x]| self.forward(x))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.input_gradient(x, y, grad).map(Some)
    }
}

struct Gradient(Activation);

impl CustomOp3 for Gradient {
    fn name(&self) -> &'static str {
        "activation-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = values(self.name(), x, x_layout)?;
        let y = values(self.name(), y, y_layout)?;
        let grad = values(self.name(), grad, grad_layout)?;
        let dx = match self.0 {
            Activation::Relu => product(y, grad, |y| f32::from(u8::from(y > 0.0))),
            Activation::Relu6 => product(y, grad, |y| f32::from(u8::from(y > 0.0 && y < 6.0))),
            Activation::LeakyRelu { slope } => {
                let slope = slope as f32;
                product(x, grad, move |x| if x > 0.0 { 1.0 } else { slope })
            }
            Activation::Sigmoid { slope } => {
                let slope = slope as f32;
                product(y, grad, move |y| slope * y * (1.0 - y))
            }
            Activation::Tanh => product(y, grad, |y| 1.0 - y * y),
            Activation::Silu => product(x, grad, |x| {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }),
            Activation::HardSwish => product(x, grad, |x| {
                if x <= -3.0 {
                    0.0
                } else if x >= 3.0 {
                    1.0
                } else {
                    (2.0 * x + 3.0) * (1.0 / 6.0)
                }
            }),
        };
        Ok((storage(dx), x_layout.shape().clone()))
    }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // Written so that NaN stays NaN: a comparison with it is false.
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// eˣ without a call, so that loops over it vectorise: e^x = 2^n·e^r with |r| ≤ ln 2 / 2, and e^r by its Taylor
/// polynomial of degree 7, whose error there is 3e-9. Saturates beyond ±87, keeps NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5·2²³ rounds to an integer, which the low bits of the sum then hold.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: n times the first is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    sum * f32::from_bits(exponent)
}

fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(y, x)| {
        vectorised(|| {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(x);
            }
        });
    });
    y
}

fn product(at: &[f32], grad: &[f32], derivative: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut dx = vec![0f32; at.len()];
    dx.par_chunks_mut(GRAIN).zip(at.par_chunks(GRAIN).zip(grad.par_chunks(GRAIN))).for_each(
        |(dx, (at, grad))| {
            vectorised(|| {
                for (dx, (&at, &g)) in dx.iter_mut().zip(at.iter().zip(grad)) {
                    *dx = g * derivative(at);
                }
            });
        },
    );
    dx
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -86_999..=86_999 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): relative error {error}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e9) < 1e-37 && exp(1e9) > 1e37);
    }
}
