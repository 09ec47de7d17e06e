//! What each op does to tensors, and what it hands back: one match for the values, one for the gradients.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::graph::{Conv2d, Node, Op};
use crate::kernels::{
    ActivationKernel, AvgPool2d, BatchNormEval, BatchNormTrain, BatchReduce, ChannelScale, Conv2dKernel,
    GlobalAvgPool, MaxPool2d, Moments, dropout_mask, softmax, softmax_backward,
};
use crate::rng::Rng;
use crate::weights::Weights;

/// How layers that behave differently in training behave.
pub(super) struct Mode<'a> {
    /// For dropout and stochastic depth; without it they do nothing.
    pub rng: Option<&'a mut Rng>,
    /// Which batch normalisations use their running moments, by name.
    pub frozen: &'a dyn Fn(&str) -> bool,
    /// Sums the moments of the other ones over several processes; without it they are this process's own.
    pub reduce: Option<Arc<dyn BatchReduce>>,
}

/// What a layer keeps from its forward pass besides inputs and output.
#[derive(Default)]
pub(super) enum Saved {
    #[default]
    Nothing,
    BatchNorm(BatchNormTrain),
    FrozenBatchNorm(BatchNormEval),
    /// The factors of dropout, or of stochastic depth for each image and channel.
    Mask(Tensor),
}

/// The moments that one batch normalisation saw in a training pass.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// The layer's name.
    pub layer: String,
    /// The share of the new sample in the running average.
    pub momentum: f64,
    /// Moments of the batch.
    pub moments: Moments,
}

impl BatchStatistics {
    pub(super) fn of(node: &Node, saved: &Saved) -> Option<Self> {
        let (Op::BatchNorm(bn), Saved::BatchNorm(kernel)) = (&node.op, saved) else { return None };
        let moments = kernel.moments()?.clone();
        Some(Self { layer: node.name.clone(), momentum: bn.momentum, moments })
    }
}

fn conv_kernel(conv: &Conv2d) -> Conv2dKernel {
    Conv2dKernel { window: conv.window(), groups: conv.groups }
}

/// The parameter of a layer.
fn parameter<'a>(weights: &'a Weights, node: &Node, suffix: &str) -> &'a Tensor {
    weights.get(&format!("{}.{suffix}", node.name))
}

/// The layer's output.
pub(super) fn apply(
    node: &Node,
    inputs: &[&Tensor],
    weights: &Weights,
    mode: &mut Mode<'_>,
) -> Result<(Tensor, Saved)> {
    let x = inputs[0];
    let weight = || parameter(weights, node, "weight");
    let bias = || parameter(weights, node, "bias");
    let value = match &node.op {
        Op::Input => x.clone(),
        Op::Conv2d(conv) => conv_kernel(conv).forward(x, weight(), conv.bias.then(bias))?,
        Op::BatchNorm(bn) if (mode.frozen)(&node.name) => {
            let [mean, var] = ["running_mean", "running_var"].map(|name| parameter(weights, node, name));
            let kernel = BatchNormEval::new(bn.eps, mean, var)?;
            let y = kernel.forward(x, weight(), bias())?;
            return Ok((y, Saved::FrozenBatchNorm(kernel)));
        }
        Op::BatchNorm(bn) => {
            let kernel = BatchNormTrain::new(bn.eps).over(mode.reduce.clone());
            let y = kernel.forward(x, weight(), bias())?;
            return Ok((y, Saved::BatchNorm(kernel)));
        }
        Op::Activation(activation) => ActivationKernel(*activation).forward(x)?,
        Op::MaxPool(pool) => MaxPool2d(pool.window()).forward(x)?,
        Op::AvgPool(pool) => AvgPool2d(pool.window()).forward(x)?,
        Op::GlobalAvgPool => GlobalAvgPool.forward(x)?,
        Op::Linear(linear) => {
            let y = x.matmul(&weight().t()?)?;
            if linear.bias { y.broadcast_add(bias())? } else { y }
        }
        Op::Add => (x + inputs[1])?,
        Op::Mul => ChannelScale.forward(x, inputs[1])?,
        Op::Flatten => x.flatten_from(1)?,
        Op::Dropout { p } => match &mut mode.rng {
            Some(rng) if *p > 0.0 => {
                let mask = dropout_mask(x.shape(), *p, rng, x.device())?;
                return Ok(((x * &mask)?, Saved::Mask(mask)));
            }
            _ => x.clone(),
        },
        Op::StochasticDepth { p } => match &mut mode.rng {
            Some(rng) if *p > 0.0 => {
                let mut per_image = vec![1; x.rank()];
                per_image[0] = x.dim(0)?;
                let mask = dropout_mask(per_image, *p, rng, x.device())?;
                return Ok((scale_images(x, &mask)?, Saved::Mask(mask)));
            }
            _ => x.clone(),
        },
        Op::Softmax => softmax(x)?,
    };
    Ok((value, Saved::Nothing))
}

