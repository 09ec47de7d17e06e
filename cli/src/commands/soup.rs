//! `tallow soup`: the mean of the weights of several trainings, as a SavedModel.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde_json::json;
use tallow_builder::{Graph, Network, Weights};
use tallow_exporter::tensorflow::{SavedModel, SavedModelOptions};
use tallow_exporter::{Existing, Head, read_weights};
use tallow_input::{ModelCard, Preprocess};
use tallow_trainer::augment::EvalTransform;
use tallow_trainer::compute::Compute;
use tallow_trainer::data::{Dataset, Known, Loader, LoaderOptions, SplitOptions, Splits, has_validation};
use tallow_trainer::evaluate::evaluate;
use tallow_trainer::metrics::csv::Validation;
use tallow_trainer::progress::{Pass, Progress};
use tallow_trainer::{Config, RunDir, soup};

use crate::device::{self, explained};
use crate::failure::usage;
use crate::model::{Trained, open_trained};
use crate::output::{count, json, note, percent, say, table};
use crate::records;

#[derive(clap::Args)]
pub struct Args {
    /// Runs or SavedModels of one network that was trained several times from the same weights, and files of such weights
    /// (safetensors, PyTorch's or TensorFlow's); at least one of them a run or SavedModel. Heads that each --seed drew
    /// anew average badly: train one run first, and the others from it (--weights RUN)
    #[arg(required = true, value_name = "RUN or WEIGHTS")]
    ingredients: Vec<PathBuf>,
    /// Where to: a SavedModel, which export, eval, predict and verify take
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Take the best ingredient on the validation images, then each one that does not lower the mean's top-1
    #[arg(long)]
    greedy: bool,
    /// Average batch normalisation's moments, then measure them anew on the training images
    #[arg(long)]
    recalibrate: bool,
    /// Images to judge on, and to recalibrate on, laid out as for training [default: the first run's own data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    offset: records::Offset,
    #[command(flatten)]
    device: device::Args,
    /// Images at a time
    #[arg(short, long, default_value_t = 64, value_name = "IMAGES")]
    batch_size: usize,
    /// Replace what is there
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Nothing stops the command but the end of the process.
static NEVER: AtomicBool = AtomicBool::new(false);

pub fn run(args: &Args) -> Result<()> {
    if args.ingredients.len() < 2 && !args.recalibrate {
        return Err(usage(
            "a soup needs at least two ingredients: runs, SavedModels or files of weights; one alone can be given new \
             moments with --recalibrate",
        ));
    }
    let (base, ingredients) = open(&args.ingredients)?;
    let Trained { graph, mut card, .. } = base;
    let kitchen = Kitchen::open(args, &graph, &card)?;
    let scores = match &kitchen {
        Some(kitchen) => ingredients.iter().map(|weights| kitchen.judge(weights)).collect::<Result<_>>()?,
        None => vec![],
    };
    let top1: Vec<f64> = scores.iter().map(|score: &Validation| score.top1).collect();
    let finish = |weights: Weights| match &kitchen {
        Some(kitchen) if args.recalibrate => kitchen.recalibrate(weights),
        _ => Ok(weights),
    };
    let (taken, weights) = match &kitchen {
        Some(kitchen) if args.greedy => {
            let judge = |weights| {
                let weights = finish(weights)?;
                let score = kitchen.judge(&weights)?.top1;
                anyhow::Ok((weights, score))
            };
            let soup = soup::greedy(&graph, &ingredients, &top1, judge)?;
            (soup.taken, soup.weights)
        }
        _ => {
            let all: Vec<&Weights> = ingredients.iter().collect();
            ((0..ingredients.len()).collect(), finish(soup::average(&graph, &all)?)?)
        }
    };
    if soup::has_moments(&graph) && !args.recalibrate && taken.len() > 1 {
        note!(
            "note: batch normalisation's moments are averaged, too, and need not be those of the averaged weights: \
             --recalibrate measures them on the training images"
        );
    }
    let found = kitchen.as_ref().map(|kitchen| kitchen.judge(&weights)).transpose()?;
    card.metrics = metrics(found.as_ref());
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    SavedModel::write(&args.output, &graph, &weights, &card, &SavedModelOptions::default(), existing)?;
    report(args, &scores, &taken, found.as_ref())
}

fn metrics(found: Option<&Validation>) -> std::collections::BTreeMap<String, f64> {
    let named = |found: &Validation| {
        [("validation_loss", found.loss), ("validation_top1", found.top1), ("validation_top5", found.top5)]
    };
    let found = found.into_iter().flat_map(named);
    found.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The network of the first run or SavedModel, and the weights of all ingredients.
fn open(paths: &[PathBuf]) -> Result<(Trained, Vec<Weights>)> {
    let Some(first) = paths.iter().find(|path| !path.is_file()) else {
        return Err(usage(
            "files of weights do not say of which network they are: name a run or a SavedModel among them",
        ));
    };
    let base = open_trained(first)?;
    let weights = paths.iter().map(|path| {
        if path.is_file() {
            return Ok(read_weights(&base.graph, path, None, Head::Kept, &Device::Cpu)?.weights);
        }
        let other = open_trained(path)?;
        refuse_stranger((first, &base), (path, &other))?;
        Ok(other.weights)
    });
    let weights = weights.collect::<Result<_>>()?;
    Ok((base, weights))
}

/// Refuses what is no training of the same network for the same task.
fn refuse_stranger((first, base): (&Path, &Trained), (path, other): (&Path, &Trained)) -> Result<()> {
    let tensors = |graph: &Graph| {
        graph.parameters().into_iter().map(|parameter| (parameter.name, parameter.shape)).collect::<Vec<_>>()
    };
    let differs = |what: String| {
        bail!("{} and {} differ in {what}: a soup is of one network", first.display(), path.display())
    };
    let (a, b) = (&base.card, &other.card);
    if a.architecture != b.architecture || tensors(&base.graph) != tensors(&other.graph) {
        return differs(format!("their network ({} and {})", a.architecture, b.architecture));
    }
    if a.labels != b.labels {
        return differs("their classes".into());
    }
    if a.preprocess != b.preprocess || base.graph.input_shape() != other.graph.input_shape() {
        return differs("how their images are prepared".into());
    }
    Ok(())
}

/// Where soups are tasted: held-out images, and those of training. Weights come from the host and go back there.
struct Kitchen<'a> {
    graph: &'a Graph,
    compute: Compute,
    batch_size: usize,
    validation: Loader,
    train: Loader,
}

impl<'a> Kitchen<'a> {
    /// `None` where neither images are named nor anything asks for some.
    fn open(args: &Args, graph: &'a Graph, card: &ModelCard) -> Result<Option<Self>> {
        if args.data.is_none() && !args.greedy && !args.recalibrate {
            args.device
                .refuse("the mean is taken on the CPU: judge with --data or --greedy, or --recalibrate")?;
            return Ok(None);
        }
        let data = data(args, &card.labels)?;
        if data.train.classes() != card.labels {
            bail!("the data has other classes than the ingredients: name the data that they were trained on");
        }
        let compute = args.device.open()?;
        let loader = |data, shuffle| {
            let loader = loader(data, &card.preprocess, args.batch_size, shuffle)?;
            anyhow::Ok(loader.as_bytes(compute.is_gpu()))
        };
        let (validation, train) = (loader(data.validation, false)?, loader(data.train, true)?);
        Ok(Some(Self { graph, compute, batch_size: args.batch_size, validation, train }))
    }

