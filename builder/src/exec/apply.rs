//! What each op does to tensors, and what it hands back: one match for the values, one for the gradients.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::Network;
use super::plan::{NormStep, Step};
use crate::graph::{BatchNorm, Conv2d, Graph, Node, Op};
use crate::kernels::{
    ActivationKernel, AvgPool2d, BatchNormKernel, BatchReduce, ChannelScale, Conv2dKernel, Dropout,
    DropoutUnit, GlobalAvgPool, MaxPool2d, Moments, Normed, Then, add, linear, linear_bias_gradient,
    linear_input_gradient, linear_weight_gradient, softmax, softmax_backward,
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
    BatchNorm(BatchNormKernel),
    /// What dropout or stochastic depth has drawn.
    Dropout(Dropout),
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
        let moments = kernel.moments().filter(|_| kernel.is_training())?.clone();
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
        Op::BatchNorm(bn) => {
            let kernel = batch_norm(node, bn, weights, mode);
            let y = kernel.forward(x, weight(), bias())?;
            return Ok((y, Saved::BatchNorm(kernel)));
        }
        Op::Activation(activation) => ActivationKernel(*activation).forward(x)?,
        Op::MaxPool(pool) => MaxPool2d(pool.window()).forward(x)?,
        Op::AvgPool(pool) => AvgPool2d(pool.window()).forward(x)?,
        Op::GlobalAvgPool => GlobalAvgPool.forward(x)?,
        Op::Linear(layer) => {
            let bias = layer.bias.then(bias);
            linear(x, weight(), bias)?
        }
        Op::Add => add(x, inputs[1])?,
        Op::Mul => ChannelScale.forward(x, inputs[1])?,
        Op::Flatten => x.flatten_from(1)?,
        Op::Dropout { p } | Op::StochasticDepth { p } => match &mut mode.rng {
            Some(rng) if *p > 0.0 => {
                let unit = match node.op {
                    Op::Dropout { .. } => DropoutUnit::Element,
                    _ => DropoutUnit::Image,
                };
                let dropout = Dropout::draw(unit, *p, rng);
                return Ok((dropout.forward(x)?, Saved::Dropout(dropout)));
            }
            _ => x.clone(),
        },
        Op::Softmax => softmax(x)?,
    };
    Ok((value, Saved::Nothing))
}

/// The normalisation of a layer: by its running moments where they are frozen, else by the batch's.
pub(super) fn batch_norm(node: &Node, bn: &BatchNorm, weights: &Weights, mode: &Mode<'_>) -> BatchNormKernel {
    if !(mode.frozen)(&node.name) {
        return BatchNormKernel::training(bn.eps).over(mode.reduce.clone());
    }
    let [mean, var] = ["running_mean", "running_var"].map(|name| parameter(weights, node, name));
    BatchNormKernel::inference(bn.eps, mean, var)
}

/// A step's output.
pub(super) fn run(
    graph: &Graph,
    step: &Step,
    inputs: &[&Tensor],
    weights: &Weights,
    mode: &mut Mode<'_>,
) -> Result<(Tensor, Saved)> {
    let step = match step {
        Step::Layer(id) => return apply(graph.node(*id), inputs, weights, mode),
        Step::Norm(step) => step,
    };
    let node = graph.node(step.batch_norm);
    let Op::BatchNorm(bn) = &node.op else { unreachable!("a step of a batch normalisation") };
    let kernel = batch_norm(node, bn, weights, mode);
    let [scale, shift] = ["weight", "bias"].map(|name| parameter(weights, node, name));
    let y = kernel.forward_then(inputs[0], scale, shift, then(graph, step, inputs))?;
    Ok((y, Saved::BatchNorm(kernel)))
}

/// A step's output once more, from what it saved the first time: the same moments and masks.
pub(super) fn again(network: &Network, step: &Step, inputs: &[&Tensor], saved: &Saved) -> Result<Tensor> {
    let (graph, weights) = (network.graph(), network.weights());
    match (step, saved) {
        (_, Saved::BatchNorm(kernel)) => {
            let node = graph.node(step.parameters_of());
            let [scale, shift] = ["weight", "bias"].map(|name| parameter(weights, node, name));
            let then = match step {
                Step::Layer(_) => Then::default(),
                Step::Norm(step) => then(graph, step, inputs),
            };
            kernel.forward_then(inputs[0], scale, shift, then)
        }
        (_, Saved::Dropout(dropout)) => dropout.forward(inputs[0]),
        _ => {
            Ok(run(graph, step, inputs, weights, &mut Mode { rng: None, frozen: &|_| true, reduce: None })?.0)
        }
    }
}

/// What comes behind a normalisation; a residual is its second input.
fn then<'a>(graph: &Graph, step: &NormStep, inputs: &[&'a Tensor]) -> Then<'a> {
    let activation = step.activation.map(|id| match graph.node(id).op {
        Op::Activation(activation) => activation,
        _ => unreachable!("a step's activation"),
    });
    Then { residual: step.residual.map(|_| inputs[1]), activation }
}

/// What [`gradients`] needs of the forward pass.
pub(super) struct Recorded<'a> {
    pub graph: &'a Graph,
    pub step: &'a Step,
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
    let Recorded { graph, step, inputs, output, saved, weights } = *recorded;
    let x = inputs[0];
    let node = graph.node(step.parameters_of());
    if let Saved::BatchNorm(kernel) = saved {
        let [scale, shift] = ["weight", "bias"].map(|name| parameter(weights, node, name));
        let then = match step {
            Step::Layer(_) => Then::default(),
            Step::Norm(step) => then(graph, step, inputs),
        };
        let found = kernel.gradients_then(&Normed { x, y: output, scale, shift, then }, grad)?;
        let inputs = std::iter::once(found.x).chain(found.residual).map(Some).collect();
        let parameters = vec![("weight", found.scale), ("bias", found.shift)];
        return Ok(LayerGradients { inputs, parameters });
    }
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
        (Op::Linear(layer), _) => {
            let mut result = LayerGradients::default();
            if wanted.inputs {
                result.inputs = vec![Some(linear_input_gradient(parameter(weights, node, "weight"), grad)?)];
            }
            if wanted.parameters {
                result.parameters.push(("weight", linear_weight_gradient(x, grad)?));
                if layer.bias {
                    result.parameters.push(("bias", linear_bias_gradient(grad)?));
                }
            }
            return Ok(result);
        }
        (Op::BatchNorm(_), _) => unreachable!("every batch normalisation keeps its moments"),
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
        (_, Saved::Dropout(dropout)) => dropout.forward(grad)?,
        (Op::Dropout { .. } | Op::StochasticDepth { .. }, _) => grad.clone(),
        (Op::Softmax, _) => softmax_backward(output, grad)?,
    };
    Ok(LayerGradients { inputs: vec![Some(dx)], parameters: vec![] })
}
