//! `tallow eval`: loss and accuracy of a trained network, on candle or on the engine that will serve it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ndarray::ArrayView4;
use serde_json::{Value, json};
use tallow_builder::Network;
use tallow_cuda::device::describe;
use tallow_input::{OutputKind, Preprocess};
use tallow_runtime::{Classifier, Element, EngineChoice};
use tallow_trainer::augment::EvalTransform;
use tallow_trainer::data::{
    Batch, Dataset, Known, Loader, LoaderOptions, RecordOptions, SplitOptions, Splits, folder,
    refuse_record_options, tfrecord,
};
use tallow_trainer::evaluate::{Evaluation, evaluate, evaluate_with};
use tallow_trainer::progress::{Pass, Progress};
use tallow_trainer::{Config, RunDir};

use super::train::skipped_json;
use crate::device::{self, explained};
use crate::failure::usage;
use crate::foreign;
use crate::model::{onnx_file, open_trained, origin_of};
use crate::output::{count, json, note, percent, say, table};
use crate::{gpu, records, tta};

#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// A run directory or a model directory (evaluated in candle), or an .onnx file (in an engine)
    model: PathBuf,
    /// A folder laid out as <class>/<image>, or with a validation folder in it, or TFRecord shards: their folder or a
    /// pattern such as 'dir/validation-*'; of a folder with train/ or training shards alone, what training holds out
    /// [default: the run's own data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Run the .onnx file, of a directory the one in it, on this engine: auto, ort-cuda, ort-tensorrt, ort or
    /// tract [default: auto for a file, candle for a directory]
    #[arg(long)]
    engine: Option<EngineChoice>,
    #[command(flatten)]
    device: device::Args,
    #[command(flatten)]
    gpu: gpu::Args,
    #[command(flatten)]
    foreign: foreign::Args,
    #[command(flatten)]
    offset: records::Offset,
    /// Images at a time
    #[arg(short, long, default_value_t = 64, value_name = "IMAGES")]
    batch_size: usize,
    #[command(flatten)]
    tta: tta::Args,
    /// Make a broken image an error instead of leaving it out
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Nothing stops an evaluation but the end of the process.
static NEVER: AtomicBool = AtomicBool::new(false);

pub fn run(args: &Args, threads: Option<usize>) -> Result<()> {
    let start = Instant::now();
    let mut progress = Progress::stderr();
    let (found, loader, by) = if args.model.is_file() || args.engine.is_some() {
        args.device.refuse(
            "an .onnx file runs in an engine: for a GPU say --engine ort-cuda, and --cuda-device for one that is not the \
             first",
        )?;
        let file = onnx_file(&args.model)?;
        let builder = Classifier::builder()
            .engine(args.engine.unwrap_or(EngineChoice::Auto))
            .options(args.gpu.options(threads))
            .batch(args.batch_size);
        let classifier = args.foreign.apply(builder)?.open(&file)?;
        note!("{}", classifier.selection());
        let loader = loader(args, classifier.labels(), &prepared_outside(&classifier))?;
        let forward = |batch: &Batch| logits(&classifier, batch);
        let classes = classifier.labels().len();
        let found = evaluate_with(classes, forward, &loader, &mut progress, pass(&loader), &NEVER)?;
        (found, loader, json!({ "engine": classifier.selection().engine.to_string() }))
    } else {
        args.foreign
            .refuse("a directory is evaluated as it says of itself: name its .onnx file, or an --engine")?;
        args.gpu.refuse("a directory is evaluated on candle: name its .onnx file, or an --engine")?;
        let trained = open_trained(&args.model)?;
        let compute = args.device.open()?;
        let loader = loader(args, &trained.card.labels, &trained.card.preprocess)?.as_bytes(compute.is_gpu());
        let network = Network::new(trained.graph, trained.weights.to_device(compute.device())?);
        let found = evaluate(&network, &compute, &loader, &mut progress, pass(&loader), &NEVER)
            .map_err(|error| explained(error, "--batch-size", args.batch_size))?;
        let device = describe(compute.device());
        (found, loader, json!({ "engine": "candle", "device": device, "precision": compute.precision() }))
    };
    let found = found.context("the evaluation was stopped")?;
    report(args, &found, &loader, by, start.elapsed().as_secs_f64())
}

/// What is left to do to an image outside the graph: of a graph that normalises, resizing and cropping.
fn prepared_outside(classifier: &Classifier) -> Preprocess {
    match classifier.network().info().element {
        Element::Float => *classifier.preprocess(),
        Element::Byte => Preprocess { mean: [0.0; 3], std: [1.0; 3], ..*classifier.preprocess() },
    }
}

/// The engine's logits; the logarithm stands in for them where a model ends in softmax.
fn logits(classifier: &Classifier, batch: &Batch) -> Result<Vec<f32>> {
    let shape = (batch.len() * batch.views.count(), 3, batch.height, batch.width);
    let floats = batch.floats();
    let images = ArrayView4::from_shape(shape, &floats)?;
    let scores = match classifier.network().info().element {
        Element::Float => classifier.scores(images)?,
        Element::Byte => {
            // Shares of 255, back to the whole numbers they came from.
            let pixels = images.permuted_axes([0, 2, 3, 1]).mapv(|share| (255.0 * share).round() as u8);
            classifier.scores(pixels.view())?
        }
    };
    let ends_in_softmax = classifier.output() == OutputKind::Probabilities;
    // A probability that has vanished to 0 has no logarithm.
    let logit = |&score: &f32| if ends_in_softmax { score.max(f32::MIN_POSITIVE).ln() } else { score };
    Ok(scores.iter().map(logit).collect())
}

fn pass(loader: &Loader) -> Pass {
    Pass { what: "evaluate", epoch: 1, epochs: 1, batches: loader.batches(), first_batch: 0 }
}

