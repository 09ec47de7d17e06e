//! The training loop: epochs of steps, a validation after each, checkpoints in between. `prepare` puts a run
//! together, `resume` goes on with an earlier one, `step` is one step, `inspection` writes down what is seen
//! of it, `device` is what is different on a GPU, `divergence` ends a run whose numbers are no longer finite,
//! `parallel` is a run's part in a training by several processes.

mod device;
mod divergence;
mod inspection;
mod parallel;
mod prepare;
mod resume;
mod step;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use candle_core::Device;
use tallow_builder::Network;
use tallow_cuda::Uploader;
use tallow_tensorflow::event::hparams::Status;

use crate::checkpoint::{Best, Checkpoint, Position};
use crate::compute::{Compute, Inputs, OnDevice};
use crate::config::Config;
use crate::data::{Loader, Skipped};
use crate::distributed::DataParallel;
use crate::error::{Error, Result};
use crate::evaluate::{Evaluation, evaluate_inputs};
use crate::fine_tune::Tuning;
use crate::metrics::csv::{Log, Row};
use crate::metrics::{ConfusionMatrix, Running};
use crate::optim::{Ema, Optimizer};
use crate::plot;
use crate::progress::{Pass, Progress};
use crate::run_dir::RunDir;
use crate::tensorboard::{CutShort, EpochRecord, Recorder};
use step::Group;

pub use prepare::NewRun;
pub use resume::Changes;

/// Time between two drawings of the pictures; drawing takes longer than a small epoch.
const REDRAW: Duration = Duration::from_secs(30);
/// First part of the key of a step's random numbers, which dropout and stochastic depth draw from.
const STEP_STREAM: u64 = u64::from_be_bytes(*b"step    ");

/// A training run in its directory.
pub struct Trainer {
    run: RunDir,
    config: Config,
    network: Network,
    ema: Option<Ema>,
    tuning: Tuning,
    optimizer: Optimizer,
    compute: Compute,
    /// What a GPU counts; nothing on a CPU, where everything is known at once.
    on_device: Option<OnDevice>,
    /// The other processes, where there are any.
    parallel: Option<DataParallel>,
    train: Loader,
    validation: Loader,
    position: Position,
    log: Log,
    pub(crate) recorder: Recorder,
    diagnosed: bool,
    undrawn: Option<ConfusionMatrix>,
    drawn: Instant,
    saved: Instant,
    went_back: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether it was asked to stop; a checkpoint is written then, from which it can go on.
    pub interrupted: bool,
    /// Finished epochs.
    pub epochs: u64,
    /// The best validation.
    pub best: Option<Best>,
    /// Images that could not be used, each once.
    pub skipped: Vec<Skipped>,
}

impl Trainer {
    /// The run's directory.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// The network in its present state.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Which parameters are trained, and from when on.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The settings in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the newest checkpoint was missing, so that a resumed run goes on from its best.
    pub fn went_back(&self) -> bool {
        self.went_back
    }

    /// The event files that an accident had cut short before this run was resumed.
    pub fn cut_event_files(&self) -> &[CutShort] {
        self.recorder.cut_short()
    }

    /// Whether all epochs are done, so that [`Self::train`] has nothing to do.
    pub fn is_done(&self) -> bool {
        self.position.epoch >= self.config.epochs
    }

    /// Images in the training and the validation set.
    pub fn images(&self) -> [usize; 2] {
        [self.train.dataset().len(), self.validation.dataset().len()]
    }

    /// Batches in an epoch where every image can be used.
    pub fn batches(&self) -> usize {
        self.train.batches()
    }

    /// Trains to the last epoch, or until `stop` is set; then a checkpoint is written and the run can be resumed.
    ///
    /// # Errors
    /// Where the loss stops being a number, no image can be used, or a file cannot be written.
    pub fn train(&mut self, progress: &mut Progress, stop: &AtomicBool) -> Result<Outcome> {
        if let Some(parallel) = &mut self.parallel {
            parallel.start();
        }
        let error = match self.train_epochs(progress, stop) {
            Ok(outcome) => return Ok(outcome),
            Err(error) => self.explained(error),
        };
        let error = match error {
            // Before the others hear of it, and leave sums that this process's GPU still needs.
            Error::Events { .. } => self.write_checkpoint(&self.run.last()).err().unwrap_or(error),
            error => {
                // The error that ends the run is the one to report, whether or not TensorBoard hears of it.
                drop(self.recorder.finish(self.position.steps, Status::Failure));
                error
            }
        };
        if let Some(parallel) = &self.parallel {
            parallel.abort(&error);
        }
        Err(error)
    }

