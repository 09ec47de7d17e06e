//! Writes a run's events.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use image::RgbImage;
use tallow_builder::exec::Gradients;
use tallow_builder::{Graph, Weights};
use tallow_input::Preprocess;
use tallow_tensorflow::event::hparams::{SESSION_END, Status, session_end};
use tallow_tensorflow::event::{self, Event, EventWriter, Histogram, SummaryValue};

use super::purge::{CutShort, purge, remove};
use super::{graph_def, hparams};
use crate::checkpoint::{Best, Position};
use crate::config::Config;
use crate::data::Batch;
use crate::diagnose::{Activations, GradientFlow, with_values};
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::metrics::Running;
use crate::plot;
use crate::run_dir::RunDir;

/// Images on a sheet.
const SAMPLES: usize = 32;
/// How the tags of whole epochs begin. They are written at the step at which an epoch ends.
const EPOCH: &str = "epoch/";

/// What a run's events are about.
pub(crate) struct Setting<'a> {
    pub run: &'a RunDir,
    pub config: &'a Config,
    pub graph: &'a Graph,
    pub preprocess: Preprocess,
    pub labels: &'a [String],
}

/// One step, in numbers.
pub(crate) struct StepRecord {
    pub loss: f64,
    pub learning_rate: f64,
    pub gradient_norm: f64,
    pub images: usize,
}

/// One epoch, at its end.
pub(crate) struct EpochRecord<'a> {
    pub training: &'a Running,
    pub validation: &'a Evaluation,
    /// The best so far, this one included.
    pub best: Best,
    /// From 0.
    pub epoch: u64,
}

/// The event files of a run; without any, every method does nothing.
pub(crate) struct Recorder {
    files: Option<Files>,
    cut_short: Vec<CutShort>,
    config: Config,
    labels: Vec<String>,
    preprocess: Preprocess,
    /// When the last scalars of a step were written, or the epoch began.
    since: Instant,
    /// Images since then.
    images: usize,
}

/// One file for each of TensorBoard's "runs".
struct Files {
    run: EventWriter,
    train: EventWriter,
    validation: EventWriter,
}

impl Files {
    fn create(run: &RunDir) -> Result<Self> {
        Ok(Self {
            run: EventWriter::create(run.path()).map_err(events)?,
            train: EventWriter::create(&run.file("train")).map_err(events)?,
            validation: EventWriter::create(&run.file("validation")).map_err(events)?,
        })
    }

    fn all(&mut self) -> [&mut EventWriter; 3] {
        [&mut self.run, &mut self.train, &mut self.validation]
    }
}

impl Recorder {
    /// Begins the event files of a new run: graph, settings, hyperparameters.
    pub fn create(setting: &Setting<'_>) -> Result<Self> {
        for folder in [setting.run.path(), &setting.run.file("train"), &setting.run.file("validation")] {
            remove(folder).map_err(events)?;
        }
        let Some(mut files) =
            setting.config.tensorboard.enabled.then(|| Files::create(setting.run)).transpose()?
        else {
            return Ok(Self::assemble(setting, None));
        };
        files.run.summary(0, hparams::summary(setting.config, now())).map_err(events)?;
        files.train.graph(&graph_def(setting.graph)).map_err(events)?;
        files.train.summary(0, vec![settings(setting.config)]).map_err(events)?;
        let mut recorder = Self::assemble(setting, Some(files));
        recorder.flush()?;
        Ok(recorder)
    }

    /// Goes on from a checkpoint: what earlier event files say of later steps is cut off, and a new file says so to a
    /// TensorBoard that has read it already. `changed` says whether the settings are others than before; where they
    /// are not, a run that is done is left as it is.
    pub fn resume(setting: &Setting<'_>, position: &Position, changed: bool) -> Result<Self> {
        let Setting { run, config, .. } = setting;
        let done = position.epoch >= config.epochs;
        if !config.tensorboard.enabled || (done && !changed) {
            return Ok(Self::assemble(setting, None));
        }
        let (step, within) = (position.steps as i64, position.batch > 0);
        // The checkpoint of an epoch's last batch may be older than what was written at the epoch's end.
        let of_run = |event: &Event| event.step < step + i64::from(!within) && !ends_run(event);
        let of_training = |event: &Event| {
            event.step < step + i64::from(!within || !tags(event).any(|tag| tag.starts_with(EPOCH)))
        };
        let of_validation = |event: &Event| event.step < step + i64::from(!within);
        let cut_short = [
            purge(run.path(), position.steps, of_run).map_err(events)?,
            purge(&run.file("train"), position.steps, of_training).map_err(events)?,
            purge(&run.file("validation"), position.steps, of_validation).map_err(events)?,
        ];
        let mut files = Files::create(run)?;
        if !hparams::keep(run.path(), config, changed).map_err(events)? {
            // Lost with their file; without them TensorBoard's table does not have the run.
            files.run.summary(0, hparams::summary(config, now())).map_err(events)?;
        }
        if changed {
            files.train.summary(position.steps, vec![settings(config)]).map_err(events)?;
        }
        for file in files.all() {
            file.restart(position.steps + 1).map_err(events)?;
        }
        let mut recorder = Self { cut_short: cut_short.concat(), ..Self::assemble(setting, Some(files)) };
        recorder.flush()?;
        Ok(recorder)
    }

