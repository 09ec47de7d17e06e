//! One step: forward, loss and backward of one batch or several, then the update.

use candle_core::Device;
use tallow_builder::Weights;
use tallow_builder::exec::Gradients;
use tallow_builder::kernels::CrossEntropy;

use super::Trainer;
use super::inspection::Inspection;
use crate::data::Batch;
use crate::diagnose::Activations;
use crate::distributed::Counts;
use crate::error::Result;
use crate::evaluate::images;
use crate::optim::{global_norm, merged};
use crate::progress::Progress;
use crate::tensorboard::StepRecord;

/// What the batches of a step have given so far.
pub(super) struct Group {
    /// Its place in the epoch.
    number: usize,
    /// Its newest batch.
    batch: Batch,
    /// Of the mean over its images.
    gradients: Gradients,
    /// Mean over its images.
    loss: f64,
    images: usize,
    /// What the layers gave in its first batch, and the weights then, where the step is inspected.
    seen: Option<(Activations, Weights)>,
}

impl Trainer {
    /// The place in its epoch of the step that a batch belongs to.
    pub(super) fn group_of(&self, batch: usize) -> usize {
        batch / self.config.accumulate
    }

    /// Whether a batch is of another step than those before it: images that cannot be used may have cost a step its
    /// last batch.
    pub(super) fn begins_another(&self, group: &Group, batch: &Batch) -> bool {
        group.number != self.group_of(batch.index)
    }

    /// Whether a batch is the last of its step.
    pub(super) fn is_last(&self, batch: usize) -> bool {
        (batch + 1).is_multiple_of(self.config.accumulate) || batch + 1 == self.train.batches()
    }

    /// Forward, loss and backward of a batch, together with those of its step before it.
    pub(super) fn learn(&mut self, batch: Batch, counts: Counts, group: Option<Group>) -> Result<Group> {
        let mut rng = self.step_rng(batch.index);
        let stand_in = batch.is_empty().then(|| batch.stand_in());
        let input = stand_in.as_ref().unwrap_or(&batch);
        let loss = CrossEntropy { smoothing: self.config.label_smoothing };

        let tape = self.forward(&images(input, &Device::Cpu)?, &mut rng, counts)?;
        let logits = tape.value(self.network.graph().output()).clone();
        let (mean_loss, gradient) = loss.mixed_loss_and_gradient(&logits, input.targets())?;
        if !mean_loss.is_finite() {
            return Err(self.diverged(&batch, &tape)?);
        }
        let mut statistics = tape.statistics(&self.network);
        if self.config.weights.is_none() {
            let steps = self.position.steps as f64;
            statistics.iter_mut().for_each(|layer| layer.momentum = early_momentum(layer.momentum, steps));
        }
        self.agree_on_moments(&mut statistics, counts)?;
        let activations = self.activations(&tape)?;
        let seen = activations.map(|activations| (activations, self.network.weights().clone()));
        let gradients = self.backward(tape, &gradient, counts)?;
        self.network.track(&statistics)?;
        let mean_loss = self.see(mean_loss, &logits, &batch)?;

        let (number, images) = (self.group_of(batch.index), counts.total);
        let Some(before) = group else {
            return Ok(Group { number, batch, gradients, loss: mean_loss, images, seen });
        };
        let total = before.images + images;
        Ok(Group {
            batch,
            gradients: merged((before.gradients, before.images), (gradients, images))?,
            loss: before.loss + (mean_loss - before.loss) * images as f64 / total as f64,
            images: total,
            ..before
        })
    }

    /// The update of a step, and what is written down of it; `first` says whether it is the epoch's first.
    pub(super) fn update(&mut self, group: Group, first: bool, progress: &mut Progress) -> Result<()> {
        let Group { number, batch, gradients, loss, images, seen } = group;
        let norm = global_norm(&gradients)?;
        if !norm.is_finite() {
            return Err(self.exploded(&batch, &gradients)?);
        }
        let rate = self.rate(number)?;
        let (epoch, tuning) = (self.position.epoch, &self.tuning);
        let factor = self.config.clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let rates = |name: &str| rate * tuning.factor(name);
        self.optimizer.step(self.network.weights_mut(), &gradients, rates, factor)?;
        self.position.steps = self.optimizer.steps();
        if let Some(ema) = &mut self.ema {
            ema.update(self.network.weights(), self.position.steps, |name| tuning.moves(epoch, name))?;
        }
        let record = StepRecord { loss, learning_rate: rate, gradient_norm: norm, images };
        let inspection = seen.map(|(seen, before)| Inspection::new(seen, gradients, before));
        self.record(&batch, first, (record, inspection), progress)
    }

    /// The learning rate of the step at a place in the epoch. It follows that place, so that batches without a usable
    /// image do not delay the schedule.
    pub(super) fn rate(&self, group: usize) -> Result<f64> {
        let per_epoch = self.steps_per_epoch();
        let step = self.position.epoch * per_epoch as u64 + group as u64;
        Ok(self.config.schedule.rate(self.config.learning_rate()?, step, per_epoch, self.config.epochs))
    }

    /// Steps in an epoch where every image can be used.
    pub(super) fn steps_per_epoch(&self) -> usize {
        self.train.batches().div_ceil(self.config.accumulate)
    }
}

/// The share of a batch in the running moments after so many steps from random weights. The average starts at 0 and 1,
/// which say nothing, and would keep much of them for 1/momentum steps: a small data set has no more than that. As in
/// the average of the weights, early steps count more.
fn early_momentum(momentum: f64, steps: f64) -> f64 {
    momentum.max(9.0 / (10.0 + steps))
}