fn loader(args: &Args, labels: &[String], preprocess: &Preprocess) -> Result<Loader> {
    let data = labelled_images(args, labels)?;
    let views = args.tta.views();
    args.tta.warn(preprocess);
    let batch_size = args.batch_size.div_ceil(views.count());
    let options = LoaderOptions { batch_size, strict: args.strict, ..LoaderOptions::default() };
    Ok(Loader::new(data, Arc::new(EvalTransform::with_views(*preprocess, views)?), options)?)
}

/// The images to evaluate on: those named by --data, or the validation set of the run the model came from.
fn labelled_images(args: &Args, labels: &[String]) -> Result<Arc<dyn Dataset>> {
    let run = if args.model.is_dir() { Some(args.model.clone()) } else { origin_of(&args.model) };
    let run = run.and_then(|path| RunDir::open(&path).ok());
    let config = run.map(|run| run.config()).transpose()?;
    let said = args.offset.apply(None);
    said.as_ref().map_or(Ok(()), RecordOptions::validate)?;
    let trained = config.as_ref().and_then(|config| config.records.clone());
    // Other shards may say themselves where their labels start, or fall to what the run took.
    let label_offset = trained.as_ref().and_then(|records| records.label_offset);
    let known = Some(Known { classes: labels, label_offset });
    let of_others = trained.clone().map(|records| RecordOptions { label_offset: None, ..records });
    let of_others = args.offset.apply(of_others).unwrap_or_default();
    let of_its_own = args.offset.apply(trained);
    // What the run trained on must not be what it is measured on.
    let split = config.as_ref().map_or(SplitOptions::default(), |config| config.split);
    let is_its_own = |data: &Path| {
        let known = config.as_ref().map(|config| Path::new(&config.data));
        known.is_some_and(|known| data == known || data.canonicalize().is_ok_and(|data| data == known))
    };
    let own = |config: &Config| Splits::open(&config.data, split, of_its_own.as_ref(), known);
    let data: Arc<dyn Dataset> = match (&args.data, &config) {
        (Some(data), Some(config)) if is_its_own(data) => own(config)?.validation,
        (Some(data), _) if data == Path::new("digits") && !data.is_dir() => {
            Splits::open("digits", split, said.as_ref(), None)?.validation
        }
        (Some(data), _) => {
            let located = data.to_str().map(tfrecord::locate).transpose()?.flatten();
            let (images, holds_out) = match located {
                Some(located) => {
                    let images = tfrecord::open_validation(&located, &of_others, split, known)?;
                    (images, located.holds_out().then_some("shards"))
                }
                None => {
                    refuse_record_options(said.as_ref())?;
                    (folder::open_validation(data, split)?, folder::holds_out(data).then_some("folder"))
                }
            };
            if let Some(absent) = holds_out {
                note!(
                    "{} has no validation {absent}: evaluating on the {} of train that training {}holds out (a share of \
                     {}, seed {})",
                    data.display(),
                    count(images.len(), "image"),
                    if config.is_some() { "" } else { "by default " },
                    split.fraction,
                    split.seed
                );
            }
            images
        }
        (None, Some(config)) => own(config)?.validation,
        (None, None) => {
            return Err(usage(format!(
                "say what to evaluate on with --data FOLDER: {} lies in no run",
                args.model.display()
            )));
        }
    };
    if data.classes() != labels {
        bail!(
            "the data has the classes {}, the model {}: evaluate on the classes it was trained for",
            shortened(data.classes()),
            shortened(labels)
        );
    }
    Ok(data)
}

fn shortened(names: &[String]) -> String {
    match names {
        [first, second, third, _, .., last] => {
            format!("{first}, {second}, {third}, …, {last} ({})", names.len())
        }
        _ => names.join(", "),
    }
}

/// Prints what was found; `by` says what computed.
fn report(args: &Args, found: &Evaluation, loader: &Loader, by: Value, seconds: f64) -> Result<()> {
    let skipped = loader.skipped();
    let Evaluation { validation, images, confusion, .. } = found;
    let classes = loader.dataset().classes();
    if args.json {
        let class = |(i, name): (usize, &String)| {
            json!({
                "class": name, "images": confusion.truths(i), "precision": finite(confusion.precision(i)),
                "recall": finite(confusion.recall(i)), "f1": finite(confusion.f1(i)),
            })
        };
        let mut result = json!({
            "images": images, "loss": validation.loss, "top1": validation.top1, "top5": validation.top5,
            "seconds": seconds, "skipped": skipped_json(&skipped),
            "classes": classes.iter().enumerate().map(class).collect::<Vec<_>>(),
        });
        let by = by.as_object().into_iter().flatten();
        by.for_each(|(key, value)| result[key] = value.clone());
        return json(&result);
    }
    for image in &skipped {
        note!("left out {}: {}", image.origin, image.reason);
    }
    let cell = |share: f64| if share.is_nan() { "–".into() } else { percent(share) };
    let row = |(i, name): (usize, &String)| {
        let shares = [confusion.precision(i), confusion.recall(i), confusion.f1(i)].map(cell);
        [vec![name.clone(), confusion.truths(i).to_string()], shares.to_vec()].concat()
    };
    let rows: Vec<Vec<String>> = classes.iter().enumerate().map(row).collect();
    table(&["class", "images", "precision", "recall", "F1"], &rows)?;
    let engine = by["engine"].as_str().unwrap_or_default();
    say!("")?;
    say!(
        "top-1 {}, top-5 {}, loss {:.4} on {images} images ({engine}, {seconds:.1} s)",
        percent(validation.top1),
        percent(validation.top5),
        validation.loss
    )
}

/// JSON has no NaN: a class that was never predicted has no precision.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
