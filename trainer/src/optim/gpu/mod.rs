//! Optimiser steps on a GPU: all parameters in one launch, and nothing that waits for the GPU.

use candle_core::{DType, Device, Tensor};
use tallow_builder::Weights;
use tallow_builder::exec::Gradients;
use tallow_cuda::{Arg, Launch, Source, Variant, pointer, run};

use super::{Optimizer, OptimizerKind, State, missed, note_missed, slot_name};
use crate::error::Result;

static SOURCE: Source = Source { name: "optimiser.cu", text: include_str!("optimiser.cu") };

/// Elements of a chunk, `CHUNK` in the source.
const CHUNK: usize = 16_384;
/// Steps without an overflow after which the loss scale doubles (PyTorch's default).
const GROWTH_INTERVAL: i32 = 2000;
/// The first loss scale (PyTorch's default).
const FIRST_SCALE: f32 = 65_536.0;

/// What a step needs of one tensor: `Entry` in the source.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// weight, gradient, first, second, new weight, new first, new second.
    addresses: [u64; 7],
    count: usize,
    /// Rate, decay, factor of the mean, factor of the square.
    numbers: [f32; 4],
}

/// A table on the device, and how it is dealt out.
struct Table {
    bytes: Tensor,
    chunks_at: u64,
    chunks: usize,
}

impl Table {
    fn new(entries: &[Entry], device: &Device) -> Result<Self> {
        let mut bytes = Vec::with_capacity(entries.len() * 96);
        for entry in entries {
            entry.addresses.iter().for_each(|address| bytes.extend(address.to_le_bytes()));
            bytes.extend((entry.count as u64).to_le_bytes());
            entry.numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        let (offset, mut chunks) = (bytes.len(), 0);
        for (i, entry) in entries.iter().enumerate() {
            for number in 0..entry.count.div_ceil(CHUNK) {
                bytes.extend((i as u32).to_le_bytes());
                bytes.extend((number as u32).to_le_bytes());
                chunks += 1;
            }
        }
        let length = bytes.len();
        let bytes = Tensor::from_vec(bytes, length, device)?;
        let chunks_at = pointer(&bytes)? + offset as u64;
        Ok(Self { bytes, chunks_at, chunks })
    }

    fn run(&self, kernel: &'static str, arguments: impl IntoIterator<Item = Arg>) -> Result<()> {
        if self.chunks == 0 {
            return Ok(());
        }
        let variant = Variant::new(DType::F32, 1);
        let launch = Launch::blocks(&SOURCE, variant, kernel, [self.chunks as u32, 1, 1]);
        let launch = launch.arg(pointer(&self.bytes)?).arg(self.chunks_at);
        Ok(run(self.bytes.device(), &arguments.into_iter().fold(launch, Launch::arg))?)
    }
}

/// Room for a new tensor like an old one.
fn like(tensor: &Tensor) -> Result<Tensor> {
    Ok(tallow_cuda::empty(tensor.shape(), DType::F32, tensor.device())?)
}

/// a + share·(b − a) for every pair.
pub(super) fn lerp(pairs: &[(Tensor, Tensor)], share: f32) -> Result<Vec<Tensor>> {
    let Some((first, _)) = pairs.first() else { return Ok(vec![]) };
    let (mut entries, mut results) = (vec![], vec![]);
    for (a, b) in pairs {
        let result = like(a)?;
        let addresses = [pointer(a)?, pointer(b)?, 0, 0, pointer(&result)?, 0, 0];
        entries.push(Entry { addresses, count: a.elem_count(), ..Entry::default() });
        results.push(result);
    }
    Table::new(&entries, first.device())?.run("lerp", [share.into()])?;
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
        let mut entries = vec![];
        for tensor in &tensors {
            let addresses = [0, pointer(tensor)?, 0, 0, 0, 0, 0];
            entries.push(Entry { addresses, count: tensor.elem_count(), ..Entry::default() });
        }
        let table = Table::new(&entries, device)?;
        let partial = Tensor::zeros(table.chunks.max(1), DType::F64, device)?;
        table.run("square_sums", [pointer(&partial)?.into()])?;
        let values = tallow_cuda::empty(3, DType::F32, device)?;
        let launch = Launch::blocks(&SOURCE, Variant::new(DType::F32, 1), "decide", [1, 1, 1])
            .arg(table.chunks as i32)
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
        let Self { kind, parameters, steps, state } = self;
        let mut moving = vec![];
        for parameter in parameters.iter() {
            let missed = missed(state, parameter)?;
            let Some(gradient) = gradients.get(&parameter.name) else {
                note_missed(*kind, state, parameter, missed)?;
                continue;
            };
            moving.push(Moving {
                name: &parameter.name,
                gradient,
                slots: kind.slots().iter().map(|(slot, _)| slot_name(parameter, slot)).collect(),
                rate: rate(&parameter.name),
                decay: if parameter.role.decays() { kind.weight_decay() } else { 0.0 },
                steps: *steps - missed,
            });
        }
        step(*kind, &moving, weights, state, control)
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
    /// Steps it has been through, this one included.
    steps: u64,
}

/// Moves all of them.
fn step(
    kind: OptimizerKind,
    moving: &[Moving<'_>],
    weights: &mut Weights,
    state: &mut State,
    control: &Control,
) -> Result<()> {
    let mut entries = vec![];
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
        let mut addresses = [pointer(&weight)?, pointer(&gradient)?, 0, 0, 0, 0, 0];
        let new = like(&weight)?;
        addresses[4] = pointer(&new)?;
        for (i, slot) in parameter.slots.iter().enumerate() {
            let (old, new) = (state[slot].contiguous()?, like(&weight)?);
            (addresses[2 + i], addresses[5 + i]) = (pointer(&old)?, pointer(&new)?);
            read.push(old);
            new_slots.push((slot.clone(), new));
        }
        let numbers = numbers(kind, parameter);
        entries.push(Entry { addresses, count: weight.elem_count(), numbers });
        new_weights.push((parameter.name, new));
        read.extend([weight, gradient]);
    }
    let table = Table::new(&entries, control.values.device())?;
    let control = pointer(&control.values)?;
    match kind {
        OptimizerKind::Sgd { momentum, nesterov, .. } => {
            table.run("sgd", [control.into(), (momentum as f32).into(), i32::from(nesterov).into()])?;
        }
        OptimizerKind::RmsProp { decay, momentum, eps, .. } => {
            let constants = [1.0 - decay, momentum, eps].map(|v| Arg::from(v as f32));
            table.run("rmsprop", [control.into()].into_iter().chain(constants))?;
        }
        OptimizerKind::AdamW { beta1, beta2, eps, .. } => {
            let constants = [1.0 - beta1, 1.0 - beta2, eps].map(|v| Arg::from(v as f32));
            table.run("adamw", [control.into()].into_iter().chain(constants))?;
        }
    }
    new_weights.into_iter().for_each(|(name, new)| weights.set(name, new));
    state.extend(new_slots);
    Ok(())
}

/// What `Entry` holds besides addresses.
fn numbers(kind: OptimizerKind, parameter: &Moving<'_>) -> [f32; 4] {
    let (rate, decay) = (parameter.rate, parameter.decay);
    let numbers = match kind {
        OptimizerKind::AdamW { beta1, beta2, .. } => {
            let steps = parameter.steps as f64;
            let corrections = [1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps)];
            [rate, 1.0 - rate * decay, rate / corrections[0], 1.0 / corrections[1]]
        }
        _ => [rate, decay, 0.0, 0.0],
    };
    numbers.map(|v| v as f32)
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
