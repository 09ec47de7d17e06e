//! Batches from a data set, prepared ahead on operating system threads of the loader's own (rayon's pool belongs to
//! the kernels). Stateless: batch b of epoch e depends on the seed, e and b alone, not on workers or timing, so a
//! resumed run sees what an uninterrupted one would have. `queue` holds the hand-over between threads, `images` what is
//! done to images now and what is left to a GPU.

mod batch;
mod images;
mod queue;
mod share;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use image::RgbImage;
use serde::{Deserialize, Serialize};
use tallow_builder::Rng;
use tallow_input::Views;

use super::{Dataset, stream};
use crate::augment::Mix;
use crate::error::{Error, Result};
pub use batch::Batch;
pub use images::{Bytes, Images, Scale};
use queue::{Plan, Queue};
pub use share::Share;

/// From a decoded image to the network's input.
pub trait Transform: Send + Sync {
    /// (height, width) of the output in pixels.
    fn output_size(&self) -> (usize, usize);

    /// How many views of an image it gives.
    fn views(&self) -> Views {
        Views::One
    }

    /// Writes the views of the image as (views, 3, height, width), normalised, into `out`; `rng` is the sample's own generator.
    ///
    /// # Errors
    /// If the image cannot be used; the loader then treats it like one that cannot be decoded.
    fn apply(&self, image: RgbImage, rng: &mut Rng, out: &mut [f32]) -> Result<()>;

    /// How 8-bit pixels are to be normalised, if the transform can leave that to others.
    fn scale(&self) -> Option<Scale> {
        None
    }

    /// As [`Self::apply`], but the views as (views, height, width, 3), 8-bit RGB; true if they are still to be mirrored.
    /// Called only where there is a [`Self::scale`], with which the same numbers come out in the end.
    ///
    /// # Errors
    /// As [`Self::apply`].
    fn apply_bytes(&self, _: RgbImage, _: &mut Rng, _: &mut [u8]) -> Result<bool> {
        Err(Error::Unusable { reason: "only its normalised form can be had".into() })
    }
}

/// How the loader works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoaderOptions {
    /// Samples in a batch.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own ([`Dataset::shuffled`]); otherwise the data set's order.
    pub shuffle: bool,
    /// Whether to leave out a last batch that is not full.
    pub drop_last: bool,
    /// Threads that decode and transform; 0 means one for each core.
    pub workers: usize,
    /// How many batches may be in preparation or waiting: bounds the memory.
    pub prefetch: usize,
    /// Whether a broken image is an error instead of being left out.
    pub strict: bool,
    /// Decides order and augmentation.
    pub seed: u64,
    /// How often an epoch has each sample, one after the other and each time augmented differently (Hoffer et al. 2020,
    /// "Augment your batch", section 2): an epoch is as many times longer.
    pub repeats: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 64,
            shuffle: false,
            drop_last: false,
            workers: 0,
            prefetch: 3,
            strict: false,
            seed: 0,
            repeats: 1,
        }
    }
}

/// An image that was left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    /// Where it comes from.
    pub origin: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What was left out so far, by sample index.
type SkippedList = Arc<Mutex<BTreeMap<usize, Skipped>>>;

/// Makes batches of a data set; see the module's description.
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    transform: Arc<dyn Transform>,
    options: LoaderOptions,
    mix: Option<Mix>,
    share: Share,
    bytes: bool,
    skipped: SkippedList,
}

impl Loader {
    /// A loader of `dataset` through `transform`.
    ///
    /// # Errors
    /// [`Error::NoSamples`] for an empty data set, [`Error::Setting`] for a batch size of 0 or for one larger than
    /// the data set together with `drop_last`.
    pub fn new(
        dataset: Arc<dyn Dataset>,
        transform: Arc<dyn Transform>,
        options: LoaderOptions,
    ) -> Result<Self> {
        if dataset.is_empty() {
            return Err(Error::NoSamples);
        }
        if options.repeats == 0 {
            let remedy = "an epoch has each image at least once";
            return Err(Error::Setting { name: "repeats", value: "0".into(), remedy });
        }
        let batch_size = options.batch_size;
        let setting = |remedy| Error::Setting { name: "batch_size", value: batch_size.to_string(), remedy };
        if batch_size == 0 {
            return Err(setting("a batch needs at least one sample"));
        }
        if options.drop_last && batch_size > dataset.len().saturating_mul(options.repeats) {
            return Err(setting(
                "larger than the data set: lower it, or keep the last batch (drop_last = false)",
            ));
        }
        Ok(Self {
            dataset,
            transform,
            options,
            mix: None,
            share: Share::default(),
            bytes: false,
            skipped: SkippedList::default(),
        })
    }

    /// Mixes the images of each batch.
    pub fn mixing(self, mix: Option<Mix>) -> Self {
        Self { mix, ..self }
    }

