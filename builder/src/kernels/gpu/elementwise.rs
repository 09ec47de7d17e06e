//! Launches of `elementwise.cu`.

use candle_core::{DType, Result, Tensor, bail};
use tallow_cuda::{Source, pointer, run};

use super::super::dropout::{Dropout, DropoutUnit};
use super::{Map, check_vector, count, dense, empty_like, over, packs, same_shape};

pub(super) static SOURCE: Source = Source {
    name: "elementwise.cu",
    text: concat!(include_str!("activation.cu"), include_str!("elementwise.cu")),
};

/// a + b.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_shape("add", a, b)?;
    let [a, b] = [dense(a)?, dense(b)?];
    let sum = empty_like(&a, a.dtype())?;
    let variant = packs(a.elem_count(), &[&a, &b]);
    let launch = over(&SOURCE, variant, "add", a.elem_count()).arg(count(variant, a.elem_count()));
    run(a.device(), &launch.arg(pointer(&a)?).arg(pointer(&b)?).arg(pointer(&sum)?))?;
    Ok(sum)
}

/// x `[N, …]` after dropout.
pub fn dropout(x: &Tensor, dropout: &Dropout) -> Result<Tensor> {
    let x = dense(x)?;
    let y = empty_like(&x, x.dtype())?;
    let (pixels, channels) = match *x.dims() {
        [_, channels, height, width] => (height * width, channels),
        _ => (1, x.elem_count() / x.dim(0)?.max(1)),
    };
    let variant = packs(channels, &[&x]);
    let launch = over(&SOURCE, variant, "dropout", x.elem_count())
        .arg(count(variant, x.elem_count()))
        .arg(pixels as i32)
        .arg(channels as i32)
        .arg(i32::from(dropout.unit == DropoutUnit::Image))
        .arg(dropout.seed.cast_signed())
        .arg(dropout.threshold().cast_signed())
        .arg(dropout.factor());
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&y)?))?;
    Ok(y)
}

/// The same values as another type; from or to f32.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return dense(x);
    }
    let x = dense(x)?;
    let y = empty_like(&x, dtype)?;
    let (kernel, variant) = match (x.dtype(), dtype) {
        (DType::F32, _) => ("narrow", packs(x.elem_count(), &[&y, &x])),
        (_, DType::F32) => ("widen", packs(x.elem_count(), &[&x])),
        (from, to) => bail!("cast: from {from:?} to {to:?}"),
    };
    let launch = over(&SOURCE, variant, kernel, x.elem_count()).arg(count(variant, x.elem_count()));
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&y)?))?;
    Ok(y)
}

/// Adds one f32 number a channel to `y`, the last axis of a matrix or the channels of a map, in place: `y` must be new.
pub fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let channels = y.dim(1)?;
    check_vector("add-bias", bias, channels)?;
    let bias = bias.contiguous()?;
    let variant = packs(channels, &[y, &bias]);
    let launch = over(&SOURCE, variant, "add_bias", y.elem_count()).arg(count(variant, y.elem_count()));
    run(y.device(), &launch.arg(channels as i32).arg(pointer(&bias)?).arg(pointer(y)?))
}

/// x `[N, C, H, W]` times a factor for each image and channel, `[N, C, 1, 1]`.
pub fn channel_scale(x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let map = Map::of(x)?;
    map.check_gate("channel-scale", scale, x)?;
    let [x, scale] = [dense(x)?, dense(scale)?];
    let y = empty_like(&x, x.dtype())?;
    let variant = packs(map.channels, &[&x, &scale]);
    let launch = over(&SOURCE, variant, "channel_scale", map.elements())
        .arg(count(variant, map.elements()))
        .arg(map.pixels() as i32)
        .arg(map.channels as i32);
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&scale)?).arg(pointer(&y)?))?;
    Ok(y)
}

/// `factor` times x `[N, C, 1, 1]` at every pixel of a map of [height, width].
pub fn spread(x: &Tensor, size: [usize; 2], factor: f32) -> Result<Tensor> {
    let Map { images, channels, .. } = Map::of(x)?;
    let map = Map { images, channels, height: size[0], width: size[1] };
    let x = dense(x)?;
    let y = map.empty(x.dtype(), x.device())?;
    let variant = packs(channels, &[&x]);
    let launch = over(&SOURCE, variant, "spread", map.elements())
        .arg(count(variant, map.elements()))
        .arg(map.pixels() as i32)
        .arg(channels as i32)
        .arg(factor);
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&y)?))?;
    Ok(y)
}
