//! What can go wrong in this crate: one enum, each message one line that says what is wrong, where, and what to do.

use std::path::PathBuf;

use crate::checkpoint::Checkpoint;
use crate::data::{folder, tfrecord};

/// An error of the trainer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data folder does not exist or is no folder.
    #[error("no such folder: {}: name a folder laid out as train/<class>/<image>, or the data set `digits`", .path.display())]
    NoSuchFolder {
        /// The folder asked for.
        path: PathBuf,
    },
    /// A folder has no class folders in it.
    #[error("no class folders in {}: put the images of each class into a folder of its own there, <class>/<image>", .path.display())]
    NoClasses {
        /// The folder that should hold the classes.
        path: PathBuf,
    },
    /// There is a validation folder but nothing to train on.
    #[error("{} has {found}/ but no train/: put the training images there, into train/<class>/<image>", .path.display())]
    NoTrainFolder {
        /// The data folder.
        path: PathBuf,
        /// The validation folder's name.
        found: String,
    },
    /// A class folder without images.
    #[error("no images in the class folder {}{others}: add {}, or remove the folder", .path.display(), folder::EXTENSIONS.join(", "))]
    EmptyClass {
        /// The class folder.
        path: PathBuf,
        /// What else is in it, such as ` (12 files of other types: .gif)`, or empty.
        others: String,
    },
    /// A classifier needs two classes.
    #[error("only one class ({class}) in {}: a classifier needs at least two", .path.display())]
    OneClass {
        /// The folder that holds the classes.
        path: PathBuf,
        /// The only class.
        class: String,
    },
    /// Training and validation do not have the same classes.
    #[error(
        "the classes of {} and {} differ:{differences}: each needs the same class folders",
        .train.display(), .validation.display()
    )]
    ClassesDiffer {
        /// Training folder.
        train: PathBuf,
        /// Validation folder.
        validation: PathBuf,
        /// Which classes are missing where.
        differences: String,
    },
    /// A class folder's name cannot be a line of labels.txt.
    #[error("the name of the folder {} {problem}: rename it, because class names become labels", folder::shown(.path))]
    ClassName {
        /// The folder.
        path: PathBuf,
        /// Why not.
        problem: &'static str,
    },
    /// Images that are laid out in no known way.
    #[error("{}: {problem}", .path.display())]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// The share of validation samples is not between 0 and 1.
    #[error(
        "a validation fraction of {fraction} leaves no sensible split: choose a number between 0 and 1, such as 0.1"
    )]
    Fraction {
        /// What was asked for.
        fraction: f64,
    },
    /// Every class has a single sample, so nothing can be held out.
    #[error(
        "too few images to hold out a validation set: no class has two; add images or a validation/ folder"
    )]
    TooFewToSplit,
    /// A data set without samples where some are needed.
    #[error("the data set has no samples: there is nothing to iterate over")]
    NoSamples,
    /// A damaged or unreadable TFRecord file.
    #[error("{}", tfrecord::explained(.0))]
    Records(tallow_tensorflow::Error),
    /// TFRecord shards that cannot be used.
    #[error("{}: {problem}", .path.display())]
    Shards {
        /// The file, folder or pattern.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// One image could not be read or decoded.
    #[error("{origin}: {reason}")]
    Image {
        /// Path or other origin of the image.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image was decoded but cannot be brought to the network's input; the loader adds which image.
    #[error("{reason}")]
    Unusable {
        /// Why not.
        reason: String,
    },
    /// A preprocessing that makes no sense.
    #[error(transparent)]
    Input(#[from] tallow_input::InputError),
    /// An epoch in which not one image could be used.
    #[error("none of the {tried} images could be used; the first: {first}")]
    NoUsableImages {
        /// How many were tried.
        tried: usize,
        /// The first failure.
        first: String,
    },
    /// A class of which no image could be used.
    #[error(
        "none of the {tried} images of class {class} could be used; the first: {first}: repair them, or remove the class"
    )]
    UnusableClass {
        /// The class.
        class: String,
        /// Images it has.
        tried: usize,
        /// The first failure.
        first: String,
    },
    /// A worker thread panicked on a sample.
    #[error("preparing {origin} panicked ({message}): remove the image and report it, this is a bug")]
    WorkerPanicked {
        /// Path or other origin of the sample.
        origin: String,
        /// The panic's message.
        message: String,
    },
    /// The system gave no thread.
    #[error("cannot start a data loading thread: {source}: lower the number of workers")]
    Threads {
        /// The system's reason.
        source: std::io::Error,
    },
    /// Images that are smaller than the first layer's window.
    #[error(
        "images of {size} are smaller than the {kernel} window of {network}'s first layer `{layer}` (width×height): \
         choose a larger --size, or a network for small images, such as resnet20"
    )]
    SmallImages {
        /// Columns and rows of the images.
        size: String,
        /// The network.
        network: String,
        /// Its first layer with a window.
        layer: String,
        /// Columns and rows of that window.
        kernel: String,
    },
    /// A device cannot be used.
    #[error(transparent)]
    Cuda(#[from] tallow_cuda::Error),
    /// A batch does not fit into a GPU's memory.
    #[error("{0}")]
    OutOfMemory(crate::compute::NoRoom),
    /// A setting that makes no sense.
    #[error("{name} = {value}: {remedy}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        remedy: &'static str,
    },
    /// A pattern that names no layer or parameter.
    #[error("{setting} `{pattern}` fits no layer or parameter of the network; near are {near}")]
    NoSuchLayers {
        /// The setting that has the pattern.
        setting: &'static str,
        /// The pattern.
        pattern: String,
        /// Names that begin like it.
        near: String,
    },
    /// The loss or a gradient stopped being a number.
    #[error(
        "the {what} is no longer a finite number in epoch {epoch}, batch {batch}, {place}: lower the learning rate, \
         warm up longer or clip gradients (--clip-norm 1); {kept}"
    )]
    NotFinite {
        /// Loss, gradient or state.
        what: &'static str,
        /// The epoch, from 1.
        epoch: u64,
        /// The batch, from 1.
        batch: usize,
        /// The layer or tensor where it first shows.
        place: String,
        /// Whether a checkpoint from before it is kept.
        kept: &'static str,
    },
    /// A network whose output is NaN or infinite where it is measured.
    #[error(
        "the network's output is no finite number in batch {batch}, {place}: its training diverged or its weights are \
         damaged; export an earlier checkpoint, or train again with a lower learning rate"
    )]
    NotFiniteOutput {
        /// The batch, from 1.
        batch: usize,
        /// The layer where it first shows.
        place: String,
    },
    /// A settings file, or a file derived from it, that cannot be understood.
    #[error("{}: {problem}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        problem: String,
    },
    /// The folder for a new run holds something.
    #[error("{} {remedy}", .path.display())]
    RunExists {
        /// The folder.
        path: PathBuf,
        /// What it holds, and what to do.
        remedy: &'static str,
    },
    /// Two processes would train in one folder.
    #[error("{}: another process trains in it: wait for its end or stop it, or choose another folder with --run", .path.display())]
    RunBusy {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that should hold a run does not.
    #[error("{} holds no training run: it has no config.toml and network.json; name the folder of one, such as runs/quickstart", .path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A run without a checkpoint.
    #[error("{} has no checkpoint: it stopped before its first; start it anew with `tallow train --config {} --run {}`", .path.display(), .path.join("config.toml").display(), .path.display())]
    NoCheckpoint {
        /// The run.
        path: PathBuf,
    },
    /// A checkpoint that cannot be used.
    #[error(
        "damaged checkpoint: {problem}; put {} in its place, or start a new run with --weights", Checkpoint::other(.path).display()
    )]
    Checkpoint {
        /// The checkpoint's folder.
        path: PathBuf,
        /// The file and what is wrong with it.
        problem: String,
    },
    /// A checkpoint that could not be written.
    #[error(
        "cannot write the checkpoint {}: {reason}; see to it that there is room and that the folder is writable; \
         {}", .path.display(), if *.kept { "an earlier checkpoint is kept, and --resume goes on from it" } else { "there is no earlier one" }
    )]
    CheckpointNotWritten {
        /// The checkpoint's folder.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// Whether the run has an earlier one.
        kept: bool,
    },
    /// Optimiser state that does not fit.
    #[error(
        "the checkpoint's optimiser state belongs to another network or optimiser: undo the change to config.toml"
    )]
    OptimizerState,
    /// A resumed run's settings and its checkpoint disagree on whether there is an average of the weights.
    #[error(
        "{}: config.toml and the checkpoint disagree on whether an average of the weights is kept ([ema]): undo the \
         change to config.toml", .run.display()
    )]
    AverageChanged {
        /// The run.
        run: PathBuf,
    },
    /// A resumed run would take other steps.
    #[error(
        "batches of {batch_size} images, {accumulate} in a step: the run's steps have {step} images in each of the \
         processes that it began with, and --resume keeps that: choose --batch-size and --grad-accum whose product it is"
    )]
    StepChanged {
        /// Images in a batch.
        batch_size: usize,
        /// Batches in a step.
        accumulate: usize,
        /// Images in a step of the run so far.
        step: usize,
    },
    /// A resumed run's data is not where it was.
    #[error("no such folder: {}, which {} was trained on: say where it is now with --data", .data.display(), .run.display())]
    DataGone {
        /// The data set.
        data: PathBuf,
        /// The run.
        run: PathBuf,
    },
    /// A resumed run's data is no longer what it started with.
    #[error(
        "{data} has changed since {} began: {differences}: restore the images, name a whole copy with --data, or start \
         a new run with --weights", .run.display()
    )]
    DataChanged {
        /// The data set.
        data: String,
        /// The run.
        run: PathBuf,
        /// What is different.
        differences: String,
    },
    /// A resumed run's data has other classes than it started with.
    #[error("the classes of {data} are no longer those of {}: restore the class folders", .run.display())]
    LabelsChanged {
        /// The data set.
        data: String,
        /// The run.
        run: PathBuf,
    },
    /// An error of the network's description, weights or execution.
    #[error(transparent)]
    Builder(#[from] tallow_builder::Error),
    /// A network that the zoo cannot build.
    #[error(transparent)]
    Models(#[from] tallow_models::Error),
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// Processes that train together and lost each other, or never met.
    #[error(transparent)]
    Distributed(#[from] tallow_distributed::Error),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {}", .path.display(), tallow_builder::files::explained(.source))]
    Io {
        /// What was tried, such as `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A metrics.csv that is not ours or is damaged.
    #[error("{}, line {line}: {reason}: repair the line or start a new run", .path.display())]
    Metrics {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// An event file that cannot be read or written.
    #[error(
        "cannot keep the event file {reason}; see to it that there is room and that the folder is writable; what was \
         learned is kept, and --resume goes on from it (without event files if the run's config.toml says so: \
         [tensorboard] enabled = false)"
    )]
    Events {
        /// The file and what is wrong with it.
        reason: tallow_tensorflow::Error,
    },
    /// A picture could not be drawn.
    #[error("cannot draw the picture: {reason}")]
    Plot {
        /// What went wrong.
        reason: String,
    },
}

impl Error {
    /// An I/O error with what was tried on which file, for `map_err`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// A result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
