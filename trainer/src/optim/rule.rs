//! Elementwise arithmetic on tensors of one shape, in one pass over the memory.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::error::Result;

/// Elements that a thread takes at a time.
const CHUNK: usize = 64 * 1024;

/// f(a, b) for every element.
pub(super) fn combine2(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static,
) -> Result<Tensor> {
    Ok(a.contiguous()?.apply_op2_no_bwd(&b.contiguous()?, &Elementwise(f))?)
}

/// f(a, b, c) for every element.
pub(super) fn combine3(
    a: &Tensor,
    b: &Tensor,
    c: &Tensor,
    f: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static,
) -> Result<Tensor> {
    Ok(a.contiguous()?.apply_op3_no_bwd(&b.contiguous()?, &c.contiguous()?, &Elementwise(f))?)
}

/// Σ a², summed in f64.
pub(super) fn square_sum(a: &Tensor) -> Result<f64> {
    Ok(a.contiguous()?.apply_op1_no_bwd(&SquareSum)?.to_scalar()?)
}

struct Elementwise<F>(F);

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("the optimiser computes on contiguous f32 tensors"),
    }
}

fn same_shape(a: &Layout, b: &Layout) -> candle_core::Result<()> {
    if a.shape() != b.shape() {
        bail!("a gradient of shape {:?} does not fit a parameter of shape {:?}", b.dims(), a.dims());
    }
    Ok(())
}

impl<F: Fn(f32, f32) -> f32 + Sync> CustomOp2 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "optimiser-rule"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        same_shape(layout, b_layout)?;
        let (a, b) = (values(a, layout)?, values(b, b_layout)?);
        let mut result = vec![0f32; a.len()];
        result.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK))).for_each(
            |(out, (a, b))| {
                for (out, (&a, &b)) in out.iter_mut().zip(a.iter().zip(b)) {
                    *out = (self.0)(a, b);
                }
            },
        );
        Ok((CpuStorage::F32(result), layout.shape().clone()))
    }
}

impl<F: Fn(f32, f32, f32) -> f32 + Sync> CustomOp3 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "optimiser-rule"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
        c: &CpuStorage,
        c_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        same_shape(layout, b_layout)?;
        same_shape(layout, c_layout)?;
        let (a, b, c) = (values(a, layout)?, values(b, b_layout)?, values(c, c_layout)?);
        let mut result = vec![0f32; a.len()];
        result
            .par_chunks_mut(CHUNK)
            .zip(a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).zip(c.par_chunks(CHUNK)))
            .for_each(|(out, ((a, b), c))| {
                for (out, ((&a, &b), &c)) in out.iter_mut().zip(a.iter().zip(b).zip(c)) {
                    *out = (self.0)(a, b, c);
                }
            });
        Ok((CpuStorage::F32(result), layout.shape().clone()))
    }
}

struct SquareSum;

impl CustomOp1 for SquareSum {
    fn name(&self) -> &'static str {
        "square-sum"
    }

    fn cpu_fwd(&self, a: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let chunk = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
        // Collected first and then summed in order, so that the result does not depend on the threads.
        let sums: Vec<f64> = values(a, layout)?.par_chunks(CHUNK).map(chunk).collect();
        Ok((CpuStorage::F64(vec![sums.iter().sum()]), Shape::from(())))
    }
}
