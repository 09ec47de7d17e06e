//! The kernels for GPUs, in f32, f16 and bf16: what the CPU's kernels compute, and more of it at once.
//!
//! Inside, a feature map is [images, height, width, channels] in memory (channels last), which is what tensor cores
//! and coalesced reads want; outside it is a tensor of shape `[N, C, H, W]` with the strides of that. Parameters and
//! their gradients are f32 in the order in which they are kept. Sums are in f32 and f64 whatever the elements are.
//!
//! Each file here prepares the launches of the `.cu` file of its name; convolutions other than depthwise go to cuDNN.

mod activation;
mod conv;
#[cfg(feature = "cuda")]
mod cudnn;
mod depthwise;
mod elementwise;
mod gate;
mod layout;
mod loss;
mod norm;
mod pool;
mod reduce;

use candle_core::{DType, Device, Result, Tensor, bail};
use tallow_cuda::{BLOCK, Launch, Source, Variant, pointer};

pub(super) use activation::{activation, activation_gradient};
pub(super) use conv::{conv2d, conv2d_input_gradient, conv2d_weight_gradient};
pub(super) use elementwise::{add, add_bias, cast, channel_scale, dropout, spread};
pub(super) use gate::{excite, squeeze};
pub use loss::Loss;
pub(super) use loss::{cross_entropy, tally};
pub(super) use norm::{Affine, Gate, Normed, affine, moments, norm, norm_gradients, reduced_moments, track};
pub use norm::{NormGradients, Then};
pub(super) use pool::{avg_pool, avg_pool_gradient, max_pool, max_pool_gradient};
pub(super) use reduce::{column_sums, sum_pixels};
pub(super) use tallow_cuda::is_on_gpu;

/// Lets products of f32 on a GPU round their factors to TF32's 11 bits, from now on, or not.
pub fn allow_tf32(allowed: bool) {
    #[cfg(feature = "cuda")]
    {
        cudnn::allow_tf32(allowed);
        candle_core::cuda_backend::set_gemm_reduced_precision_f32(allowed);
    }
    // Elsewhere there are no such products.
    #[cfg(not(feature = "cuda"))]
    let _ = allowed;
}

/// Whether the kernels here are to compute with these tensors, the first of which decides where, and autograd, which
/// cannot follow them, does not look on.
pub(super) fn takes(tensors: &[&Tensor]) -> bool {
    is_on_gpu(tensors[0]) && !tensors.iter().any(|tensor| tensor.track_op())
}

/// A custom op of candle's by a function on tensors: for autograd, which hands out storages. They are copied.
#[cfg(feature = "cuda")]
pub(super) fn custom_op<const N: usize>(
    arguments: [(&candle_core::CudaStorage, &candle_core::Layout); N],
    op: impl FnOnce([&Tensor; N]) -> Result<Tensor>,
) -> Result<(candle_core::CudaStorage, candle_core::Shape)> {
    use candle_core::backend::BackendStorage;
    let mut tensors = Vec::with_capacity(N);
    for (storage, layout) in arguments {
        tensors.push(tallow_cuda::copied(storage, layout)?);
    }
    let result = op(std::array::from_fn(|i| &tensors[i]))?.contiguous()?;
    let (storage, layout) = result.storage_and_layout();
    match &*storage {
        candle_core::Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
        _ => bail!("a kernel for GPUs gave a tensor of the CPU"),
    }
}

/// The sizes of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Map {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Map {
    fn of(x: &Tensor) -> Result<Self> {
        let (images, channels, height, width) = x.dims4()?;
        Ok(Self { images, height, width, channels })
    }

    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Rows of the matrix [rows, channels] that the map is.
    fn rows(&self) -> usize {
        self.images * self.pixels()
    }

    fn elements(&self) -> usize {
        self.rows() * self.channels
    }

    /// Refuses what is not one factor an image and channel, `[N, C, 1, 1]`, in the type of a map.
    fn check_gate(&self, op: &str, gate: &Tensor, x: &Tensor) -> Result<()> {
        if gate.dims() != [self.images, self.channels, 1, 1] || gate.dtype() != x.dtype() {
            bail!("{op}: a scale of {:?} {:?} does not fit {:?}", gate.dtype(), gate.dims(), x.dims());
        }
        Ok(())
    }

    /// A map of these sizes to be written, channels last.
    fn empty(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let shape = (self.images, self.height, self.width, self.channels);
        tallow_cuda::empty(shape, dtype, device)?.permute((0, 3, 1, 2))
    }
}

