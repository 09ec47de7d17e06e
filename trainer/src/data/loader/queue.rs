//! The hand-over between workers and the training thread: workers claim one sample at a time, in order, within a
//! bounded window of batches; whoever finishes a batch's last sample closes it; batches leave in order.
//! Samples rather than batches are the unit of work so that the first batch of an epoch comes soon.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tallow_builder::Rng;

use super::{Batch, Images, LoaderOptions, Scale, Share, Skipped, SkippedList, Transform, lock};
use crate::augment::Mix;
use crate::data::{Dataset, Sample, stream};
use crate::error::{Error, Result};

/// What an epoch consists of.
pub(super) struct Plan {
    pub order: Vec<usize>,
    pub epoch: u64,
    pub batches: usize,
    pub dataset: Arc<dyn Dataset>,
    pub transform: Arc<dyn Transform>,
    pub options: LoaderOptions,
    pub mix: Option<Mix>,
    pub share: Share,
    /// How bytes are to be normalised, where images are to be bytes.
    pub bytes: Option<Scale>,
    pub skipped: SkippedList,
}

impl Plan {
    /// The places in the epoch of the samples that this process has in a batch.
    fn places(&self, batch: usize) -> Range<usize> {
        let start = batch * self.options.batch_size;
        self.share.of(start..(start + self.options.batch_size).min(self.order.len() * self.options.repeats))
    }

    /// The sample at a place in the epoch.
    fn sample(&self, place: usize) -> usize {
        self.order[place / self.options.repeats]
    }

    /// Numbers in one sample.
    fn sample_len(&self) -> usize {
        let (height, width) = self.transform.output_size();
        self.transform.views().count() * 3 * height * width
    }

    /// Room for so many samples.
    fn room(&self, samples: usize) -> Images {
        Images::room(samples, self.sample_len(), self.bytes)
    }

    /// Loads and transforms the sample at `place` into `out`, room for one; gives its label.
    fn prepare(&self, place: usize, out: &mut Images) -> Result<u32> {
        let sample = self.sample(place);
        let mut key = vec![stream::AUGMENT, self.epoch, sample as u64];
        // The first time is as where nothing is repeated.
        let repeat = place % self.options.repeats;
        key.extend((repeat > 0).then_some(repeat as u64));
        let mut rng = Rng::stream(self.options.seed, &key);
        let Sample { image, label } = self.dataset.load(sample)?;
        let transformed = match out {
            Images::Floats(out) => self.transform.apply(image, &mut rng, out),
            Images::Bytes(out) => {
                let mirrored = self.transform.apply_bytes(image, &mut rng, &mut out.pixels);
                mirrored.map(|mirrored| out.mirrored.fill(mirrored.into()))
            }
        };
        transformed.map_err(|error| match error {
            Error::Unusable { reason } => Error::Image { origin: self.dataset.origin(sample), reason },
            other => other,
        })?;
        Ok(label)
    }
}

/// A batch while its samples come in, in any order.
struct Filling {
    images: Images,
    /// The labels of the samples that are usable.
    labels: Vec<Option<u32>>,
    missing: usize,
    /// The failure of the earliest sample, so that the error does not depend on timing.
    failure: Option<(usize, Error)>,
}

impl Filling {
    /// Nothing yet of so many samples.
    fn of(samples: usize, images: Images) -> Self {
        Self { images, labels: vec![None; samples], missing: samples, failure: None }
    }
}

enum Slot {
    Filling(Arc<Mutex<Filling>>),
    Done(Result<Batch>),
}

/// A sample that a worker has claimed.
struct Claim {
    batch: usize,
    /// Position within the batch.
    position: usize,
    filling: Arc<Mutex<Filling>>,
}

struct State {
    /// The next sample to claim: batch and position within it.
    next: (usize, usize),
    /// Batches handed out, counted from the epoch's start; `window[0]` is this batch.
    taken: usize,
    window: VecDeque<Slot>,
    stopped: bool,
    /// Why a worker ended early.
    broken: Option<Error>,
}

pub(super) struct Queue {
    plan: Plan,
    state: Mutex<State>,
    /// Signalled when the window moves or the epoch stops.
    room: Condvar,
    /// Signalled when a batch is done.
    ready: Condvar,
}

impl Queue {
    pub fn new(plan: Plan, first_batch: usize) -> Self {
        let state = State {
            next: (first_batch, 0),
            taken: first_batch,
            window: VecDeque::new(),
            stopped: false,
            broken: None,
        };
        Self { plan, state: Mutex::new(state), room: Condvar::new(), ready: Condvar::new() }
    }

