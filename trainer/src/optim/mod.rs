//! Optimisers: SGD with momentum and Nesterov, RMSprop in TensorFlow's form, AdamW; and the average of the weights.
//!
//! State is tensors by parameter name, so that a checkpoint can hold it ([`State`]).

mod accumulate;
mod ema;
mod gpu;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use tallow_builder::Weights;
use tallow_builder::exec::Gradients;
use tallow_builder::graph::{Graph, Parameter};
use tallow_cuda::is_on_gpu;

pub use accumulate::{merged, merged_one};
pub use ema::{Decay, Ema};
pub use gpu::{Control, LossScale};

use crate::error::{Error, Result};
use rule::{combine2, combine3};

/// An optimiser and its constants. Weight decay applies to weights alone, never to biases or batch normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerKind {
    /// Stochastic gradient descent, PyTorch's form: v = momentum·v + g; w −= rate·v.
    Sgd {
        /// Share of the last step that is kept, in [0, 1).
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Looks ahead along the momentum (Sutskever et al. 2013).
        #[serde(default)]
        nesterov: bool,
        /// L2 penalty, added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// RMSprop in TensorFlow's form, as EfficientNet was trained: the mean square starts at 1, eps is under the
    /// root, and the rate is inside the momentum (Tieleman & Hinton 2012; Tan & Le 2019, section 5.2).
    RmsProp {
        /// Share of the old mean square that is kept; TensorFlow's `rho`.
        #[serde(default = "default_momentum")]
        decay: f64,
        /// Share of the last step that is kept.
        #[serde(default = "default_momentum")]
        momentum: f64,
        /// Added to the mean square under the root.
        #[serde(default = "default_rmsprop_eps")]
        eps: f64,
        /// L2 penalty, added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).
    AdamW {
        /// Share of the old mean that is kept.
        #[serde(default = "default_momentum")]
        beta1: f64,
        /// Share of the old mean square that is kept.
        #[serde(default = "default_beta2")]
        beta2: f64,
        /// Added to the root of the mean square.
        #[serde(default = "default_adam_eps")]
        eps: f64,
        /// Share of a weight that a step of rate 1 takes away.
        #[serde(default = "default_decoupled_decay")]
        weight_decay: f64,
    },
}

fn default_momentum() -> f64 {
    0.9
}
fn default_rmsprop_eps() -> f64 {
    1e-3
}
fn default_beta2() -> f64 {
    0.999
}
fn default_adam_eps() -> f64 {
    1e-8
}
fn default_decoupled_decay() -> f64 {
    1e-2
}

impl OptimizerKind {
    /// Refuses constants that no step can come of.
    ///
    /// # Errors
    /// [`Error::Setting`] with the constant's name.
    pub fn validate(&self) -> Result<()> {
        let share = |name, value: f64| {
            let remedy = "choose a number in [0, 1)";
            if (0.0..1.0).contains(&value) { Ok(()) } else { Err(setting(name, value, remedy)) }
        };
        let positive = |name, value: f64| {
            if value > 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(setting(name, value, "choose a number above 0"))
            }
        };
        let decay = |value: f64| {
            if value >= 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(setting("weight_decay", value, "choose 0 or a small number above it"))
            }
        };
        match *self {
            Self::Sgd { momentum, nesterov, weight_decay } => {
                share("momentum", momentum)?;
                if nesterov && momentum == 0.0 {
                    return Err(setting("nesterov", "true", "needs a momentum above 0"));
                }
                decay(weight_decay)
            }
            Self::RmsProp { decay: kept, momentum, eps, weight_decay } => {
                share("decay", kept)?;
                share("momentum", momentum)?;
                positive("eps", eps)?;
                decay(weight_decay)
            }
            Self::AdamW { beta1, beta2, eps, weight_decay } => {
                share("beta1", beta1)?;
                share("beta2", beta2)?;
                positive("eps", eps)?;
                decay(weight_decay)
            }
        }
    }

    fn weight_decay(&self) -> f64 {
        let (Self::Sgd { weight_decay, .. }
        | Self::RmsProp { weight_decay, .. }
        | Self::AdamW { weight_decay, .. }) = self;
        *weight_decay
    }

    /// The names of the tensors that a step keeps for each parameter, and the value each starts with.
    fn slots(&self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &[("momentum", 0.0)],
            Self::RmsProp { .. } => &[("mean_square", 1.0), ("momentum", 0.0)],
            Self::AdamW { .. } => &[("mean", 0.0), ("mean_square", 0.0)],
        }
    }
}