/// A feature map with its channels last in memory, or any other tensor in the order of its shape; without a copy
/// where it is so already: as all kernels for GPUs take it.
///
/// # Errors
/// Where the device has no room.
pub fn dense(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        4 => x.permute((0, 2, 3, 1))?.contiguous()?.permute((0, 3, 1, 2)),
        _ => x.contiguous(),
    }
}

/// A tensor to be written with the shape and order of a [`dense`] one.
fn empty_like(x: &Tensor, dtype: DType) -> Result<Tensor> {
    match x.rank() {
        4 => Map::of(x)?.empty(dtype, x.device()),
        _ => tallow_cuda::empty(x.shape(), dtype, x.device()),
    }
}

/// A vector of f32 to be written.
fn vector(length: usize, device: &Device) -> Result<Tensor> {
    tallow_cuda::empty(length, DType::F32, device)
}

/// The address of a tensor that may be left out.
fn optional(tensor: Option<&Tensor>) -> Result<u64> {
    tensor.map_or(Ok(0), pointer)
}

/// Elements of 16 bytes, or one where rows of `length` elements cannot be divided so, or a tensor does not begin at
/// such a place. The first tensor's elements are the variant's.
fn packs(length: usize, tensors: &[&Tensor]) -> Variant {
    let element = tensors[0].dtype();
    let vector = 16 / element.size_in_bytes();
    let aligned = tensors.iter().all(|t| t.layout().start_offset().is_multiple_of(8));
    let fits = length.is_multiple_of(vector) && aligned;
    Variant::new(element, if fits { vector as u8 } else { 1 })
}

fn count(variant: Variant, elements: usize) -> i64 {
    (elements / usize::from(variant.vector)) as i64
}

/// How a reduction over the rows of [rows, channels] is dealt out.
struct Split {
    /// Packs of channels beside each other in a block.
    lanes: i32,
    /// Blocks over the packs and over the rows.
    grid: [u32; 3],
}

/// Blocks at most along the rows: partial sums are added up in a second launch.
const SPLITS: usize = 256;

impl Split {
    fn new(rows: usize, channels: usize, variant: Variant) -> Self {
        let packs = channels / usize::from(variant.vector);
        let lanes = packs.next_power_of_two().min(32);
        let across = packs.div_ceil(lanes);
        // At least eight rows a thread, and no more blocks than keep any GPU busy.
        let down = rows.div_ceil(BLOCK as usize / lanes * 8).clamp(1, (1024 / across).clamp(1, SPLITS));
        Self { lanes: lanes as i32, grid: [across as u32, down as u32, 1] }
    }

    fn count(&self) -> usize {
        self.grid[1] as usize
    }
}

/// A launch whose threads deal the packs of `elements` out among themselves; the number of packs is an argument of it
/// that the caller adds in its place.
fn over(source: &'static Source, variant: Variant, kernel: &'static str, elements: usize) -> Launch {
    Launch::over(source, variant, kernel, elements / usize::from(variant.vector))
}

fn same_shape(op: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        bail!("{op}: {:?} {:?} does not fit {:?} {:?}", a.dtype(), a.dims(), b.dtype(), b.dims());
    }
    Ok(())
}

fn check_vector(op: &str, vector: &Tensor, length: usize) -> Result<()> {
    if vector.dims() != [length] || vector.dtype() != DType::F32 {
        bail!("{op}: {:?} {:?} are no f32 parameters of {length} channels", vector.dtype(), vector.dims());
    }
    Ok(())
}

/// NVRTC needs no GPU: that the sources compile is tested wherever its library is.
#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;

    #[test]
    fn every_source_compiles_for_every_element_type_and_pack() {
        let sources = [
            &elementwise::SOURCE,
            &layout::SOURCE,
            &loss::SOURCE,
            &norm::SOURCE,
            &pool::SOURCE,
            &reduce::SOURCE,
            &depthwise::SOURCE,
        ];
        for source in sources {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                for vector in [1, 2, (16 / dtype.size_in_bytes()) as u8] {
                    let parameters = [5, 5, 2, 2, 1, 1];
                    let variant = Variant { parameters, ..Variant::new(dtype, vector) };
                    for capability in [(8, 0), (9, 0)] {
                        if let Err(error) = tallow_cuda::compile(source, variant, capability) {
                            panic!("{} {dtype:?} {vector}: {error}", source.name);
                        }
                    }
                }
            }
        }
    }
}
