//! Launches of `norm.cu` for squeeze and excitation: of a normalised and activated map that is never written.

use candle_core::{Result, Tensor, bail};
use tallow_cuda::{Launch, pointer, run};

use super::activation::code;
use super::norm::{Affine, SOURCE};
use super::{Map, Split, check_vector, count, dense, empty_like, optional, over, packs, same_shape};
use crate::graph::Activation;

/// `share` · Σ activation(factor · x + offset) · grad over the pixels of each channel, `[N, C, 1, 1]`; without a grad,
/// it is 1.
pub fn squeeze(
    x: &Tensor,
    affine: &Affine,
    activation: Activation,
    grad: Option<&Tensor>,
    share: f32,
) -> Result<Tensor> {
    let map = Map::of(x)?;
    check_vector("squeeze", &affine.factor, map.channels)?;
    if let Some(grad) = grad {
        same_shape("squeeze", x, grad)?;
    }
    if map.images > 65_535 {
        bail!("squeeze: {} images are more than the grid of a GPU has rows (65535)", map.images);
    }
    let (x, grad) = (dense(x)?, grad.map(dense).transpose()?);
    let to = Map { height: 1, width: 1, ..map }.empty(x.dtype(), x.device())?;
    let tensors: Vec<&Tensor> = std::iter::once(&x).chain(&grad).collect();
    let variant = packs(map.channels, &tensors);
    let Split { lanes, grid } = Split::new(1, map.channels, variant);
    let (kind, slope) = code(Some(activation));
    let launch = Launch::blocks(&SOURCE, variant, "squeeze", [grid[0], map.images as u32, 1])
        .arg(kind)
        .arg(slope)
        .arg(map.pixels() as i32)
        .arg(map.channels as i32)
        .arg(lanes)
        .arg(share)
        .arg(pointer(&x)?)
        .arg(optional(grad.as_ref())?)
        .arg(pointer(&affine.factor)?)
        .arg(pointer(&affine.offset)?)
        .arg(pointer(&to)?);
    run(x.device(), &launch)?;
    Ok(to)
}

/// activation(factor · x + offset) · gate, `[N, C, 1, 1]`.
pub fn excite(x: &Tensor, affine: &Affine, activation: Activation, gate: &Tensor) -> Result<Tensor> {
    let map = Map::of(x)?;
    check_vector("excite", &affine.factor, map.channels)?;
    map.check_gate("excite", gate, x)?;
    let [x, gate] = [dense(x)?, dense(gate)?];
    let y = empty_like(&x, x.dtype())?;
    let variant = packs(map.channels, &[&x, &gate]);
    let (kind, slope) = code(Some(activation));
    let launch = over(&SOURCE, variant, "excite", map.elements())
        .arg(kind)
        .arg(slope)
        .arg(count(variant, map.elements()))
        .arg(map.pixels() as i32)
        .arg(map.channels as i32)
        .arg(pointer(&x)?)
        .arg(pointer(&affine.factor)?)
        .arg(pointer(&affine.offset)?)
        .arg(pointer(&gate)?)
        .arg(pointer(&y)?);
    run(x.device(), &launch)?;
    Ok(y)
}
