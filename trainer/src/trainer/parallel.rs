//! A run's part in a training by several processes: what they agree on around a step, a validation and an epoch. Alone,
//! each of these is what a single process has anyway.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Result as TensorResult, Tensor};
use tallow_builder::Rng;
use tallow_builder::exec::{BatchStatistics, Gradients, Tape};
use tallow_cuda::Uploader;

use super::{STEP_STREAM, Trainer};
use crate::compute::{Input, Inputs};
use crate::data::{Batch, Skipped};
use crate::distributed::{Counts, DataParallel, Lockstep, Transport, state_digest};
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::metrics::{ConfusionMatrix, PrecisionRecall, Running};
use crate::optim::{Ema, merged, merged_one};

impl Trainer {
    /// Whether this process writes the run's files and shows its progress, as one that trains alone does.
    pub fn leads(&self) -> bool {
        self.parallel.as_ref().is_none_or(DataParallel::leads)
    }

    /// Number of processes that train together.
    pub fn processes(&self) -> usize {
        self.parallel.as_ref().map_or(1, |parallel| parallel.share().world_size)
    }

    /// How gradients go to the other processes, where there are any.
    pub fn transport(&self) -> Option<Transport> {
        self.parallel.as_ref().map(DataParallel::transport)
    }

    /// Joins the other processes, if there are any: all must start from the same state.
    pub(super) fn joined(self, parallel: Option<DataParallel>) -> Result<Self> {
        if let Some(parallel) = &parallel {
            let average = self.ema.as_ref().map(|ema| ema.weights());
            parallel.require_equal(&state_digest(
                self.network.weights(),
                average,
                self.optimizer.state(),
            )?)?;
        }
        Ok(Self { parallel, ..self })
    }