    fn train_epochs(&mut self, progress: &mut Progress, stop: &AtomicBool) -> Result<Outcome> {
        // Beside the trainer and not in it, so that an epoch's inputs hold it while steps change the trainer.
        let mut uploader = Uploader::new(self.compute.device())?;
        while !self.is_done() {
            let start = Instant::now();
            let Some(found) = self.run_epoch(&mut uploader, progress, stop, start)? else {
                self.save(&self.run.last())?;
                self.draw(true)?;
                return Ok(self.outcome(true));
            };
            self.end_epoch(found, start, progress)?;
            if self.stops(stop) {
                break;
            }
        }
        self.recorder.finish(self.position.steps, Status::Success)?;
        self.draw(true)?;
        Ok(self.outcome(!self.is_done()))
    }

    /// The rest of an epoch: training, then the validation. `None` if it was interrupted; where it was in the
    /// validation, the position is the end of the epoch's training, from which the validation is done anew.
    fn run_epoch(
        &mut self,
        uploader: &mut Uploader,
        progress: &mut Progress,
        stop: &AtomicBool,
        start: Instant,
    ) -> Result<Option<Evaluation>> {
        let interrupted = self.train_epoch(uploader, progress, stop, start)?;
        self.share_averages()?;
        if interrupted {
            return Ok(None);
        }
        self.share_skipped()?;
        self.train.refuse_unusable_class()?;
        self.validate(uploader, progress, stop)
    }

    /// The rest of an epoch's training. True if it was interrupted: between two steps, however many batches they have.
    fn train_epoch(
        &mut self,
        uploader: &mut Uploader,
        progress: &mut Progress,
        stop: &AtomicBool,
        start: Instant,
    ) -> Result<bool> {
        let Position { epoch, batch, seconds, .. } = self.position;
        progress.start(self.pass("train", self.train.batches(), batch));
        self.recorder.begin_epoch();
        let mut first = batch == 0;
        let mut group: Option<Group> = None;
        for input in self.inputs(uploader, epoch, batch)? {
            let input = input?;
            let counts = self.count(&input.batch, stop)?;
            if let Some(whole) = group.take_if(|group| self.begins_another(group, &input.batch)) {
                self.update(whole, std::mem::take(&mut first), progress)?;
            }
            let index = input.batch.index;
            // Nobody has a usable image where nothing is counted: the step is what came before.
            let learned = match counts.total {
                0 => group.take(),
                _ => Some(self.learn(input, counts, group.take())?),
            };
            self.position.batch = index + 1;
            self.position.seconds = seconds + start.elapsed().as_secs_f64();
            progress.step(counts.total, self.position.running.loss(), self.position.running.top1());
            if !self.is_last(index) {
                group = learned;
                continue;
            }
            if let Some(whole) = learned {
                self.update(whole, std::mem::take(&mut first), progress)?;
            }
            if self.stops(stop) {
                self.read_counts()?;
                return Ok(true);
            }
            if self.on_device.as_ref().is_none_or(OnDevice::is_read)
                && self.saved.elapsed().as_secs_f64() > 60.0 * self.config.checkpoint_minutes
            {
                self.save(&self.run.last())?;
            }
        }
        if let Some(rest) = group {
            self.update(rest, first, progress)?;
        }
        self.read_counts()?;
        Ok(false)
    }

