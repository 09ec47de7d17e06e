//! Kernels as candle `CustomOp`s, forward and backward: for the CPU in f32, and for GPUs (`gpu`) in f32, f16 and
//! bf16. A kernel computes where its tensors are.
//!
//! candle's own convolution, pooling and batch-norm gradients are slow, incomplete or wrong; these hold for every
//! shape and are checked against naive f64 loops. One file an op; `matrix` and `columns` serve the convolutions,
//! `plane` the depthwise convolution and the pools.

mod activation;
mod batch_norm;
mod batch_reduce;
mod channel_scale;
mod channel_sums;
mod columns;
mod conv2d;
mod cpu;
mod depthwise;
mod dropout;
mod gated_norm;
mod global_avg_pool;
mod gpu;
mod im2col;
mod linear;
mod matrix;
mod moments;
mod plane;
mod pool;
mod softmax;

pub use activation::ActivationKernel;
pub use batch_norm::{BatchNormKernel, NormGradients, Normed, Then};
pub use batch_reduce::BatchReduce;
pub use channel_scale::ChannelScale;
pub use conv2d::Conv2dKernel;
pub use dropout::{Dropout, DropoutUnit};
pub use gated_norm::GatedNorm;
pub use global_avg_pool::GlobalAvgPool;
pub use gpu::{allow_tf32, dense};
pub use linear::{add, cast, linear, linear_bias_gradient, linear_input_gradient, linear_weight_gradient};
pub use moments::{Moments, RunningMoments};
pub use pool::{AvgPool2d, MaxPool2d};
pub use softmax::{CrossEntropy, Loss, MixedLabels, softmax, softmax_backward};
