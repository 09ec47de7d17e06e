//! Masks of dropout and stochastic depth.

use candle_core::{Device, Result, Shape, Tensor};

use crate::rng::Rng;

/// A tensor of `shape` whose elements are 0 with probability `p` and 1/(1 − p) otherwise, so that a product with it
/// keeps the mean (Srivastava et al. 2014, inverted form).
///
/// # Errors
/// Where the device has no room.
pub fn dropout_mask(
    shape: impl std::convert::Into<Shape>,
    p: f64,
    rng: &mut Rng,
    device: &Device,
) -> Result<Tensor> {
    let shape = shape.into();
    let keep = (1.0 / (1.0 - p)) as f32;
    let mask = (0..shape.elem_count()).map(|_| if rng.chance(p) { 0.0 } else { keep });
    Tensor::from_vec(mask.collect(), shape, device)
}