    fn validate(
        &mut self,
        uploader: &mut Uploader,
        progress: &mut Progress,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let pass = self.pass("validate", self.validation.batches(), 0);
        let average = |ema: &Ema| Network::new(self.network.graph().clone(), ema.weights().clone());
        let average = self.ema.as_ref().map(average);
        let (network, compute) = (average.as_ref().unwrap_or(&self.network), &self.compute);
        let found = self.validation.epoch(0, 0).and_then(|epoch| {
            let inputs = Inputs::new(compute, uploader, epoch);
            evaluate_inputs(network, compute, inputs, progress, pass, stop)
        });
        let found = found.map_err(|error| self.in_validation(error));
        self.summed(found, stop)
    }

    /// Writes down what an epoch gave and moves on to the next.
    fn end_epoch(&mut self, found: Evaluation, start: Instant, progress: &mut Progress) -> Result<()> {
        let running = &self.position.running;
        let epoch = self.position.epoch;
        let best = match self.position.best {
            Some(best) if !better(&found, &best) => best,
            _ => Best { epoch: epoch + 1, validation: found.validation },
        };
        let record = EpochRecord { training: running, validation: &found, best, epoch };
        // First, because a failure here leaves the epoch's end to be done again.
        self.recorder.epoch(self.position.steps, &record)?;
        let row = Row {
            epoch: epoch + 1,
            step: self.position.steps,
            learning_rate: self.rate(self.steps_per_epoch().saturating_sub(1))?,
            train_loss: running.loss(),
            train_top1: running.top1(),
            validation: Some(found.validation),
            images_per_second: running.samples() as f64 / self.position.seconds.max(1e-9),
            seconds: start.elapsed().as_secs_f64(),
        };
        self.log.append(row)?;
        progress.message(&format!("{row}{}", self.peak_memory()));
        self.position.best = Some(best);
        let best = best.epoch == row.epoch;
        if best {
            self.undrawn = Some(found.confusion);
        }
        self.position.epoch += 1;
        self.position.batch = 0;
        self.position.seconds = 0.0;
        self.position.running = Running::new(self.network.graph().output_shape().elements());
        if best {
            self.save(&self.run.file("checkpoints/best"))?;
        }
        self.save(&self.run.last())?;
        self.draw(false)
    }

    /// Writes a checkpoint, and before it the events of the steps it stands for.
    fn save(&mut self, path: &Path) -> Result<()> {
        self.recorder.flush()?;
        self.write_checkpoint(path)
    }

    fn write_checkpoint(&mut self, path: &Path) -> Result<()> {
        if !self.leads() {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            weights: self.network.weights().to_device(&Device::Cpu)?,
            ema: self.ema.as_ref().map(|ema| ema.weights().to_device(&Device::Cpu)).transpose()?,
            optimizer: self.state_on_host()?,
            position: self.position.clone(),
        };
        self.check_finite(&checkpoint)?;
        self.saved = Instant::now();
        checkpoint.write(path)
    }

    /// Draws the curves and the best epoch's confusion matrix, if it is time or `now`.
    fn draw(&mut self, now: bool) -> Result<()> {
        if !self.leads() || self.log.rows().is_empty() || !(now || self.drawn.elapsed() > REDRAW) {
            return Ok(());
        }
        self.drawn = Instant::now();
        let title = format!("{} on {}", self.config.model, self.config.data_name());
        plot::save(&plot::curves(&title, self.log.rows())?, &self.run.file("curves.png"))?;
        if let Some(matrix) = self.undrawn.take() {
            let picture = plot::confusion(&title, &matrix, self.train.dataset().classes())?;
            plot::save(&picture, &self.run.file("confusion.png"))?;
        }
        Ok(())
    }

    fn outcome(&self, interrupted: bool) -> Outcome {
        let mut skipped = self.train.skipped();
        skipped.extend(self.validation.skipped());
        Outcome { interrupted, epochs: self.position.epoch, best: self.position.best, skipped }
    }

    fn pass(&self, what: &'static str, batches: usize, first_batch: usize) -> Pass {
        Pass { what, epoch: self.position.epoch + 1, epochs: self.config.epochs, batches, first_batch }
    }
}

/// Whether a validation beats the best so far: more right, or as many with a smaller loss.
fn better(found: &Evaluation, best: &Best) -> bool {
    let (new, old) = (found.validation, best.validation);
    new.top1 > old.top1 || (new.top1 == old.top1 && new.loss < old.loss)
}