fn setting(name: &'static str, value: impl ToString, remedy: &'static str) -> Error {
    Error::Setting { name, value: value.to_string(), remedy }
}

/// What an optimiser remembers from step to step.
pub type State = BTreeMap<String, Tensor>;

/// An optimiser at work on one network.
pub struct Optimizer {
    kind: OptimizerKind,
    parameters: Vec<Parameter>,
    steps: u64,
    state: State,
    /// On a GPU, from AdamW's first step there.
    taken: Option<gpu::Taken>,
}

impl Optimizer {
    /// For the trainable parameters of `graph`.
    ///
    /// # Errors
    /// For impossible constants, or where the device has no room.
    pub fn new(kind: OptimizerKind, graph: &Graph, weights: &Weights) -> Result<Self> {
        kind.validate()?;
        let parameters: Vec<Parameter> =
            graph.parameters().into_iter().filter(|p| p.role.is_trainable()).collect();
        let mut state = State::new();
        for parameter in &parameters {
            for (slot, start) in kind.slots() {
                let tensor = (weights.get(&parameter.name).zeros_like()? + *start)?;
                state.insert(slot_name(parameter, slot), tensor);
            }
        }
        Ok(Self { kind, parameters, steps: 0, state, taken: None })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The tensors that belong to the parameters.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Everything that a checkpoint must hold besides [`Self::steps`], on the host.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn state_on_host(&self) -> Result<State> {
        let host = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.to_device(&Device::Cpu)?));
        let mut state = self.state.iter().map(host).collect::<Result<State>>()?;
        if let Some(taken) = &self.taken {
            taken.note(&self.parameters, &mut state, self.steps)?;
        }
        Ok(state)
    }

    /// Continues from a checkpoint's state.
    ///
    /// # Errors
    /// Where the state is another optimiser's or another network's.
    pub fn restore(&mut self, state: State, steps: u64) -> Result<()> {
        let dims = |state: &State| -> Vec<(String, Vec<usize>)> {
            let slots = state.iter().filter(|(name, _)| !name.ends_with(&format!("/{MISSED}")));
            slots.map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
        };
        if dims(&state) != dims(&self.state) {
            return Err(Error::OptimizerState);
        }
        // Counters are read by the host at every step.
        let host = |(name, tensor): (String, Tensor)| match name.ends_with(&format!("/{MISSED}")) {
            true => Ok((name, tensor.to_device(&Device::Cpu)?)),
            false => Ok((name, tensor)),
        };
        self.state = state.into_iter().map(host).collect::<Result<_>>()?;
        self.steps = steps;
        self.taken = None;
        Ok(())
    }

    /// Moves every parameter that has a gradient by one step of the size that `rate` gives for its name; the others
    /// stay as they are, penalty or not. Gradients are multiplied by `factor` first, which is how their norm is clipped.
    ///
    /// # Errors
    /// Where a gradient does not fit its parameter.
    pub fn step(
        &mut self,
        weights: &mut Weights,
        gradients: &Gradients,
        rate: impl Fn(&str) -> f64,
        factor: f64,
    ) -> Result<()> {
        if let Some(gradient) = gradients.values().next().filter(|gradient| is_on_gpu(gradient)) {
            return self.step_on_gpu(weights, gradients, rate, &Control::fixed(factor, gradient.device())?);
        }
        self.steps += 1;
        for parameter in &self.parameters {
            let missed = missed(&self.state, parameter)?;
            let Some(gradient) = gradients.get(&parameter.name) else {
                if let OptimizerKind::AdamW { .. } = self.kind {
                    set_missed(&mut self.state, parameter, missed + 1)?;
                }
                continue;
            };
            let value = weights.get(&parameter.name);
            let gradient = if factor == 1.0 { gradient.clone() } else { (gradient * factor)? };
            let steps = self.steps - missed;
            let mut update = Update { state: &mut self.state, parameter, steps };
            let moved = update.apply(self.kind, value, &gradient, rate(&parameter.name))?;
            weights.set(&parameter.name, moved);
        }
        Ok(())
    }
}

/// The slot of the steps that a parameter was not moved in, which only such parameters have, and only where it matters:
/// AdamW corrects its averages by the number of steps they are over, and those of a parameter that was frozen at first
/// begin with its own first step, as PyTorch's do.
const MISSED: &str = "missed";