    /// Prepares this process's share of each batch alone.
    pub fn sharing(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Whether images come as [`Images::Bytes`] where the transform can give them so. What they are in the end is the
    /// same.
    pub fn as_bytes(self, bytes: bool) -> Self {
        Self { bytes, ..self }
    }

    /// The data set.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// (height, width) of the images.
    pub(crate) fn output_size(&self) -> (usize, usize) {
        self.transform.output_size()
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> usize {
        let (samples, size) = (self.dataset.len() * self.options.repeats, self.options.batch_size);
        if self.options.drop_last { samples / size } else { samples.div_ceil(size) }
    }

    /// The images left out so far, each once, by origin.
    pub fn skipped(&self) -> Vec<Skipped> {
        let mut list: Vec<_> = lock(&self.skipped).values().cloned().collect();
        list.sort();
        list
    }

    /// The images left out so far, by sample.
    pub(crate) fn skipped_samples(&self) -> BTreeMap<usize, Skipped> {
        lock(&self.skipped).clone()
    }

    /// Counts images as left out that other processes have met.
    pub(crate) fn note_skipped(&self, others: BTreeMap<usize, Skipped>) {
        lock(&self.skipped).extend(others);
    }

    /// Refuses a class of which every image was left out: a network would be trained for a class it never sees.
    ///
    /// # Errors
    /// [`Error::UnusableClass`].
    pub(crate) fn refuse_unusable_class(&self) -> Result<()> {
        let skipped = lock(&self.skipped);
        let known = |index: usize| self.dataset.known_label(index);
        let Some(label) = skipped.keys().filter_map(|&index| known(index)).find(|&label| {
            let mut members = (0..self.dataset.len()).filter(|&index| known(index) == Some(label));
            members.all(|index| skipped.contains_key(&index))
        }) else {
            return Ok(());
        };
        let mut found = skipped.iter().filter(|(index, _)| known(**index) == Some(label));
        let first = found.next().map(|(_, Skipped { origin, reason })| format!("{origin}: {reason}"));
        Err(Error::UnusableClass {
            class: self.dataset.classes()[label as usize].clone(),
            tried: 1 + found.count(),
            first: first.unwrap_or_default(),
        })
    }

    /// The order of the samples in `epoch`; each comes as often as the options say before the next one.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        if self.options.shuffle {
            self.dataset.shuffled(&mut Rng::stream(self.options.seed, &[stream::SHUFFLE, epoch]))
        } else {
            (0..self.dataset.len()).collect()
        }
    }

    /// Starts to prepare `epoch`, from batch `first_batch` on, and hands the batches out in order.
    ///
    /// # Errors
    /// [`Error::Threads`] if the system gives not even one thread.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Result<Epoch> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let workers = if self.options.workers == 0 { cores() } else { self.options.workers };
        let plan = Plan {
            order: self.order(epoch),
            epoch,
            batches: self.batches(),
            dataset: self.dataset.clone(),
            transform: self.transform.clone(),
            options: LoaderOptions { workers, ..self.options },
            mix: self.mix,
            share: self.share,
            bytes: self.transform.scale().filter(|_| self.bytes),
            skipped: self.skipped.clone(),
        };
        let queue = Arc::new(Queue::new(plan, first_batch));
        let mut threads = Vec::new();
        for number in 0..workers {
            let queue = queue.clone();
            let builder = std::thread::Builder::new().name(format!("data {number}"));
            match builder.spawn(move || queue.work()) {
                Ok(thread) => threads.push(thread),
                Err(source) if threads.is_empty() => return Err(Error::Threads { source }),
                Err(_) => break,
            }
        }
        Ok(Epoch { queue, threads, waited: Duration::ZERO, nothing_yet: first_batch == 0, finished: false })
    }
}

/// The batches of one epoch, in order. Dropping it stops its threads.
///
/// An item is an error if an image is broken and the loader strict ([`Error::Image`]), if a worker panicked
/// ([`Error::WorkerPanicked`]), or if at the end no image at all could be used ([`Error::NoUsableImages`]).
/// Nothing follows an error.
pub struct Epoch {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    waited: Duration,
    /// True until a batch has come, in an epoch begun at its start.
    nothing_yet: bool,
    finished: bool,
}

impl Epoch {
    /// How long the caller has waited for batches so far. Near zero if the loader keeps up.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.finished {
            return None;
        }
        let start = Instant::now();
        let item = loop {
            match self.queue.take() {
                Some(Ok(batch)) if batch.is_empty() => {}
                other => break other,
            }
        };
        self.waited += start.elapsed();
        match &item {
            Some(Ok(_)) => self.nothing_yet = false,
            Some(Err(_)) => self.finished = true,
            None => {
                self.finished = true;
                return if self.nothing_yet { self.queue.nothing_usable().map(Err) } else { None };
            }
        }
        item
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.queue.stop();
        for thread in self.threads.drain(..) {
            // A worker catches panics of its samples; there is nothing left to report here.
            drop(thread.join());
        }
    }
}

/// Locks, also after a panic elsewhere: every state behind these locks is valid between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