    /// Writes nothing: another process keeps the files.
    pub fn kept_elsewhere(setting: &Setting<'_>) -> Self {
        Self::assemble(setting, None)
    }

    /// The earlier event files that were found cut short.
    pub fn cut_short(&self) -> &[CutShort] {
        &self.cut_short
    }

    fn assemble(setting: &Setting<'_>, files: Option<Files>) -> Self {
        Self {
            files,
            cut_short: vec![],
            config: setting.config.clone(),
            labels: setting.labels.to_vec(),
            preprocess: setting.preprocess,
            since: Instant::now(),
            images: 0,
        }
    }

    /// An epoch begins, or goes on after a resumption: the time before it does not count as training.
    pub fn begin_epoch(&mut self) {
        self.since = Instant::now();
        self.images = 0;
    }

    /// Whether the numbers of a step are written; others need not be known. The same in every process.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.config.tensorboard.scalar_steps)
    }

    /// Whether anything is written here; of several processes, one does.
    pub fn writes(&self) -> bool {
        self.files.is_some()
    }

    /// The scalars of a step, if they are due.
    pub fn step(&mut self, step: u64, record: &StepRecord) -> Result<()> {
        let due = self.is_due(step);
        let Some(files) = &mut self.files else { return Ok(()) };
        self.images += record.images;
        if !due {
            return Ok(());
        }
        let speed = self.images as f64 / self.since.elapsed().as_secs_f64().max(1e-9);
        (self.since, self.images) = (Instant::now(), 0);
        let values = [
            ("step/loss", record.loss),
            ("step/learning_rate", record.learning_rate),
            ("step/gradient_norm", record.gradient_norm),
            ("step/images_per_second", speed),
        ];
        files.train.summary(step, scalars(values)).map_err(events)
    }

    /// Histograms of a step: weights before it, gradients and activations, if they are due in this epoch.
    pub fn histograms(
        &mut self,
        (step, epoch): (u64, u64),
        activations: &Activations,
        gradients: &Gradients,
        weights: &Weights,
    ) -> Result<()> {
        let Some(files) = self.files.as_mut().filter(|_| self.config.tensorboard.histograms_due(epoch))
        else {
            return Ok(());
        };
        let mut values = vec![];
        for (name, gradient) in gradients {
            values.push(event::histogram(
                format!("weights/{name}"),
                &with_values(weights.get(name), Histogram::of)?,
            ));
            values
                .push(event::histogram(format!("gradients/{name}"), &with_values(gradient, Histogram::of)?));
        }
        let outputs = activations.histograms();
        values.extend(
            outputs.map(|(layer, histogram)| event::histogram(format!("activations/{layer}"), histogram)),
        );
        files.train.summary(step, values).map_err(events)
    }

    /// A batch's images as the network sees them, if they are due in this epoch.
    pub fn samples(&mut self, (step, epoch): (u64, u64), batch: &Batch) -> Result<()> {
        let due = self.config.tensorboard.pictures_due(epoch, self.config.epochs);
        let Some(files) = self.files.as_mut().filter(|_| due) else { return Ok(()) };
        let size = 3 * batch.height * batch.width;
        let images = batch.floats();
        let shown: Vec<(RgbImage, &str)> = images
            .chunks_exact(size)
            .zip(&batch.labels)
            .take(SAMPLES)
            .map(|(planes, &label)| (visible(planes, &self.preprocess), self.labels[label as usize].as_str()))
            .collect();
        let title = format!("Training images, augmented: epoch {}", epoch + 1);
        let sheet = picture("images/augmented", &plot::samples(&title, &shown)?)?;
        files.train.summary(step, vec![sheet]).map_err(events)
    }

    /// How gradients flow in a step.
    pub fn gradient_flow(&mut self, step: u64, flow: &GradientFlow, drawn: &RgbImage) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let mut values = vec![];
        for layer in &flow.layers {
            let mut add = |what: &str, value: f64| {
                values.push(event::scalar(format!("{what}/{}", layer.layer), value as f32));
            };
            add("flow_gradient_norm", layer.gradient_norm);
            add("flow_weight_norm", layer.weight_norm);
            add("flow_update_ratio", layer.update_ratio);
            add("flow_activation_mean", layer.activation.mean);
            add("flow_activation_variance", layer.activation.variance);
            layer.activation.dead.into_iter().for_each(|share| add("flow_dead", share));
            layer.activation.saturated.into_iter().for_each(|share| add("flow_saturated", share));
        }
        let report = format!("{}\n\n{}", flow.verdict().to_string().replace('\n', "\n\n"), flow.markdown());
        values.push(event::text("gradient_flow", &report));
        values.push(picture("images/gradient_flow", drawn)?);
        files.train.summary(step, values).map_err(events)
    }

    /// The end of an epoch: its scalars, and pictures and curves of the validation if they are due.
    pub fn epoch(&mut self, step: u64, record: &EpochRecord<'_>) -> Result<()> {
        let due = self.config.tensorboard.pictures_due(record.epoch, self.config.epochs);
        let Some(files) = &mut self.files else { return Ok(()) };
        let EpochRecord { training, validation, best, epoch } = record;
        let named = |loss, top1, top5| {
            [("loss", loss), ("top1", top1), ("top5", top5)]
                .map(|(name, value)| (format!("{EPOCH}{name}"), value))
        };
        let found = validation.validation;
        let mut values = scalars(named(found.loss, found.top1, found.top5));
        if due {
            let title = format!("Validation, epoch {}", epoch + 1);
            let drawn = plot::confusion(&title, &validation.confusion, &self.labels)?;
            values.push(picture("confusion", &drawn)?);
            let curves = &validation.precision_recall;
            values.push(event::pr_curve("precision_recall/all classes", curves.all()));
            let single = curves.classes().iter().zip(&self.labels);
            values.extend(
                single.map(|(counts, label)| {
                    event::pr_curve(format!("precision_recall/class {label}"), counts)
                }),
            );
        }
        files
            .train
            .summary(step, scalars(named(training.loss(), training.top1(), training.top5())))
            .map_err(events)?;
        files.validation.summary(step, values).map_err(events)?;
        let Best { epoch, validation: best } = best;
        let best = hparams::BEST.map(|(tag, _)| tag).into_iter().zip([
            best.top1,
            best.top5,
            best.loss,
            *epoch as f64,
        ]);
        files.run.summary(step, scalars(best)).map_err(events)?;
        self.flush()
    }

    /// The run has done all its epochs, or stopped at an error.
    pub fn finish(&mut self, step: u64, status: Status) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.run.summary(step, vec![session_end(status, now())]).map_err(events)?;
        self.flush()
    }

    /// Makes every later event find the disk full.
    #[cfg(all(test, target_os = "linux"))]
    pub fn fill_disk(&mut self) {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let files = self.files.as_mut().expect("event files are on");
        files.train = EventWriter::new(std::path::Path::new("full"), full).expect("nothing is flushed yet");
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        files.all().into_iter().try_for_each(EventWriter::flush).map_err(events)
    }
}

