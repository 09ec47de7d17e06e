//! Sigmoid and SiLU to the last places of an f32, in place of tract's own.
//!
//! tract's are rational fits that stop at ±14.5: there its sigmoid is 4.8e-7 instead of e^x, its SiLU -6.9e-6 instead
//! of x·e^x. That is within a tolerance for one layer, but a network whose logits are small differences of large
//! activations multiplies it beyond one. (Its tanh is off by 6e-7 at most, which is a rounding error of the 1 it is
//! near.) These are built on tract's exponential, which is within two units in the last
//! place over the whole range and as fast as the processor allows.

use tract_linalg::multithread::par_chunks_mut;
use tract_linalg::routines::Func;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::nn::{Sigmoid, Silu};

/// Puts accurate activations in the place of tract's, in a model that has been decluttered: only there are SiLUs whole.
pub(super) fn replace(model: &mut TypedModel) {
    for node in &mut model.nodes {
        let is_f32 = node.outputs.iter().all(|output| output.fact.datum_type == f32::datum_type());
        let Some(op) = node.op.downcast_ref::<ElementWiseOp>() else { continue };
        let accurate = match () {
            () if op.0.is::<Sigmoid>() => Accurate::Sigmoid,
            () if op.0.is::<Silu>() => Accurate::Silu,
            () => continue,
        };
        if is_f32 {
            node.op = Box::new(ElementWiseOp(Box::new(accurate), op.1));
        }
    }
}

/// Elements worked on at a time: their exponentials stay in the processor's first cache.
const CHUNK: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accurate {
    Sigmoid,
    Silu,
}

impl ElementWiseMiniOp for Accurate {
    fn name(&self) -> String {
        format!("Accurate{self:?}")
    }

    fn eval_in_place(&self, tensor: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let mut plain = tensor.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f32>()?;
        let len = values.len();
        par_chunks_mut(values, 1, len, |_, part| self.apply(part))
    }
}

impl Accurate {
    fn apply(self, values: &mut [f32]) -> TractResult<()> {
        let exp = Func::Exp.ew_f32()?;
        let mut buffer = [0f32; CHUNK];
        for values in values.chunks_mut(CHUNK) {
            let powers = &mut buffer[..values.len()];
            powers.iter_mut().zip(values.iter()).for_each(|(power, x)| *power = -x);
            exp.run(powers)?;
            // e^-x is infinite below -88, where both functions are 0 to within 1e-36.
            match self {
                Self::Sigmoid => {
                    values.iter_mut().zip(powers).for_each(|(x, power)| *x = 1.0 / (1.0 + *power));
                }
                Self::Silu => values.iter_mut().zip(powers).for_each(|(x, power)| *x /= 1.0 + *power),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigmoid_and_silu_are_exact_to_the_last_places_everywhere() {
        // More than a chunk, and no whole number of the kernels' lanes.
        let xs: Vec<f32> = (-8701..=8701).map(|i| i as f32 * 1e-2).collect();
        for (op, exact) in [
            (Accurate::Sigmoid, (|x| 1.0 / (1.0 + (-x).exp())) as fn(f64) -> f64),
            (Accurate::Silu, |x| x / (1.0 + (-x).exp())),
        ] {
            let mut tensor = Tensor::from_shape(&[xs.len()], &xs).unwrap();
            op.eval_in_place(&mut tensor, None).unwrap();
            let ys = tensor.to_plain_array_view::<f32>().unwrap();
            for (&x, &y) in xs.iter().zip(&ys) {
                let expected = exact(f64::from(x));
                let error = (f64::from(y) - expected).abs();
                assert!(error <= 4e-7 * expected.abs(), "{op:?}({x}) is {y} instead of {expected}");
            }
        }
    }
}
