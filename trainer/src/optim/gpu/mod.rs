//! Optimiser steps on a GPU: all parameters in one launch, and nothing that waits for the GPU.

use candle_core::{DType, Device, Tensor};
use tallow_builder::Weights;
use tallow_builder::exec::Gradients;
use tallow_builder::graph::Parameter;
use tallow_cuda::{Arg, Launch, Row, Source, Table, Variant, pointer, run};

use super::{MISSED, Optimizer, OptimizerKind, State, missed, set_missed, slot_name};
use crate::error::Result;

static SOURCE: Source = Source { name: "optimiser.cu", text: include_str!("optimiser.cu") };

/// Steps without an overflow after which the loss scale doubles (PyTorch's default).
const GROWTH_INTERVAL: i32 = 2000;
/// The first loss scale (PyTorch's default).
const FIRST_SCALE: f32 = 65_536.0;

/// Room for a new tensor like an old one.
fn like(tensor: &Tensor) -> Result<Tensor> {
    Ok(tallow_cuda::empty(tensor.shape(), DType::F32, tensor.device())?)
}

/// a + share·(b − a) for every pair.
pub(super) fn lerp(pairs: &[(Tensor, Tensor)], share: f32) -> Result<Vec<Tensor>> {
    let Some((first, _)) = pairs.first() else { return Ok(vec![]) };
    let (mut rows, mut results) = (vec![], vec![]);
    for (a, b) in pairs {
        let result = like(a)?;
        let tensors = [pointer(a)?, pointer(b)?, 0, 0, pointer(&result)?, 0, 0, 0];
        rows.push(Row { tensors, elements: a.elem_count(), ..Row::default() });
        results.push(result);
    }
    Table::new(&rows, first.device())?.run(&SOURCE, "lerp", [share.into()])?;
    Ok(results)
}

/// How a step on the device is to be taken, decided there.
pub struct Control {
    /// Factor on all gradients, whether to skip the step, the gradients' norm.
    values: Tensor,
}

impl Control {
    /// With a factor that is known.
    pub(super) fn fixed(factor: f64, device: &Device) -> Result<Self> {
        Ok(Self { values: Tensor::new(&[factor as f32, 0.0, 0.0], device)? })
    }

    /// For gradients that are `scale` times too large, where there is a scale: their norm is at most `limit` in the step.
    /// Where it is no number, the step is skipped and counted in `skipped`, f64 `[1]`.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn of(
        gradients: &Gradients,
        limit: Option<f64>,
        scale: Option<&LossScale>,
        skipped: &Tensor,
    ) -> Result<Self> {
        let device = skipped.device();
        // Copies where a gradient does not lie together; they live until the launch.
        let tensors = gradients.values().map(Tensor::contiguous).collect::<candle_core::Result<Vec<_>>>()?;
        let mut rows = vec![];
        for tensor in &tensors {
            let tensors = [0, pointer(tensor)?, 0, 0, 0, 0, 0, 0];
            rows.push(Row { tensors, elements: tensor.elem_count(), ..Row::default() });
        }
        let table = Table::new(&rows, device)?;
        let partial = tallow_cuda::empty(table.blocks().max(1), DType::F64, device)?;
        table.run(&SOURCE, "square_sums", [pointer(&partial)?.into()])?;
        let values = tallow_cuda::empty(3, DType::F32, device)?;
        let launch = Launch::blocks(&SOURCE, Variant::new(DType::F32, 1), "decide", [1, 1, 1])
            .arg(table.blocks() as i32)
            .arg(limit.unwrap_or(0.0) as f32)
            .arg(pointer(&partial)?)
            .arg(scale.map_or(Ok(0), |scale| pointer(&scale.state))?)
            .arg(pointer(&values)?)
            .arg(pointer(skipped)?);
        run(device, &launch)?;
        Ok(Self { values })
    }

    /// The gradients' norm; this waits for the device.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn norm(&self) -> Result<f64> {
        Ok(f64::from(self.values.to_vec1::<f32>()?[2]))
    }
}

/// The factor that keeps the gradients of f16 from vanishing, adapted on the device.
pub struct LossScale {
    /// The scale, and the steps since it changed: f32 `[2]`.
    state: Tensor,
}

impl LossScale {
    /// PyTorch's first scale.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn new(device: &Device) -> Result<Self> {
        Ok(Self { state: Tensor::new(&[FIRST_SCALE, 0.0], device)? })
    }

    /// That of a checkpoint.
    pub fn restored(state: Tensor) -> Self {
        Self { state }
    }

    /// For a checkpoint, and for the loss, which reads the first number.
    pub fn state(&self) -> &Tensor {
        &self.state
    }

    /// Halves it after a skipped step, doubles it after many that were not.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn adapt(&self, control: &Control) -> Result<()> {
        let launch = Launch::blocks(&SOURCE, Variant::new(DType::F32, 1), "adapt_scale", [1, 1, 1])
            .arg(GROWTH_INTERVAL)
            .arg(pointer(&control.values)?)
            .arg(pointer(&self.state)?);
        Ok(run(self.state.device(), &launch)?)
    }
}

