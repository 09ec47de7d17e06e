//! One step: forward, loss and backward of one batch or several, then the update.

use candle_core::Tensor;
use tallow_builder::Weights;
use tallow_builder::exec::Gradients;
use tallow_builder::kernels::{CrossEntropy, MixedLabels};

use super::Trainer;
use super::inspection::Inspection;
use crate::compute::{Input, OnDevice, StepLoss};
use crate::data::Batch;
use crate::diagnose::Activations;
use crate::distributed::Counts;
use crate::error::Result;
use crate::optim::{Control, LossScale, global_norm};
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
    loss: StepLoss,
    /// Images in all of its batches.
    counts: Counts,
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
    pub(super) fn learn(&mut self, input: Input, counts: Counts, mut group: Option<Group>) -> Result<Group> {
        let Input { batch, images } = input;
        let mut rng = self.step_rng(batch.index);
        let stand_in = batch.is_empty().then(|| batch.stand_in());
        let targets = stand_in.as_ref().unwrap_or(&batch).targets();

        let activations = self.activations_apart(&images, &rng)?;
        let tape = self.forward(&images, &mut rng, counts)?;
        drop(images);
        let logits = tape.value(self.network.graph().output()).clone();
        let (loss, gradient) = self.loss(&logits, targets, stand_in.is_some())?;
        if let StepLoss::Known(loss) = loss
            && !loss.is_finite()
        {
            return Err(self.diverged(&batch, &tape)?);
        }
        let mut statistics = tape.statistics(&self.network);
        if self.config.weights.is_none() {
            let steps = self.position.steps as f64;
            statistics.iter_mut().for_each(|layer| layer.momentum = early_momentum(layer.momentum, steps));
        }
        let activations = activations.or(self.activations(&tape)?);
        let seen = activations.map(|activations| (activations, self.network.weights().clone()));
        let last = self.is_last(batch.index);
        let before = group.as_mut().map(|group| (std::mem::take(&mut group.gradients), group.counts.total));
        let gradients = self.backward(tape, &gradient, counts, before, last)?;
        self.track(statistics, counts)?;
        let loss = match loss {
            StepLoss::Known(loss) => StepLoss::Known(self.see(loss, &logits, &batch)?),
            on_device => on_device,
        };

        let number = self.group_of(batch.index);
        let newest = Group { number, batch, gradients, loss, counts, seen };
        let Some(before) = group else { return Ok(newest) };
        Ok(Group {
            loss: before.loss.and(before.counts, newest.loss, counts)?,
            counts: before.counts.and(counts),
            seen: before.seen,
            ..newest
        })
    }

    /// The loss of a batch and its gradient. On a GPU nobody waits for the loss.
    fn loss(
        &mut self,
        logits: &Tensor,
        targets: MixedLabels<'_>,
        stand_in: bool,
    ) -> Result<(StepLoss, Tensor)> {
        let loss = CrossEntropy { smoothing: self.config.label_smoothing };
        let Some(on_device) = &mut self.on_device else {
            let (loss, gradient) = loss.mixed_loss_and_gradient(logits, targets)?;
            return Ok((StepLoss::Known(loss), gradient));
        };
        let found = loss.on_device(logits, targets, on_device.scale().map(LossScale::state))?;
        on_device.count(&found, stand_in)?;
        Ok((StepLoss::of(&found)?, found.gradient))
    }

    /// The update of a step, and what is written down of it; `first` says whether it is the epoch's first.
    pub(super) fn update(&mut self, mut group: Group, first: bool, progress: &mut Progress) -> Result<()> {
        // Nobody had a usable image in the step's last batch, in which all processes' parts are summed.
        if !self.is_last(group.batch.index) {
            group.gradients = self.sum_gradients(group.gradients)?;
        }
        if self.on_device.is_some() {
            return self.update_on_device(group, first, progress);
        }
        let Group { number, batch, gradients, loss, counts, seen } = group;
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
        let (loss, images) = (loss.read()?, counts.total);
        let record = StepRecord { loss, learning_rate: rate, gradient_norm: norm, images };
        let inspection = seen.map(|(seen, before)| Inspection::new(seen, gradients, before));
        self.record(&batch, first, (record, inspection), progress)
    }

    /// As [`Self::update`] on a GPU, which decides by itself how long the step is, and whether there is one.
    fn update_on_device(&mut self, group: Group, first: bool, progress: &mut Progress) -> Result<()> {
        let Group { number, batch, gradients, loss, counts, seen } = group;
        let rate = self.rate(number)?;
        let (epoch, tuning) = (self.position.epoch, &self.tuning);
        let Some(on_device) = &self.on_device else { return Ok(()) };
        let control = Control::of(&gradients, self.config.clip_norm, on_device.scale(), on_device.skipped())?;
        let rates = |name: &str| rate * tuning.factor(name);
        self.optimizer.step_on_gpu(self.network.weights_mut(), &gradients, rates, &control)?;
        let unscaled = seen.is_some().then(|| on_device.unscaled(&gradients)).transpose()?;
        on_device.adapt(&control)?;
        self.position.steps = self.optimizer.steps();
        if let Some(ema) = &mut self.ema {
            ema.update(self.network.weights(), self.position.steps, |name| tuning.moves(epoch, name))?;
        }
        // Only what is written down is waited for.
        let (mut known, mut norm) = (f64::NAN, f64::NAN);
        // Of several processes, all help the one that writes.
        let wanted = self.parallel.is_some() || self.recorder.writes();
        let due = wanted && self.recorder.is_due(self.position.steps);
        if due || seen.is_some() {
            (known, norm) = (loss.read()?, control.norm()?);
            self.require_all()?;
        }
        // Rank 0 alone inspects; what is due is due in all.
        if due {
            known = self.over_processes(known, counts.own)?;
        }
        let record =
            StepRecord { loss: known, learning_rate: rate, gradient_norm: norm, images: counts.total };
        let inspection =
            seen.zip(unscaled).map(|((seen, before), gradients)| Inspection::new(seen, gradients, before));
        self.record(&batch, first, (record, inspection), progress)?;
        if OnDevice::is_due(self.position.steps, first) {
            self.read_counts()?;
        }
        Ok(())
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
