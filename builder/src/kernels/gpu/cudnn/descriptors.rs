//! What cuDNN is told about a convolution's tensors.

use std::ptr::null_mut;

use candle_core::cuda_backend::cudarc::cudnn::{result, sys};
use candle_core::{DType, Result, bail};

use super::{Shape, failed};

/// Of x, weight, y and the convolution.
pub(super) struct Descriptors {
    pub x: sys::cudnnTensorDescriptor_t,
    pub weight: sys::cudnnFilterDescriptor_t,
    pub y: sys::cudnnTensorDescriptor_t,
    pub conv: sys::cudnnConvolutionDescriptor_t,
}

impl Descriptors {
    pub(super) fn new(shape: &Shape) -> Result<Self> {
        let create = failed("describe a convolution");
        // Made one by one into a value whose drop frees them, so that a failure in between leaks nothing.
        let mut new = Self { x: null_mut(), weight: null_mut(), y: null_mut(), conv: null_mut() };
        new.x = result::create_tensor_descriptor().map_err(&create)?;
        new.weight = result::create_filter_descriptor().map_err(&create)?;
        new.y = result::create_tensor_descriptor().map_err(&create)?;
        new.conv = result::create_convolution_descriptor().map_err(&create)?;
        new.fill(shape)?;
        Ok(new)
    }

    fn fill(&self, shape: &Shape) -> Result<()> {
        let Shape { input, weight, window, groups, .. } = *shape;
        let Some([height, width]) = window.output(input[2], input[3]) else {
            bail!("conv2d: the window {window:?} does not fit into {}×{} pixels", input[2], input[3]);
        };
        let element = match shape.dtype {
            DType::F16 => sys::cudnnDataType_t::CUDNN_DATA_HALF,
            DType::BF16 => sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16,
            _ => sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
        };
        let float = sys::cudnnDataType_t::CUDNN_DATA_FLOAT;
        let nhwc = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let correlation = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let [stride, dilation] = [window.stride, window.dilation].map(|pair| pair.map(|v| v as i32));
        let pads = [window.pads.top, window.pads.left].map(|v| v as i32);
        let output = [input[0], weight[0], height, width];
        // SAFETY: all descriptors were created. Sizes come in the order N, C, H, W whatever the format.
        unsafe {
            result::set_tensor4d_descriptor(self.x, nhwc, element, input.map(|v| v as i32))
                .and_then(|()| {
                    result::set_filter4d_descriptor(self.weight, element, nhwc, weight.map(|v| v as i32))
                })
                .and_then(|()| {
                    result::set_tensor4d_descriptor(self.y, nhwc, element, output.map(|v| v as i32))
                })
                .and_then(|()| {
                    let ([ph, pw], [sh, sw], [dh, dw]) = (pads, stride, dilation);
                    // Sums are in f32 whatever the elements are.
                    result::set_convolution2d_descriptor(
                        self.conv,
                        ph,
                        pw,
                        sh,
                        sw,
                        dh,
                        dw,
                        correlation,
                        float,
                    )
                })
                .and_then(|()| result::set_convolution_group_count(self.conv, groups as i32))
        }
        .map_err(failed("describe a convolution"))
    }

    /// Which arithmetic the convolution may use.
    pub(super) fn set_math(&mut self, math: sys::cudnnMathType_t) -> Result<()> {
        // SAFETY: the descriptor was created.
        unsafe { result::set_convolution_math_type(self.conv, math) }.map_err(failed("choose its arithmetic"))
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: nobody else has them. A failure to free a few bytes has nobody to be told to.
        unsafe {
            if !self.x.is_null() {
                let _ = result::destroy_tensor_descriptor(self.x);
            }
            if !self.weight.is_null() {
                let _ = result::destroy_filter_descriptor(self.weight);
            }
            if !self.y.is_null() {
                let _ = result::destroy_tensor_descriptor(self.y);
            }
            if !self.conv.is_null() {
                let _ = result::destroy_convolution_descriptor(self.conv);
            }
        }
    }
}
