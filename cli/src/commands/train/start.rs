//! `--weights`: what a run starts from, found first for what it says about itself, read once the network is known.

use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::Device;
use tallow_builder::{Graph, Weights};
use tallow_exporter::tensorflow::SavedModel;
use tallow_exporter::{Head, Imported, read_weights};
use tallow_hub::{HUB, Pretrained};
use tallow_input::Preprocess;
use tallow_trainer::RunDir;
use tallow_trainer::checkpoint::Checkpoint;

use crate::failure::usage;
use crate::model::{is_run, no_checkpoint};
use crate::output::note;

/// Weights to start from.
pub struct Start {
    /// What was said.
    source: String,
    /// Their file.
    file: PathBuf,
    /// Their network.
    pub network: String,
    /// How their images were prepared, where that came with them.
    pub preprocess: Option<Preprocess>,
    /// Their classes, where a training of Tallow's named them; others name the same classes in ways of their own.
    labels: Option<Vec<String>>,
}

impl Start {
    /// Finds weights: of a run (its best checkpoint), a SavedModel, or whatever [`Pretrained::open`] takes. `model` is
    /// the network that they are said to be of.
    pub fn find(source: &str, model: Option<&str>) -> Result<Self> {
        let path = Path::new(source);
        let found = |file, network, preprocess, labels| Self {
            source: source.to_owned(),
            file,
            network,
            preprocess,
            labels,
        };
        if is_run(path) {
            let run = RunDir::open(path)?;
            let config = run.config()?;
            refuse_other(source, &config.model, model)?;
            if !run.has_checkpoint() {
                return Err(no_checkpoint(path));
            }
            let preprocess = config.preprocess()?;
            return Ok(found(
                Checkpoint::weights_file(&run.best()),
                config.model,
                Some(preprocess),
                Some(run.labels()?),
            ));
        }
        if SavedModel::is_at(path) {
            let saved = SavedModel::open(path)?;
            let card = saved.card();
            refuse_other(source, &card.architecture, model)?;
            let labels = Some(card.labels.clone());
            return Ok(found(path.to_owned(), card.architecture.clone(), Some(card.preprocess), labels));
        }
        let Pretrained { network, weights, preprocess, .. } = Pretrained::open(source, model)?;
        // A bare file says nothing of its images.
        let described = source.starts_with(HUB) || path.is_dir() && weights != path;
        Ok(found(weights, network.name.to_owned(), described.then_some(preprocess), None))
    }

    /// Reads them for the network of a run on data with the classes `labels`. A classifier of other classes is drawn
    /// from the run's seed; all else has to fit.
    /// Of several processes that do so, one `tells` of it.
    pub fn read(&self, graph: &Graph, labels: &[String], seed: u64, tells: bool) -> Result<Weights> {
        let renamed = self.labels.as_ref().is_some_and(|own| own != labels);
        let head = if renamed { Head::Redrawn { seed } } else { Head::New { seed } };
        let Imported { weights, other_head, .. } = read_weights(graph, &self.file, None, head, &Device::Cpu)?;
        let classes = graph.output_shape().elements();
        let head = match other_head {
            Some(had) if had == classes => format!("head drawn anew: its {had} classes have other names"),
            Some(had) => format!("head drawn anew: {had} → {classes} classes"),
            None => format!("head kept: {classes} classes"),
        };
        if tells {
            note!("weights of {} from {}; {head}", self.network, self.source);
        }
        Ok(weights)
    }
}

/// Refuses weights that know that they are of another network.
fn refuse_other(source: &str, network: &str, said: Option<&str>) -> Result<()> {
    match said {
        Some(said) if said != network => Err(usage(format!(
            "{source}: is of {network}, not {said}: leave the network out, or name other weights"
        ))),
        _ => Ok(()),
    }
}
