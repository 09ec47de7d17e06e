//! Fully connected layers, and the arithmetic of whole tensors that layers need besides.

use candle_core::{DType, Result, Tensor};

use super::gpu;

/// y = x·Wᵀ + b for x `[N, F]`, W `[K, F]` and an optional b `[K]`, in the type of x.
///
/// # Errors
/// Where the shapes do not fit together.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&like(weight, x)?.t()?)?;
    match bias {
        Some(bias) if gpu::is_on_gpu(x) => {
            gpu::add_bias(&y, bias)?;
            Ok(y)
        }
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// The gradient of x.
///
/// # Errors
/// Where the shapes do not fit together.
pub fn linear_input_gradient(weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
    grad.matmul(&like(weight, grad)?)
}

/// The gradient of W, f32 `[K, F]`.
///
/// # Errors
/// Where the shapes do not fit together.
pub fn linear_weight_gradient(x: &Tensor, grad: &Tensor) -> Result<Tensor> {
    let gradient = grad.t()?.matmul(x)?;
    if gpu::is_on_gpu(x) { gpu::cast(&gradient, DType::F32) } else { Ok(gradient) }
}

/// The gradient of b, f32 `[K]`.
///
/// # Errors
/// Where the gradient is no matrix.
pub fn linear_bias_gradient(grad: &Tensor) -> Result<Tensor> {
    if gpu::is_on_gpu(grad) { gpu::column_sums(grad) } else { grad.sum(0) }
}

/// A parameter in the type that a layer computes in.
fn like(parameter: &Tensor, x: &Tensor) -> Result<Tensor> {
    if gpu::is_on_gpu(x) { gpu::cast(parameter, x.dtype()) } else { Ok(parameter.clone()) }
}

/// The same values as another type, from or to f32.
///
/// # Errors
/// Where there is no such kernel.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if gpu::is_on_gpu(x) { gpu::cast(x, dtype) } else { x.to_dtype(dtype) }
}

/// a + b for tensors of one shape.
///
/// # Errors
/// Where the shapes differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if gpu::is_on_gpu(a) { gpu::add(a, b) } else { a + b }
}
