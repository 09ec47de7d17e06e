//! Launches of `activation.cu` within `elementwise.cu`.

use candle_core::{Result, Tensor};
use tallow_cuda::{pointer, run};

use super::elementwise::SOURCE;
use super::{count, dense, empty_like, over, packs, same_shape};
use crate::graph::Activation;

/// The number and the slope that `activation.cu` knows an activation by.
pub(super) fn code(activation: Option<Activation>) -> (i32, f32) {
    match activation {
        None => (0, 0.0),
        Some(Activation::Relu) => (1, 0.0),
        Some(Activation::Relu6) => (2, 0.0),
        Some(Activation::LeakyRelu { slope }) => (3, slope as f32),
        Some(Activation::Sigmoid { slope }) => (4, slope as f32),
        Some(Activation::Tanh) => (5, 0.0),
        Some(Activation::Silu) => (6, 0.0),
        Some(Activation::HardSwish) => (7, 0.0),
    }
}

/// The activation of every element.
pub fn activation(kind: Activation, x: &Tensor) -> Result<Tensor> {
    let x = dense(x)?;
    let y = empty_like(&x, x.dtype())?;
    let variant = packs(x.elem_count(), &[&x]);
    let (kind, slope) = code(Some(kind));
    let launch = over(&SOURCE, variant, "activation", x.elem_count()).arg(kind).arg(slope);
    let launch = launch.arg(count(variant, x.elem_count())).arg(pointer(&x)?).arg(pointer(&y)?);
    run(x.device(), &launch)?;
    Ok(y)
}

/// The gradient of x, given y and the gradient of y.
pub fn activation_gradient(kind: Activation, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    same_shape("activation-gradient", x, grad)?;
    let [x, y, grad] = [dense(x)?, dense(y)?, dense(grad)?];
    let dx = empty_like(&x, x.dtype())?;
    let variant = packs(x.elem_count(), &[&x, &y, &grad]);
    let (kind, slope) = code(Some(kind));
    let launch = over(&SOURCE, variant, "activation_gradient", x.elem_count())
        .arg(kind)
        .arg(slope)
        .arg(count(variant, x.elem_count()))
        .arg(pointer(&x)?)
        .arg(pointer(&y)?)
        .arg(pointer(&grad)?)
        .arg(pointer(&dx)?);
    run(x.device(), &launch)?;
    Ok(dx)
}
