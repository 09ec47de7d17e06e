//! Launches of `reduce.cu`.

use candle_core::{DType, Result, Tensor, bail};
use tallow_cuda::{Launch, Source, Variant, pointer, run};

use super::{Map, Split, dense, optional, packs, vector};

pub(super) static SOURCE: Source = Source { name: "reduce.cu", text: include_str!("reduce.cu") };

/// `factor` · Σ a·b over the pixels of each channel, or Σ a where there is no b: `[N, C, H, W]` to `[N, C, 1, 1]`.
pub fn sum_pixels(a: &Tensor, b: Option<&Tensor>, factor: f32) -> Result<Tensor> {
    let map = Map::of(a)?;
    if let Some(b) = b {
        super::same_shape("sum-pixels", a, b)?;
    }
    if map.images > 65_535 {
        bail!("sum-pixels: {} images are more than the grid of a GPU has rows (65535)", map.images);
    }
    let (a, b) = (dense(a)?, b.map(dense).transpose()?);
    let to = Map { height: 1, width: 1, ..map }.empty(a.dtype(), a.device())?;
    let tensors: Vec<&Tensor> = std::iter::once(&a).chain(&b).collect();
    let variant = packs(map.channels, &tensors);
    let Split { lanes, grid } = Split::new(1, map.channels, variant);
    let launch = Launch::blocks(&SOURCE, variant, "sum_pixels", [grid[0], map.images as u32, 1])
        .arg(map.pixels() as i32)
        .arg(map.channels as i32)
        .arg(lanes)
        .arg(factor)
        .arg(pointer(&a)?)
        .arg(optional(b.as_ref())?)
        .arg(pointer(&to)?);
    run(a.device(), &launch)?;
    Ok(to)
}

/// Sums over all but the channels, as f32 `[C]`: of a map `[N, C, H, W]` or a matrix `[N, C]`.
pub fn column_sums(x: &Tensor) -> Result<Tensor> {
    let channels = x.dim(1)?;
    let rows = x.elem_count() / channels.max(1);
    let x = dense(x)?;
    let variant = packs(channels, &[&x]);
    let split = Split::new(rows, channels, variant);
    let partial = vector(split.count() * channels, x.device())?;
    let launch = Launch::blocks(&SOURCE, variant, "sum_rows", split.grid)
        .arg(rows as i64)
        .arg(channels as i32)
        .arg(split.lanes);
    run(x.device(), &launch.arg(pointer(&x)?).arg(pointer(&partial)?))?;
    finish_sums(&partial, split.count(), channels)
}

/// The sums of `width` columns over all splits, from partial `[splits, width]`.
pub(super) fn finish_sums(partial: &Tensor, splits: usize, width: usize) -> Result<Tensor> {
    let to = vector(width, partial.device())?;
    let variant = Variant::new(DType::F32, 1);
    let launch = Launch::blocks(&SOURCE, variant, "finish_sums", [width.div_ceil(32) as u32, 1, 1])
        .arg(splits as i32)
        .arg(width as i32);
    run(partial.device(), &launch.arg(pointer(partial)?).arg(pointer(&to)?))?;
    Ok(to)
}
