//! 2-D convolution and its three gradients as candle ops: a matrix product ([`im2col`]), or direct loops where each
//! filter sees one channel ([`depthwise`]).

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::columns::Geometry;
use super::cpu::{contiguous, dims4, storage, values};
use super::{depthwise, gpu, im2col};
use crate::graph::Window;

/// Convolution of x `[N, C, H, W]` with weight `[O, C/groups, kh, kw]` and an optional bias `[O]`.
#[derive(Clone, Copy, Debug)]
pub struct Conv2dKernel {
    /// Kernel, stride, dilation and padding.
    pub window: Window,
    /// Channel groups.
    pub groups: usize,
}

impl Conv2dKernel {
    /// The convolution, tracked by candle's autograd where an argument is.
    ///
    /// # Errors
    /// Where the shapes do not fit together, or the tensors are not f32.
    pub fn forward(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let arguments: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
        if gpu::takes(&arguments) {
            return gpu::conv2d(*self, x, weight, bias);
        }
        let (x, weight) = (contiguous(x)?, contiguous(weight)?);
        match bias {
            Some(bias) => x.apply_op3(&weight, &contiguous(bias)?, *self),
            None => x.apply_op2(&weight, *self),
        }
    }

    /// Gradient of the input, given the input's height and width.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn input_gradient(&self, weight: &Tensor, grad: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        if gpu::is_on_gpu(grad) {
            return gpu::conv2d_input_gradient(*self, weight, grad, size);
        }
        contiguous(grad)?.apply_op2_no_bwd(&contiguous(weight)?, &InputGradient { conv: *self, size })
    }

    /// Gradient of the weight.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn weight_gradient(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        if gpu::is_on_gpu(grad) {
            return gpu::conv2d_weight_gradient(*self, x, grad);
        }
        contiguous(x)?.apply_op2_no_bwd(&contiguous(grad)?, &WeightGradient(*self))
    }

    /// Gradient of the bias: the sum over images and pixels.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn bias_gradient(&self, grad: &Tensor) -> Result<Tensor> {
        if gpu::is_on_gpu(grad) { gpu::column_sums(grad) } else { grad.sum((0, 2, 3)) }
    }

    pub(super) fn geometry(&self, x: [usize; 4], weight: [usize; 4]) -> Result<Geometry> {
        let [images, channels, height, width] = x;
        let [filters, group_inputs, kh, kw] = weight;
        let Self { window, groups } = *self;
        if groups == 0
            || channels != group_inputs * groups
            || !filters.is_multiple_of(groups)
            || [kh, kw] != window.kernel
        {
            bail!("conv2d: weight {weight:?} does not fit input {x:?} with {groups} groups");
        }
        let Some([out_height, out_width]) = window.output(height, width) else {
            bail!("conv2d: the window {window:?} does not fit into {height}×{width} pixels");
        };
        let output = [filters, out_height, out_width];
        Ok(Geometry { window, groups, images, input: [channels, height, width], output })
    }

    fn run(
        &self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<&[f32]>,
    ) -> Result<(CpuStorage, Shape)> {
        let g = self.geometry(dims4("conv2d", x.1)?, dims4("conv2d", weight.1)?)?;
        if let Some(bias) = bias
            && bias.len() != g.output[0]
        {
            bail!("conv2d: a bias of {} numbers does not fit {} filters", bias.len(), g.output[0]);
        }
        let (x, weight) = (values("conv2d", x.0, x.1)?, values("conv2d", weight.0, weight.1)?);
        let y = if g.is_depthwise() {
            depthwise::forward(&g, x, weight, bias)
        } else {
            im2col::forward(&g, x, weight, bias)
        };
        let [filters, height, width] = g.output;
        Ok((storage(y), Shape::from((g.images, filters, height, width))))
    }
}

impl CustomOp2 for Conv2dKernel {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (weight, weight_layout), None)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(a, a_layout), (b, b_layout)], |[a, b]| self.forward(a, b, None))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, _, height, width) = x.dims4()?;
        Ok((Some(self.input_gradient(weight, grad, [height, width])?), Some(self.weight_gradient(x, grad)?)))
    }
}

impl CustomOp3 for Conv2dKernel {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (weight, weight_layout), Some(values("conv2d", bias, bias_layout)?))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
        c: &CudaStorage,
        c_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        gpu::custom_op([(a, a_layout), (b, b_layout), (c, c_layout)], |[a, b, c]| self.forward(a, b, Some(c)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dw) = CustomOp2::bwd(self, x, weight, res, grad)?;
        Ok((dx, dw, Some(self.bias_gradient(grad)?)))
    }
}

struct InputGradient {
    conv: Conv2dKernel,
    size: [usize; 2],
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d-input-gradient"
    }

    fn cpu_fwd(
        &self,
        grad: &CpuStorage,
        grad_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (grad_dims, weight_dims) = (dims4(self.name(), grad_layout)?, dims4(self.name(), weight_layout)?);
        let [height, width] = self.size;
        let channels = weight_dims[1] * self.conv.groups;
        let g = self.conv.geometry([grad_dims[0], channels, height, width], weight_dims)?;
        check_gradient(&g, grad_dims)?;
        let (grad, weight) = (values("conv2d", grad, grad_layout)?, values("conv2d", weight, weight_layout)?);
        let dx = if g.is_depthwise() {
            depthwise::input_gradient(&g, weight, grad)
        } else {
            im2col::input_gradient(&g, weight, grad)
        };
        Ok((storage(dx), Shape::from((g.images, channels, height, width))))
    }
}

struct WeightGradient(Conv2dKernel);

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d-weight-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x_dims, grad_dims) = (dims4(self.name(), x_layout)?, dims4(self.name(), grad_layout)?);
        let Conv2dKernel { window, groups } = self.0;
        let weight = [grad_dims[1], x_dims[1] / groups.max(1), window.kernel[0], window.kernel[1]];
        let g = self.0.geometry(x_dims, weight)?;
        check_gradient(&g, grad_dims)?;
        let (x, grad) = (values("conv2d", x, x_layout)?, values("conv2d", grad, grad_layout)?);
        let dw = if g.is_depthwise() {
            depthwise::weight_gradient(&g, x, grad)
        } else {
            im2col::weight_gradient(&g, x, grad)
        };
        Ok((storage(dw), Shape::from(weight.to_vec())))
    }
}

fn check_gradient(g: &Geometry, grad: [usize; 4]) -> Result<()> {
    if grad[0] != g.images || grad[1..] != g.output {
        bail!("conv2d: a gradient of shape {grad:?} does not fit {} outputs of {:?}", g.images, g.output);
    }
    Ok(())
}
