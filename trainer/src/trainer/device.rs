//! What is different where a GPU trains: counts are read now and then, and memory may not suffice.

use candle_core::Device;
use tallow_builder::exec::Keep;
use tallow_cuda::device;
use tallow_distributed::Error as Distributed;

use super::Trainer;
use crate::compute::memory::Need;
use crate::compute::{Compute, LOSS_SCALE, NoRoom, Precision};
use crate::error::{Error, Result};
use crate::metrics::Running;
use crate::optim::State;

/// A loss scale below this means that the gradients are no numbers whatever they are multiplied with.
const LEAST_SCALE: f32 = 1.0;

impl Trainer {
    /// Where the run computes.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// What a pass keeps.
    pub(super) fn keep(&self) -> Keep {
        match self.config.compute.checkpoint_activations {
            true => Keep::Checkpoints,
            // On a CPU, what is fused is computed in parts all the same.
            false if self.compute.is_gpu() => Keep::Needed,
            false => Keep::Everything,
        }
    }

    /// Takes what the GPU has counted since the last time into the running loss and accuracies.
    ///
    /// # Errors
    /// Where the loss or the gradients are no numbers any more: what was wrong is found some steps later.
    pub(super) fn read_counts(&mut self) -> Result<()> {
        let classes = self.network.graph().output_shape().elements();
        let Some(on_device) = &mut self.on_device else { return Ok(()) };
        let read = on_device.read(classes)?;
        self.require_all()?;
        let running = match &self.parallel {
            Some(parallel) => parallel.sum_running(classes, &read.running)?,
            None => read.running,
        };
        let batch = self.position.batch;
        if running.samples() > 0 && !running.loss().is_finite() {
            let place = "in a batch since the loss was last read".into();
            return Err(self.not_finite("loss", batch, place));
        }
        let hopeless = read.scale.is_none_or(|scale| scale < LEAST_SCALE);
        if read.skipped > 0 && hopeless {
            let place = match self.compute.precision() {
                Precision::F16 => "whatever the loss is scaled by: try --precision bf16".into(),
                _ => "in a step since the loss was last read, which was left out".into(),
            };
            return Err(self.not_finite("gradient", batch, place));
        }
        self.position.running.add(&running);
        Ok(())
    }

    /// A loss of this process as the mean over the images of all.
    pub(super) fn over_processes(&self, loss: f64, images: usize) -> Result<f64> {
        let Some(parallel) = &self.parallel else { return Ok(loss) };
        let classes = self.network.graph().output_shape().elements();
        let sum = if images == 0 { 0.0 } else { loss * images as f64 };
        Ok(parallel.sum_running(classes, &Running::of_sums(classes, [images as f64, sum, 0.0, 0.0]))?.loss())
    }

    /// The most memory that tensors have taken on a GPU so far, for an epoch's line; nothing for a CPU.
    pub(super) fn peak_memory(&self) -> String {
        let memory = device::memory(self.compute.device()).ok().flatten();
        memory.map_or(String::new(), |memory| format!("  peak {:.1} GB", memory.peak as f64 / 1e9))
    }

    /// The optimiser's state for a checkpoint, the loss scale with it.
    pub(super) fn state_on_host(&self) -> Result<State> {
        let mut state = self.optimizer.state_on_host()?;
        if let Some(scale) = self.on_device.as_ref().and_then(|on_device| on_device.scale()) {
            state.insert(LOSS_SCALE.into(), scale.state().to_device(&Device::Cpu)?);
        }
        Ok(state)
    }

    /// An error with what to do about it, where a batch did not fit into the GPU's memory; that of another process where
    /// this one's may follow from its loss.
    pub(super) fn explained(&self, error: Error) -> Error {
        let is_memory = match &error {
            Error::Candle(source) => device::is_out_of_memory(source),
            Error::Builder(source) => device::is_out_of_memory_text(&source.to_string()),
            Error::Distributed(Distributed::Tensor(text)) => device::is_out_of_memory_text(text),
            _ => false,
        };
        if !is_memory {
            let cause = self.parallel.as_ref().and_then(|parallel| parallel.cause(&error));
            return cause.unwrap_or(error);
        }
        let memory = device::memory(self.compute.device()).ok().flatten();
        let Some(available) = memory.map(|memory| memory.available) else { return error };
        let slots = self.optimizer.state().len().div_ceil(self.network.weights().iter().count().max(1));
        let need = Need {
            graph: self.network.graph(),
            keep: self.keep(),
            precision: self.compute.precision(),
            copies: 1 + slots + usize::from(self.ema.is_some()),
        };
        // A batch has as many shares as the run had processes when it began, whoever computes them now.
        let shares = self.config.distributed.world_size.unwrap_or(1);
        Error::OutOfMemory(NoRoom {
            device: device::describe(self.compute.device()),
            batch_size: self.config.batch_size,
            accumulate: self.config.accumulate,
            available,
            fits: need.images_within(available) * self.processes() / shares,
            checkpointed: self.config.compute.checkpoint_activations,
        })
    }
}