    fn judge(&self, weights: &Weights) -> Result<Validation> {
        let network = self.network(weights)?;
        let batches = self.validation.batches();
        let pass = Pass { what: "evaluate", epoch: 1, epochs: 1, batches, first_batch: 0 };
        let mut progress = Progress::stderr();
        let found = evaluate(&network, &self.compute, &self.validation, &mut progress, pass, &NEVER)
            .map_err(|error| explained(error, "--batch-size", self.batch_size))?;
        Ok(found.context("the evaluation was stopped")?.validation)
    }

    fn recalibrate(&self, weights: Weights) -> Result<Weights> {
        let mut network = self.network(&weights)?;
        soup::recalibrate(&mut network, &self.compute, &self.train, &mut Progress::stderr(), &NEVER)
            .map_err(|error| explained(error, "--batch-size", self.batch_size))?;
        Ok(network.weights().to_device(&Device::Cpu)?)
    }

    /// The network with these weights where it is computed.
    fn network(&self, weights: &Weights) -> Result<Network> {
        Ok(Network::new(self.graph.clone(), weights.to_device(self.compute.device())?))
    }
}

/// Images as validation sees them; those that moments are measured on in random order and in full batches.
fn loader(
    data: Arc<dyn Dataset>,
    preprocess: &Preprocess,
    batch_size: usize,
    shuffle: bool,
) -> Result<Loader> {
    let drop_last = shuffle && data.len() >= batch_size;
    let options = LoaderOptions { batch_size, shuffle, drop_last, ..LoaderOptions::default() };
    Ok(Loader::new(data, Arc::new(EvalTransform::new(*preprocess)?), options)?)
}

/// Says so where a run learned from images that it is judged on here.
fn warn_of_other_splits(args: &Args, data: &str, split: SplitOptions) -> Result<()> {
    if has_validation(data)? {
        return Ok(());
    }
    for path in &args.ingredients {
        let config = RunDir::open(path).ok().map(|run| run.config()).transpose()?;
        if config.is_some_and(|config| config.split != split) {
            note!(
                "note: {} held out other images than the first run ([split] in its config.toml): it learned from some                  of those that it is judged on here",
                path.display()
            );
        }
    }
    Ok(())
}

/// The data that is named, or the first run's own; what is held out is what that run held out.
fn data(args: &Args, labels: &[String]) -> Result<Splits> {
    let run = args.ingredients.iter().find_map(|path| RunDir::open(path).ok());
    let config: Option<Config> = run.map(|run| run.config()).transpose()?;
    let split = config.as_ref().map_or(SplitOptions::default(), |config| config.split);
    let trained = config.as_ref().and_then(|config| config.records.clone());
    let label_offset = trained.as_ref().and_then(|records| records.label_offset);
    let known = Some(Known { classes: labels, label_offset });
    match (&args.data, &config) {
        (Some(data), _) => {
            let data = data.to_str().context("the name of the --data folder is not valid UTF-8")?;
            warn_of_other_splits(args, data, split)?;
            Ok(Splits::open(data, split, args.offset.apply(None).as_ref(), known)?)
        }
        (None, Some(config)) => {
            warn_of_other_splits(args, &config.data, split)?;
            Ok(Splits::open(&config.data, split, args.offset.apply(trained).as_ref(), known)?)
        }
        (None, None) => Err(usage("say what to judge on with --data FOLDER: no ingredient is a run")),
    }
}

fn report(args: &Args, scores: &[Validation], taken: &[usize], found: Option<&Validation>) -> Result<()> {
    let output = args.output.display();
    let name = |index: usize| args.ingredients[index].display().to_string();
    if args.json {
        let ingredient = |(index, _): (usize, &PathBuf)| json!({ "from": name(index), "taken": taken.contains(&index), "validation": scores.get(index) });
        let ingredients: Vec<_> = args.ingredients.iter().enumerate().map(ingredient).collect();
        return json(&json!({
            "path": output.to_string(), "ingredients": ingredients, "recalibrated": args.recalibrate,
            "validation": found,
        }));
    }
    if let Some(found) = found {
        let row = |name: String, score: &Validation, taken: &str| {
            vec![name, percent(score.top1), format!("{:.4}", score.loss), taken.to_owned()]
        };
        let taken = |index: usize| if taken.contains(&index) { "yes" } else { "no" };
        let mut rows: Vec<_> =
            scores.iter().enumerate().map(|(index, score)| row(name(index), score, taken(index))).collect();
        rows.push(row("soup".into(), found, ""));
        table(&["ingredient", "top-1", "loss", "taken"], &rows)?;
        say!("")?;
    }
    let taken = count(taken.len(), "ingredient");
    say!("{output} is the mean of {taken}; next: tallow eval {output} --data FOLDER, tallow export {output}")
}
