//! What each op does to tensors, and what it hands back: one match for the values, one for the gradients.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::Network;
use super::plan::{NormStep, Squeeze, Step};
use crate::graph::{Activation, BatchNorm, Conv2d, Graph, Node, NodeId, Op};
use crate::kernels::{
    ActivationKernel, AvgPool2d, BatchNormKernel, BatchReduce, ChannelScale, Conv2dKernel, Dropout,
    DropoutUnit, GatedNorm, GlobalAvgPool, MaxPool2d, Moments, NormGradients, Normed, Then, add, linear,
    linear_bias_gradient, linear_input_gradient, linear_weight_gradient, softmax, softmax_backward,
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
    /// Of a squeeze, together with the gradient of what was excited and the gate, once they are known.
    Squeeze(BatchNormKernel, Option<(Tensor, Tensor)>),
    /// What dropout or stochastic depth has drawn.
    Dropout(Dropout),
}

impl Saved {
    /// Notes what a squeeze needs on the way back.
    pub fn excite(&mut self, grad: &Tensor, gate: Option<&Tensor>) {
        if let (Self::Squeeze(_, excited), Some(gate)) = (self, gate) {
            *excited = Some((grad.clone(), gate.clone()));
        }
    }

    fn kernel(&self) -> Option<&BatchNormKernel> {
        match self {
            Self::BatchNorm(kernel) | Self::Squeeze(kernel, _) => Some(kernel),
            _ => None,
        }
    }
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
        let (Op::BatchNorm(bn), Some(kernel)) = (&node.op, saved.kernel()) else { return None };
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

/// A step's output; an excitation needs what its `squeeze` has saved.
pub(super) fn run(
    graph: &Graph,
    step: &Step,
    inputs: &[&Tensor],
    weights: &Weights,
    mode: &mut Mode<'_>,
    squeeze: Option<&Saved>,
) -> Result<(Tensor, Saved)> {
    let kernel = |step: &NormStep, mode: &Mode<'_>| {
        let node = graph.node(step.batch_norm);
        let Op::BatchNorm(bn) = &node.op else { unreachable!("a step of a batch normalisation") };
        batch_norm(node, bn, weights, mode)
    };
    match step {
        Step::Layer(id) => apply(graph.node(*id), inputs, weights, mode),
        Step::Norm(norm) => {
            let kernel = kernel(norm, mode);
            let [scale, shift] = scale_and_shift(graph, norm.batch_norm, weights);
            let y = kernel.forward_then(inputs[0], scale, shift, then(graph, step, inputs))?;
            Ok((y, Saved::BatchNorm(kernel)))
        }
        Step::Squeeze(Squeeze { norm, .. }) => {
            let kernel = kernel(norm, mode);
            let y = gated(graph, norm, inputs[0], weights, &kernel).squeeze()?;
            Ok((y, Saved::Squeeze(kernel, None)))
        }
        Step::Excite(step) => {
            let Some(kernel) = squeeze.and_then(Saved::kernel) else {
                unreachable!("the squeeze came before")
            };
            let y = gated(graph, &step.norm, inputs[0], weights, kernel).excite(inputs[1])?;
            Ok((y, Saved::Nothing))
        }
    }
}

/// γ and β of a batch normalisation.
fn scale_and_shift<'a>(graph: &Graph, batch_norm: NodeId, weights: &'a Weights) -> [&'a Tensor; 2] {
    ["weight", "bias"].map(|name| parameter(weights, graph.node(batch_norm), name))
}

/// A normalised and activated map that is gated.
fn gated<'a>(
    graph: &Graph,
    step: &NormStep,
    x: &'a Tensor,
    weights: &'a Weights,
    kernel: &'a BatchNormKernel,
) -> GatedNorm<'a> {
    let [scale, shift] = scale_and_shift(graph, step.batch_norm, weights);
    let Some(activation) = activation(graph, step) else { unreachable!("what is gated was activated") };
    GatedNorm { kernel, activation, x, scale, shift }
}

/// A step's output once more, from what it saved the first time: the same moments and masks.
pub(super) fn again(network: &Network, step: &Step, inputs: &[&Tensor], saved: &Saved) -> Result<Tensor> {
    let (graph, weights) = (network.graph(), network.weights());
    match (step, saved) {
        (Step::Squeeze(step), Saved::Squeeze(kernel, _)) => {
            gated(graph, &step.norm, inputs[0], weights, kernel).squeeze()
        }
        (Step::Layer(_) | Step::Norm(_), Saved::BatchNorm(kernel)) => {
            let [scale, shift] = scale_and_shift(graph, step.parameters_of(), weights);
            let then = then(graph, step, inputs);
            kernel.forward_then(inputs[0], scale, shift, then)
        }
        (_, Saved::Dropout(dropout)) => dropout.forward(inputs[0]),
        _ => {
            let mode = &mut Mode { rng: None, frozen: &|_| true, reduce: None };
            Ok(run(graph, step, inputs, weights, mode, Some(saved))?.0)
        }
    }
}

/// What comes behind a normalisation; a residual is its second input.
fn then<'a>(graph: &Graph, step: &Step, inputs: &[&'a Tensor]) -> Then<'a> {
    match step {
        Step::Norm(norm) => {
            Then { residual: norm.residual.map(|_| inputs[1]), activation: activation(graph, norm) }
        }
        _ => Then::default(),
    }
}

fn activation(graph: &Graph, step: &NormStep) -> Option<Activation> {
    step.activation.map(|id| match graph.node(id).op {
        Op::Activation(activation) => activation,
        _ => unreachable!("a step's activation"),
    })
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

impl LayerGradients {
    fn of_norm(found: NormGradients) -> Self {
        Self {
            inputs: std::iter::once(found.x).chain(found.residual).map(Some).collect(),
            parameters: vec![("weight", found.scale), ("bias", found.shift)],
        }
    }
}

/// The gradients of a layer's inputs and parameters, given the gradient of its output.
pub(super) fn gradients(recorded: &Recorded<'_>, grad: &Tensor, wanted: Wanted) -> Result<LayerGradients> {
    let Recorded { graph, step, inputs, output, saved, weights } = *recorded;
    let x = inputs[0];
    let node = graph.node(step.parameters_of());
    match (step, saved) {
        (Step::Excite(step), Saved::Squeeze(kernel, _)) => {
            // That of the map is the squeeze's to find.
            let gate = gated(graph, &step.norm, x, weights, kernel).gate_gradient(grad)?;
            return Ok(LayerGradients { inputs: vec![None, Some(gate)], parameters: vec![] });
        }
        (Step::Squeeze(step), Saved::Squeeze(kernel, Some((excited, gate)))) => {
            let norm = gated(graph, &step.norm, x, weights, kernel);
            return Ok(LayerGradients::of_norm(norm.gradients(gate, excited, grad)?));
        }
        (_, Saved::BatchNorm(kernel)) => {
            let [scale, shift] = scale_and_shift(graph, step.parameters_of(), weights);
            let then = then(graph, step, inputs);
            let found = kernel.gradients_then(&Normed { x, y: output, scale, shift, then }, grad)?;
            return Ok(LayerGradients::of_norm(found));
        }
        _ => {}
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
