//! Published weights where a command else takes a run: `--weights`, with `--model` where they do not describe themselves.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Device;
use tallow_exporter::{Head, read_weights};
use tallow_hub::Pretrained;
use tallow_input::{ModelCard, Preprocess};
use tallow_models::{Options, Scaling, imagenet_labels};

use crate::factors::Factors;
use crate::failure::usage;
use crate::image_size::ImageSize;
use crate::model::{Trained, read_labels};

const HEADING: &str = "Published weights instead of a run";

/// Flags for weights that are no run.
#[derive(clap::Args)]
pub struct Args {
    /// Weights: hf:OWNER/NAME of the Hugging Face hub, a folder with the config.json and model.safetensors of one, or
    /// a file of safetensors, PyTorch's or TensorFlow's
    #[arg(help_heading = HEADING, long, value_name = "WEIGHTS")]
    weights: Option<String>,
    /// The network that a file of weights is of; timm/NAME is timm's, which may differ in padding, eps and preprocessing
    #[arg(help_heading = HEADING, long, value_name = "NETWORK", requires = "weights")]
    model: Option<String>,
    /// Classes of the network [default: what the weights' description says, else those it was published with]
    #[arg(help_heading = HEADING, long, requires = "weights")]
    classes: Option<usize>,
    /// Where the state dict is in a checkpoint of PyTorch's [default: state_dict, model_state_dict, model or weights]
    #[arg(help_heading = HEADING, long, requires = "weights")]
    key: Option<String>,
    #[command(flatten)]
    factors: Factors,
}

/// What is said about the images and classes, in place of what came with the weights.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// A text file with one class name a line.
    pub labels: Option<PathBuf>,
    pub size: Option<ImageSize>,
    pub mean: Option<[f32; 3]>,
    pub std: Option<[f32; 3]>,
}

impl Args {
    /// Whether any weights are named.
    pub fn is_some(&self) -> bool {
        self.weights.is_some()
    }

    /// Whether anything is said, with or without weights.
    pub fn says_anything(&self) -> bool {
        let Self { weights, model, classes, key, factors } = self;
        weights.is_some() || model.is_some() || classes.is_some() || key.is_some() || factors.is_some()
    }

    /// The network with the weights that are named, if any are.
    pub fn open(&self, said: Said) -> Result<Option<Trained>> {
        let Some(source) = &self.weights else {
            if self.factors.is_some() {
                return Err(usage(
                    "--width and --depth are for --weights; a trained network has its own size",
                ));
            }
            return Ok(None);
        };
        let found = Pretrained::open(source, self.model.as_deref())?;
        let Pretrained { network, preprocess, .. } = found;
        let preprocess = Preprocess {
            width: said.size.map_or(preprocess.width, |size| size.width),
            height: said.size.map_or(preprocess.height, |size| size.height),
            mean: said.mean.unwrap_or(preprocess.mean),
            std: said.std.unwrap_or(preprocess.std),
            ..preprocess
        };
        let labels = said.labels.as_deref().map(read_labels).transpose()?;
        let named = labels.as_ref().map(Vec::len);
        let classes = self.classes.or(found.classes).or(named).unwrap_or(network.classes);
        let graph = network.build(&Options {
            classes: Some(classes),
            width: Some(preprocess.width as usize),
            height: Some(preprocess.height as usize),
            scaling: self.factors.over(Scaling::NONE),
            ..Options::default()
        })?;
        let weights =
            read_weights(&graph, &found.weights, self.key.as_deref(), Head::Kept, &Device::Cpu)?.weights;
        if let (Some(file), Some(named)) = (&said.labels, named.filter(|&named| named != classes)) {
            bail!(
                "{} names {named} classes, the network has {classes}: one name a line is needed",
                file.display()
            );
        }
        let labels = labels.or(found.labels).unwrap_or_else(|| usual_labels(classes));
        let card = ModelCard::new(graph.name(), labels, preprocess);
        Ok(Some(Trained { graph, weights, card, steps: 0 }))
    }
}

/// ImageNet's names where there are as many classes, else numbers.
fn usual_labels(classes: usize) -> Vec<String> {
    let imagenet = imagenet_labels();
    if imagenet.len() == classes {
        return imagenet;
    }
    (0..classes).map(|class| format!("class {class}")).collect()
}