fn set_missed(state: &mut State, parameter: &Parameter, missed: u64) -> Result<()> {
    if missed > 0 {
        state.insert(slot_name(parameter, MISSED), Tensor::new(missed as i64, &Device::Cpu)?);
    }
    Ok(())
}

fn missed(state: &State, parameter: &Parameter) -> Result<u64> {
    let missed = state.get(&slot_name(parameter, MISSED));
    Ok(missed.map(Tensor::to_scalar::<i64>).transpose()?.unwrap_or(0) as u64)
}

fn slot_name(parameter: &Parameter, slot: &str) -> String {
    format!("{}/{slot}", parameter.name)
}

/// One step of one parameter.
struct Update<'a> {
    state: &'a mut State,
    parameter: &'a Parameter,
    /// Steps that the parameter has been through, this one included.
    steps: u64,
}

impl Update<'_> {
    fn slot(&self, slot: &str) -> &Tensor {
        &self.state[&slot_name(self.parameter, slot)]
    }

    fn keep(&mut self, slot: &str, tensor: &Tensor) {
        self.state.insert(slot_name(self.parameter, slot), tensor.clone());
    }

    /// The weight decay that applies to this parameter.
    fn decay(&self, weight_decay: f64) -> f64 {
        if self.parameter.role.decays() { weight_decay } else { 0.0 }
    }

    /// The gradient with the L2 penalty.
    fn penalised(&self, value: &Tensor, gradient: &Tensor, weight_decay: f64) -> Result<Tensor> {
        match self.decay(weight_decay) as f32 {
            0.0 => Ok(gradient.clone()),
            decay => combine2(gradient, value, move |g, w| g + decay * w),
        }
    }

    /// The parameter's new value.
    fn apply(&mut self, kind: OptimizerKind, value: &Tensor, gradient: &Tensor, rate: f64) -> Result<Tensor> {
        let step = rate as f32;
        match kind {
            OptimizerKind::Sgd { momentum, nesterov, weight_decay } => {
                let gradient = self.penalised(value, gradient, weight_decay)?;
                if momentum == 0.0 {
                    return combine2(value, &gradient, move |w, g| w - step * g);
                }
                let momentum = momentum as f32;
                let velocity = combine2(self.slot("momentum"), &gradient, move |v, g| momentum * v + g)?;
                self.keep("momentum", &velocity);
                if nesterov {
                    return combine3(value, &velocity, &gradient, move |w, v, g| {
                        w - step * (g + momentum * v)
                    });
                }
                combine2(value, &velocity, move |w, v| w - step * v)
            }
            OptimizerKind::RmsProp { decay, momentum, eps, weight_decay } => {
                let gradient = self.penalised(value, gradient, weight_decay)?;
                let (new, momentum, eps) = ((1.0 - decay) as f32, momentum as f32, eps as f32);
                let square =
                    combine2(self.slot("mean_square"), &gradient, move |s, g| s + new * (g * g - s))?;
                self.keep("mean_square", &square);
                let velocity = combine3(self.slot("momentum"), &gradient, &square, move |v, g, s| {
                    momentum * v + step * g / (s + eps).sqrt()
                })?;
                self.keep("momentum", &velocity);
                combine2(value, &velocity, |w, v| w - v)
            }
            OptimizerKind::AdamW { beta1, beta2, eps, weight_decay } => {
                let (new1, new2) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
                let mean = combine2(self.slot("mean"), gradient, move |m, g| m + new1 * (g - m))?;
                let square =
                    combine2(self.slot("mean_square"), gradient, move |s, g| s + new2 * (g * g - s))?;
                self.keep("mean", &mean);
                self.keep("mean_square", &square);
                let steps = self.steps as f64;
                let unbiased = (rate / (1.0 - beta1.powf(steps))) as f32;
                let root = (1.0 / (1.0 - beta2.powf(steps))) as f32;
                let (kept, eps) = ((1.0 - rate * self.decay(weight_decay)) as f32, eps as f32);
                combine3(value, &mean, &square, move |w, m, s| {
                    kept * w - unbiased * m / ((s * root).sqrt() + eps)
                })
            }
        }
    }
}

/// The L2 norm of all gradients together, in f64.
///
/// # Errors
/// Where the device fails.
pub fn global_norm(gradients: &Gradients) -> Result<f64> {
    let mut total = 0.0;
    for gradient in gradients.values() {
        total += rule::square_sum(gradient)?;
    }
    Ok(total.sqrt())
}