    /// The rest of an epoch's batches, or of this process's share of each, where they are computed with.
    pub(super) fn inputs<'a>(
        &self,
        uploader: &'a mut Uploader,
        epoch: u64,
        first: usize,
    ) -> Result<Box<dyn Iterator<Item = Result<Input>> + 'a>> {
        let compute = &self.compute;
        Ok(match &self.parallel {
            Some(_) => Box::new(Inputs::new(compute, uploader, Lockstep::new(&self.train, epoch, first)?)),
            None => Box::new(Inputs::new(compute, uploader, self.train.epoch(epoch, first)?)),
        })
    }

    /// How many images each process has in a batch.
    pub(super) fn count(&mut self, batch: &Batch, stop: &AtomicBool) -> Result<Counts> {
        match &mut self.parallel {
            Some(parallel) => parallel.agree(batch.len(), stop.load(Ordering::Relaxed)),
            None => Ok(Counts::alone(batch.len())),
        }
    }

    /// Refuses to use what was read from the device where another process was lost before.
    pub(super) fn require_all(&self) -> Result<()> {
        self.parallel.as_ref().map_or(Ok(()), DataParallel::require_all)
    }

    /// Whether to stop: where any process was asked to when they last agreed.
    pub(super) fn stops(&self, stop: &AtomicBool) -> bool {
        self.parallel.as_ref().map_or_else(|| stop.load(Ordering::Relaxed), DataParallel::stops)
    }

    /// The random numbers of a step, which differ from process to process. Rank 0 draws as one does that trains alone.
    pub(super) fn step_rng(&self, batch: usize) -> Rng {
        let rank = self.parallel.as_ref().map_or(0, DataParallel::rank) as u64;
        let mut key = vec![STEP_STREAM, self.position.epoch, batch as u64];
        key.extend((rank > 0).then_some(rank));
        Rng::stream(self.config.seed, &key)
    }

    /// The forward pass of a batch.
    pub(super) fn forward(&self, images: &Tensor, rng: &mut Rng, counts: Counts) -> Result<Tape> {
        let epoch = self.position.epoch;
        let frozen = |layer: &str| self.tuning.freezes_moments(epoch, layer);
        let reduce = self.parallel.as_ref().and_then(|parallel| parallel.batch_reduce(counts));
        Ok(self.network.record_keeping(images, rng, &frozen, self.keep(), reduce)?)
    }

    /// The gradients of the mean over the images of a step's batches so far, from that of the mean over the newest one's.
    /// Of several processes, each keeps its part in them until the `last` batch of the step, whose backward pass they are
    /// summed in: as PyTorch's DistributedDataParallel does in `no_sync`, once a step, however many batches it has.
    pub(super) fn backward(
        &mut self,
        tape: Tape,
        gradient: &Tensor,
        counts: Counts,
        before: Option<(Gradients, usize)>,
        last: bool,
    ) -> Result<Gradients> {
        let Self { network, tuning, position, parallel, .. } = self;
        let wanted = |name: &str| tuning.trains(position.epoch, name);
        let (mut before, images) = before.unwrap_or_default();
        let Some(parallel) = parallel else {
            let gradients = tape.backward(network, gradient, wanted)?;
            return merged((before, images), (gradients, counts.total));
        };
        let gradient = parallel.weighted(gradient, counts)?;
        // Not a product: a stand-in's gradients may be no numbers.
        let part = |gradient: Tensor| if counts.own == 0 { gradient.zeros_like() } else { Ok(gradient) };
        if !last {
            let gradients = tape.backward(network, &gradient, wanted)?.into_iter();
            let gradients = gradients.map(|(name, gradient)| Ok((name, part(gradient)?)));
            return merged((before, images), (gradients.collect::<Result<_>>()?, counts.total));
        }
        parallel.sum_gradients(network.graph(), &wanted, gradient.device(), |add| {
            tape.backward_watched(network, &gradient, wanted, |name, gradient| {
                let newest = (part(gradient)?, counts.total);
                add(name, merged_one((&mut before, images), name, newest)?)
            })
        })
    }

    /// The sums over all processes of gradients of which each has its part.
    pub(super) fn sum_gradients(&mut self, gradients: Gradients) -> Result<Gradients> {
        let Self { network, tuning, position, parallel, compute, .. } = self;
        let Some(parallel) = parallel else { return Ok(gradients) };
        let wanted = |name: &str| tuning.trains(position.epoch, name);
        parallel.sum_gradients(network.graph(), &wanted, compute.device(), |add| {
            gradients.into_iter().try_for_each(|(name, gradient)| add(&name, gradient))
        })
    }

    /// Takes a batch's moments into the running averages. Of several processes rank 0 alone does so: no step
    /// needs the averages, and the others get them from it by [`Self::share_averages`].
    pub(super) fn track(&mut self, mut statistics: Vec<BatchStatistics>, counts: Counts) -> Result<()> {
        if let Some(parallel) = &self.parallel {
            parallel.moments_for_averages(&mut statistics, counts)?;
        }
        if self.leads() {
            self.network.track(&statistics)?;
        }
        Ok(())
    }

    /// Makes rank 0's running averages, and their averages in turn, those of all processes, wherever training
    /// stops to go on with something else: a validation, the next epoch, which may freeze some of them, or
    /// its end.
    pub(super) fn share_averages(&mut self) -> Result<()> {
        let Some(parallel) = &self.parallel else { return Ok(()) };
        let parameters = self.network.graph().parameters();
        let names = parameters.iter().filter(|p| !p.role.is_trainable()).map(|p| p.name.as_str());
        let names: Vec<&str> = names.collect();
        let weights = [Some(self.network.weights()), self.ema.as_ref().map(Ema::weights)];
        let own =
            weights.into_iter().flatten().flat_map(|weights| names.iter().map(|name| weights.get(name)));
        let mut shared = parallel.of_rank_0(&own.collect::<Vec<_>>())?.into_iter();
        let weights = [Some(self.network.weights_mut()), self.ema.as_mut().map(Ema::weights_mut)];
        for weights in weights.into_iter().flatten() {
            names.iter().zip(&mut shared).for_each(|(name, tensor)| weights.set(name, tensor));
        }
        Ok(())
    }

    /// Adds a batch to what the epoch has seen, and gives the mean loss over all its images.
    pub(super) fn see(&mut self, loss: f64, logits: &Tensor, batch: &Batch) -> Result<f64> {
        let mut seen = Running::new(self.network.graph().output_shape().elements());
        if !batch.is_empty() {
            let logits: TensorResult<Vec<f32>> = logits.flatten_all()?.to_vec1();
            seen.update(loss, &logits?, &batch.labels);
        }
        let Some(parallel) = &self.parallel else {
            self.position.running.add(&seen);
            return Ok(loss);
        };
        let seen = parallel.sum_running(self.network.graph().output_shape().elements(), &seen)?;
        self.position.running.add(&seen);
        Ok(seen.loss())
    }

    /// What all processes together found in a validation of which each has done its share. `None` where any was
    /// interrupted.
    pub(super) fn summed(
        &mut self,
        found: Result<Option<Evaluation>>,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let Some(parallel) = &mut self.parallel else { return found };
        let classes = self.network.graph().output_shape().elements();
        let (found, unusable) = match found {
            // Others may have usable images.
            Err(error @ Error::NoUsableImages { .. }) => {
                let nothing = Evaluation::of(
                    Running::new(classes),
                    ConfusionMatrix::new(classes),
                    PrecisionRecall::new(classes),
                );
                (Some(nothing), Some(error))
            }
            found => (found?, None),
        };
        let mut parts = found.map(|found| (found.running, found.confusion, found.precision_recall));
        let borrowed = parts.as_mut().map(|(running, confusion, curve)| (running, confusion, curve));
        if !parallel.sum_validation(borrowed, stop.load(Ordering::Relaxed))? {
            return Ok(None);
        }
        parallel.share_skipped(&self.validation)?;
        let whole = parts.map(|(running, confusion, curve)| Evaluation::of(running, confusion, curve));
        match (&whole, unusable) {
            (Some(Evaluation { images: 0, .. }), Some(error)) => Err(error),
            _ => Ok(whole),
        }
    }

    /// Ends an epoch's training: all processes know which images none of them could use.
    pub(super) fn share_skipped(&self) -> Result<()> {
        let Some(parallel) = &self.parallel else { return Ok(()) };
        parallel.share_skipped(&self.train)?;
        if self.position.running.samples() > 0 {
            return Ok(());
        }
        let skipped = self.train.skipped();
        let first = skipped.first().map(|Skipped { origin, reason }| format!("{origin}: {reason}"));
        Err(Error::NoUsableImages { tried: skipped.len(), first: first.unwrap_or_default() })
    }
}