/// x times one factor an image.
fn scale_images(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    match *x.dims() {
        [n, c, _, _] => ChannelScale.forward(x, &factors.expand((n, c, 1, 1))?),
        _ => x.broadcast_mul(factors),
    }
}

/// What [`gradients`] needs of the forward pass.
pub(super) struct Recorded<'a> {
    pub node: &'a Node,
    pub inputs: &'a [&'a Tensor],
    pub output: &'a Tensor,
    pub saved: &'a Saved,
    pub weights: &'a Weights,
}

/// Which gradients of a layer anybody asks for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub inputs: bool,
    pub parameters: bool,
}

/// A layer's gradients: one an input, and one a parameter by its suffix.
#[derive(Default)]
pub(super) struct LayerGradients {
    pub inputs: Vec<Option<Tensor>>,
    pub parameters: Vec<(&'static str, Tensor)>,
}

/// The gradients of a layer's inputs and parameters, given the gradient of its output.
pub(super) fn gradients(recorded: &Recorded<'_>, grad: &Tensor, wanted: Wanted) -> Result<LayerGradients> {
    let Recorded { node, inputs, output, saved, weights } = *recorded;
    let x = inputs[0];
    let size = || x.dims4().map(|(_, _, height, width)| [height, width]);
    let dx = match (&node.op, saved) {
        (Op::Input, _) => return Ok(LayerGradients::default()),
        (Op::Conv2d(conv), _) => {
            let kernel = conv_kernel(conv);
            let mut result = LayerGradients::default();
            if wanted.inputs {
                let dx = kernel.input_gradient(parameter(weights, node, "weight"), grad, size()?)?;
                result.inputs = vec![Some(dx)];
            }
            if wanted.parameters {
                result.parameters.push(("weight", kernel.weight_gradient(x, grad)?));
                if conv.bias {
                    result.parameters.push(("bias", kernel.bias_gradient(grad)?));
                }
            }
            return Ok(result);
        }
        (Op::Linear(linear), _) => {
            let mut result = LayerGradients::default();
            if wanted.inputs {
                result.inputs = vec![Some(grad.matmul(parameter(weights, node, "weight"))?)];
            }
            if wanted.parameters {
                result.parameters.push(("weight", grad.t()?.matmul(x)?));
                if linear.bias {
                    result.parameters.push(("bias", grad.sum(0)?));
                }
            }
            return Ok(result);
        }
        (Op::BatchNorm(_), saved) => {
            let scale = parameter(weights, node, "weight");
            let [dx, scale, shift] = match saved {
                Saved::BatchNorm(kernel) => kernel.gradients(x, scale, grad)?,
                Saved::FrozenBatchNorm(kernel) => kernel.gradients(x, scale, grad)?,
                _ => unreachable!("every batch normalisation keeps its moments"),
            };
            let parameters = vec![("weight", scale), ("bias", shift)];
            return Ok(LayerGradients { inputs: vec![Some(dx)], parameters });
        }
        (Op::Add, _) => {
            let inputs = vec![Some(grad.clone()), Some(grad.clone())];
            return Ok(LayerGradients { inputs, parameters: vec![] });
        }
        (Op::Mul, _) => {
            let dx = ChannelScale.forward(grad, inputs[1])?;
            let inputs = vec![Some(dx), Some(ChannelScale.scale_gradient(x, grad)?)];
            return Ok(LayerGradients { inputs, parameters: vec![] });
        }
        (Op::Activation(activation), _) => ActivationKernel(*activation).input_gradient(x, output, grad)?,
        (Op::MaxPool(pool), _) => MaxPool2d(pool.window()).input_gradient(x, output, grad)?,
        (Op::AvgPool(pool), _) => AvgPool2d(pool.window()).input_gradient(grad, size()?)?,
        (Op::GlobalAvgPool, _) => GlobalAvgPool.input_gradient(grad, size()?)?,
        (Op::Flatten, _) => grad.reshape(x.shape())?,
        (Op::Dropout { .. }, Saved::Mask(mask)) => (grad * mask)?,
        (Op::StochasticDepth { .. }, Saved::Mask(mask)) => scale_images(grad, mask)?,
        (Op::Dropout { .. } | Op::StochasticDepth { .. }, _) => grad.clone(),
        (Op::Softmax, _) => softmax_backward(output, grad)?,
    };
    Ok(LayerGradients { inputs: vec![Some(dx)], parameters: vec![] })
}