    /// A worker's life. Whatever panics in it reaches the training thread as an error, so that it never waits
    /// for a batch that will not come.
    pub fn work(&self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.prepare_samples())) {
            let error = Error::WorkerPanicked { origin: "a sample".into(), message: panic_message(&*panic) };
            lock(&self.state).broken = Some(error);
            self.ready.notify_one();
        }
    }

    /// Prepares samples until there are none left or the epoch is stopped.
    fn prepare_samples(&self) {
        let mut scratch = self.plan.room(1);
        while let Some(claim) = self.claim() {
            let place = self.plan.places(claim.batch).start + claim.position;
            let sample = self.plan.sample(place);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.plan.prepare(place, &mut scratch)))
                .unwrap_or_else(|panic| {
                    let origin = self.plan.dataset.origin(sample);
                    Err(Error::WorkerPanicked { origin, message: panic_message(&*panic) })
                });
            self.hand_in(&claim, sample, outcome, &scratch);
        }
    }

    /// The next sample to prepare, once the window has room; `None` when there is no more to do.
    fn claim(&self) -> Option<Claim> {
        let mut state = lock(&self.state);
        loop {
            let (batch, position) = state.next;
            if state.stopped || batch >= self.plan.batches {
                return None;
            }
            if batch < state.taken + self.plan.options.prefetch.max(1) {
                let samples = self.plan.places(batch).len();
                if samples == 0 {
                    // All of this batch is for other processes.
                    let mut nothing = Filling::of(0, self.plan.room(0));
                    state.window.push_back(Slot::Done(self.close(batch, &mut nothing)));
                    state.next = (batch + 1, 0);
                    self.ready.notify_one();
                    continue;
                }
                if position == 0 {
                    let filling = Filling::of(samples, self.plan.room(samples));
                    state.window.push_back(Slot::Filling(Arc::new(Mutex::new(filling))));
                }
                state.next = if position + 1 < samples { (batch, position + 1) } else { (batch + 1, 0) };
                let Slot::Filling(filling) = &state.window[batch - state.taken] else {
                    unreachable!("a batch with unclaimed samples is not done");
                };
                return Some(Claim { batch, position, filling: filling.clone() });
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts a prepared sample into its batch, and closes the batch if it was the last.
    fn hand_in(&self, claim: &Claim, sample: usize, outcome: Result<u32>, image: &Images) {
        let mut filling = lock(&claim.filling);
        match outcome {
            Ok(label) => {
                filling.images.put(claim.position, image);
                filling.labels[claim.position] = Some(label);
            }
            Err(error) => self.note_failure(&mut filling, claim.position, sample, error),
        }
        filling.missing -= 1;
        if filling.missing == 0 {
            let done = self.close(claim.batch, &mut filling);
            drop(filling);
            let mut state = lock(&self.state);
            let place = claim.batch - state.taken;
            state.window[place] = Slot::Done(done);
            self.ready.notify_one();
        }
    }

    fn note_failure(&self, filling: &mut Filling, position: usize, sample: usize, error: Error) {
        // A file whose framing is broken is not one image less: what follows in it cannot be trusted either.
        let broken = matches!(error, Error::WorkerPanicked { .. } | Error::Records(_));
        let fatal = self.plan.options.strict || broken;
        if !fatal {
            let skipped = match error {
                Error::Image { origin, reason } => Skipped { origin, reason },
                other => Skipped { origin: self.plan.dataset.origin(sample), reason: other.to_string() },
            };
            lock(&self.plan.skipped).insert(sample, skipped);
        } else if filling.failure.as_ref().is_none_or(|&(earlier, _)| position < earlier) {
            filling.failure = Some((position, error));
        }
    }

    /// The finished batch, without the samples that failed.
    fn close(&self, batch: usize, filling: &mut Filling) -> Result<Batch> {
        if let Some((_, error)) = filling.failure.take() {
            return Err(error);
        }
        let mut images = std::mem::replace(&mut filling.images, self.plan.room(0));
        let (mut kept, mut labels, mut indices) = (Vec::new(), Vec::new(), Vec::new());
        for (position, place) in self.plan.places(batch).enumerate() {
            if let Some(label) = filling.labels[position] {
                kept.push(position);
                labels.push(label);
                indices.push(self.plan.sample(place));
            }
        }
        images.keep(&kept, self.plan.sample_len());
        let (height, width) = self.plan.transform.output_size();
        let views = self.plan.transform.views();
        let mut done = Batch { index: batch, images, views, labels, mixed: None, indices, height, width };
        if let Some(mix) = &self.plan.mix {
            let mut key = vec![stream::MIX, self.plan.epoch, batch as u64];
            // Rank 0 draws as a process does that trains alone.
            key.extend((self.plan.share.rank > 0).then_some(self.plan.share.rank as u64));
            mix.apply(&mut done, &mut Rng::stream(self.plan.options.seed, &key));
        }
        Ok(done)
    }

    /// Waits for the next batch in order; `None` after the last. An error stops the workers.
    pub fn take(&self) -> Option<Result<Batch>> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped || state.taken >= self.plan.batches {
                return None;
            }
            if let Some(error) = state.broken.take() {
                state.stopped = true;
                self.room.notify_all();
                return Some(Err(error));
            }
            match state.window.pop_front() {
                Some(Slot::Done(batch)) => {
                    state.taken += 1;
                    state.stopped = batch.is_err();
                    self.room.notify_all();
                    return Some(batch);
                }
                Some(unfinished) => state.window.push_front(unfinished),
                None => {}
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells the workers to end after the sample they are at.
    pub fn stop(&self) {
        lock(&self.state).stopped = true;
        self.room.notify_all();
    }

    /// The error for an epoch without a single usable image; `None` if there was nothing to try either.
    pub fn nothing_usable(&self) -> Option<Error> {
        let skipped = lock(&self.plan.skipped);
        let first = skipped.values().next()?;
        let first = format!("{}: {}", first.origin, first.reason);
        Some(Error::NoUsableImages { tried: skipped.len(), first })
    }
}

/// The text of a panic, which is a `&str` or a `String` unless someone panicked with a value of their own.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