impl Optimizer {
    /// As [`Self::step`] on a GPU, with what `control` has decided there. Nothing waits for the GPU.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn step_on_gpu(
        &mut self,
        weights: &mut Weights,
        gradients: &Gradients,
        rate: impl Fn(&str) -> f64,
        control: &Control,
    ) -> Result<()> {
        self.steps += 1;
        let Self { kind, parameters, steps, state, taken } = self;
        if let (OptimizerKind::AdamW { .. }, None) = (*kind, &taken) {
            *taken = Some(Taken::of(parameters, state, *steps - 1, control.values.device())?);
        }
        let mut moving = vec![];
        for (slot, parameter) in parameters.iter().enumerate() {
            let Some(gradient) = gradients.get(&parameter.name) else { continue };
            moving.push(Moving {
                name: &parameter.name,
                gradient,
                slots: kind.slots().iter().map(|(slot, _)| slot_name(parameter, slot)).collect(),
                rate: rate(&parameter.name),
                decay: if parameter.role.decays() { kind.weight_decay() } else { 0.0 },
                number: slot as u32,
            });
        }
        step(*kind, &moving, weights, state, (control, taken.as_ref()))
    }
}

/// How many steps every parameter has been through, on the device, because it alone knows which were skipped: those
/// that AdamW corrects its averages by.
pub(super) struct Taken {
    /// i64, in the order of the parameters.
    counts: Tensor,
}

impl Taken {
    /// After `steps` steps of which some were missed. From here on, this counts, not the state.
    fn of(parameters: &[Parameter], state: &mut State, steps: u64, device: &Device) -> Result<Self> {
        let mut counts = Vec::with_capacity(parameters.len());
        for parameter in parameters {
            counts.push((steps - missed(state, parameter)?) as i64);
            state.remove(&slot_name(parameter, MISSED));
        }
        let length = counts.len();
        Ok(Self { counts: Tensor::from_vec(counts, length, device)? })
    }

    /// As a checkpoint holds them, after `steps` steps: what was missed. Waits for the device.
    pub(super) fn note(&self, parameters: &[Parameter], state: &mut State, steps: u64) -> Result<()> {
        for (parameter, taken) in parameters.iter().zip(self.counts.to_vec1::<i64>()?) {
            set_missed(state, parameter, steps - taken as u64)?;
        }
        Ok(())
    }
}

/// A parameter that is to move.
struct Moving<'a> {
    name: &'a str,
    gradient: &'a Tensor,
    /// Names of its slots in the state.
    slots: Vec<String>,
    rate: f64,
    /// Weight decay, 0 for parameters that it spares.
    decay: f64,
    /// Its place among all parameters.
    number: u32,
}

/// Moves all of them.
fn step(
    kind: OptimizerKind,
    moving: &[Moving<'_>],
    weights: &mut Weights,
    state: &mut State,
    (control, taken): (&Control, Option<&Taken>),
) -> Result<()> {
    let mut rows = vec![];
    // What the launch reads must live until then, and what it writes replaces the old afterwards.
    let (mut read, mut new_weights, mut new_slots) = (vec![], vec![], vec![]);
    for parameter in moving {
        let weight = weights.get(parameter.name).contiguous()?;
        let gradient = parameter.gradient.contiguous()?;
        if gradient.dims() != weight.dims() || gradient.dtype() != DType::F32 {
            return Err(candle_core::Error::Msg(format!(
                "a gradient of {:?} {:?} does not fit `{}` of {:?}",
                gradient.dtype(),
                gradient.dims(),
                parameter.name,
                weight.dims()
            ))
            .into());
        }
        let mut tensors = [pointer(&weight)?, pointer(&gradient)?, 0, 0, 0, 0, 0, 0];
        let new = like(&weight)?;
        tensors[4] = pointer(&new)?;
        for (i, slot) in parameter.slots.iter().enumerate() {
            let (old, new) = (state[slot].contiguous()?, like(&weight)?);
            (tensors[2 + i], tensors[5 + i]) = (pointer(&old)?, pointer(&new)?);
            read.push(old);
            new_slots.push((slot.clone(), new));
        }
        let (rate, decay) = (parameter.rate, parameter.decay);
        let decay = if taken.is_some() { 1.0 - rate * decay } else { decay };
        let numbers = [rate as f32, decay as f32];
        rows.push(Row { tensors, elements: weight.elem_count(), numbers, slot: parameter.number });
        new_weights.push((parameter.name, new));
        read.extend([weight, gradient]);
    }
    let table = Table::new(&rows, control.values.device())?;
    let control = pointer(&control.values)?;
    match kind {
        OptimizerKind::Sgd { momentum, nesterov, .. } => {
            let constants = [(momentum as f32).into(), i32::from(nesterov).into()];
            table.run(&SOURCE, "sgd", [control.into()].into_iter().chain(constants))?;
        }
        OptimizerKind::RmsProp { decay, momentum, eps, .. } => {
            let constants = [1.0 - decay, momentum, eps].map(|v| Arg::from(v as f32));
            table.run(&SOURCE, "rmsprop", [control.into()].into_iter().chain(constants))?;
        }
        OptimizerKind::AdamW { beta1, beta2, eps, .. } => {
            let Some(taken) = taken else { unreachable!("AdamW counts steps") };
            let taken = Arg::from(pointer(&taken.counts)?);
            let constants = [1.0 - beta1, 1.0 - beta2, beta1.ln(), beta2.ln(), eps];
            let constants = constants.map(|v| Arg::from(v as f32));
            table.run(&SOURCE, "adamw", [control.into()].into_iter().chain(constants).chain([taken]))?;
            table.run_once(&SOURCE, "count_steps", [control.into(), taken])?;
        }
    }
    new_weights.into_iter().for_each(|(name, new)| weights.set(name, new));
    state.extend(new_slots);
    Ok(())
}

/// NVRTC needs no GPU: that the source compiles is tested wherever its library is.
#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;

    #[test]
    fn the_source_compiles() {
        for capability in [(8, 0), (9, 0)] {
            if let Err(error) = tallow_cuda::compile(&SOURCE, Variant::new(DType::F32, 1), capability) {
                panic!("{error}");
            }
        }
    }
}
