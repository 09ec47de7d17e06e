//! Launches of `layout.cu`.

use candle_core::{DType, Result, Tensor};
use tallow_cuda::{Launch, Source, Variant, pointer, run};

use super::{Map, count, dense, over, packs};

pub(super) static SOURCE: Source = Source { name: "layout.cu", text: include_str!("layout.cu") };

/// A filter `[O, I, kh, kw]` as `[O, kh, kw, I]` of another element type.
pub(super) fn pack_filter(weight: &Tensor, dtype: DType) -> Result<Tensor> {
    let (filters, inputs, height, width) = weight.dims4()?;
    pack(weight, (filters, height, width, inputs), inputs, false, dtype)
}

/// A depthwise filter `[C, 1, kh, kw]` as f32 `[kh, kw, C]`, its taps reversed if `flip`.
pub(super) fn pack_depthwise(weight: &Tensor, flip: bool) -> Result<Tensor> {
    let (channels, _, height, width) = weight.dims4()?;
    pack(weight, (height, width, 1, channels), channels, flip, DType::F32)
}

fn pack(
    weight: &Tensor,
    shape: (usize, usize, usize, usize),
    inner: usize,
    flip: bool,
    dtype: DType,
) -> Result<Tensor> {
    let (_, _, height, width) = weight.dims4()?;
    let weight = weight.contiguous()?;
    let packed = tallow_cuda::empty(shape, dtype, weight.device())?;
    let launch = Launch::over(&SOURCE, Variant::new(dtype, 1), "pack_filter", weight.elem_count())
        .arg(weight.elem_count() as i64)
        .arg(inner as i32)
        .arg((height * width) as i32)
        .arg(i32::from(flip));
    run(weight.device(), &launch.arg(pointer(&weight)?).arg(pointer(&packed)?))?;
    Ok(packed)
}

/// A packed filter, or its gradient, as f32 of `shape` `[O, I, kh, kw]`; of a depthwise one, [`pack_depthwise`]'s
/// form, `inner` is C, else it is I.
pub(super) fn unpack_filter(packed: &Tensor, shape: [usize; 4], inner: usize) -> Result<Tensor> {
    let filter = tallow_cuda::empty(shape.to_vec(), DType::F32, packed.device())?;
    let launch = Launch::over(&SOURCE, Variant::new(packed.dtype(), 1), "unpack_filter", packed.elem_count())
        .arg(packed.elem_count() as i64)
        .arg(inner as i32)
        .arg((shape[2] * shape[3]) as i32);
    run(packed.device(), &launch.arg(pointer(packed)?).arg(pointer(&filter)?))?;
    Ok(filter)
}

/// A map of [height, width] in which x lies `top` rows down and `left` columns to the right: zeros are around it, and
/// what sticks out is cut off.
pub(super) fn place(x: &Tensor, [height, width]: [usize; 2], [top, left]: [i32; 2]) -> Result<Tensor> {
    let map = Map::of(x)?;
    let to = Map { height, width, ..map };
    let x = dense(x)?;
    let y = to.empty(x.dtype(), x.device())?;
    let variant = packs(map.channels, &[&x]);
    let launch = over(&SOURCE, variant, "place", to.elements()).arg(count(variant, to.elements()));
    let sizes = [map.height, map.width, to.height, to.width, map.channels];
    let launch = sizes.into_iter().fold(launch, |launch, size| launch.arg(size as i32)).arg(top).arg(left);
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&y)?))?;
    Ok(y)
}