/// An event file that cannot be written, as the run meets it.
fn events(reason: tallow_tensorflow::Error) -> Error {
    Error::Events { reason }
}

fn tags(event: &Event) -> impl Iterator<Item = &str> {
    event.summary.iter().flat_map(|summary| &summary.value).map(|value| value.tag.as_str())
}

/// Whether an event says how the run ended; a run that goes on has not.
fn ends_run(event: &Event) -> bool {
    tags(event).any(|tag| tag == SESSION_END)
}

fn scalars<S: Into<String>>(values: impl IntoIterator<Item = (S, f64)>) -> Vec<SummaryValue> {
    values.into_iter().map(|(tag, value)| event::scalar(tag, value as f32)).collect()
}

fn picture(tag: &str, picture: &RgbImage) -> Result<SummaryValue> {
    Ok(event::image(tag, picture.width(), picture.height(), plot::png(picture)?))
}

fn settings(config: &Config) -> SummaryValue {
    event::text("settings", &preformatted(&config.to_toml()))
}

/// Text as Markdown shows it unchanged.
fn preformatted(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Planes (3, height, width) back to pixels, without normalisation.
fn visible(planes: &[f32], preprocess: &Preprocess) -> RgbImage {
    let (width, height) = (preprocess.width, preprocess.height);
    let pixels = (width * height) as usize;
    RgbImage::from_fn(width, height, |x, y| {
        let place = (y * width + x) as usize;
        let channel = |c: usize| {
            let value = planes[c * pixels + place] * preprocess.std[c] + preprocess.mean[c];
            (value * 255.0).round() as u8
        };
        image::Rgb([channel(0), channel(1), channel(2)])
    })
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
