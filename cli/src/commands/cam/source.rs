//! Where the maps come from: a network that candle runs, or an .onnx file that has them among its outputs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use ndarray::Axis;
use tallow_builder::cam::{class_activation_maps, grad_cam, last_feature_map};
use tallow_builder::{CamHead, Network, NodeId};
use tallow_exporter::onnx::CAM;
use tallow_input::{ModelCard, Preprocess, RgbImage, softmax};
use tallow_runtime::{Classifier, Element, EngineOptions, OutputKind};
use tallow_trainer::compute::Compute;
use tallow_trainer::plot::ActivationMap;

use super::{Args, choice};
use crate::failure::usage;
use crate::model::{Trained, note_if_altered, open_trained};
use crate::output::note;
use crate::pretrained::Said;

/// A class, and where it is seen.
pub struct Seen {
    pub class: usize,
    /// `None` for a network that gives probabilities.
    pub logit: Option<f32>,
    pub map: ActivationMap,
}

/// Where the maps come from.
pub enum Source {
    /// candle runs the network.
    Network(Box<Candle>),
    /// An engine runs an .onnx file, whose output of this number has the maps.
    Engine(Box<Classifier>, usize),
}

/// A network in candle.
pub struct Candle {
    /// Its weights are on the device.
    network: Network,
    compute: Compute,
    card: ModelCard,
    /// The layer of Grad-CAM; without one it is class activation maps.
    layer: Option<NodeId>,
    method: String,
}

impl Source {
    /// The model, or where none is named the weights.
    ///
    /// # Errors
    /// Where it cannot be read, has no maps, or flags do not fit it.
    pub fn open(args: &Args, model: Option<&Path>, threads: Option<usize>) -> Result<Self> {
        if let Some(model) = model.filter(|model| model.is_file()) {
            return Self::file(args, model, threads);
        }
        if args.engine.is_some() {
            return Err(usage(
                "--engine is for .onnx files: candle shows where a run or weights see their classes",
            ));
        }
        let trained = match model {
            Some(model) => open_trained(model)?,
            None => args.pretrained.open(Said::default())?.context("no weights are named")?,
        };
        let Trained { graph, weights, card, .. } = trained;
        let layer = args.layer.as_deref().map(|name| choice::layer(&graph, name)).transpose()?;
        let method = match layer {
            Some(layer) => format!("Grad-CAM at {}", graph.node(layer).name),
            None if CamHead::of(&graph).is_none() => "Grad-CAM".into(),
            None => "class activation maps".into(),
        };
        let layer = match CamHead::of(&graph) {
            Some(_) => layer,
            None => {
                let layer = layer.or_else(|| last_feature_map(&graph));
                Some(layer.context("the network has no feature map to look at")?)
            }
        };
        let compute = args.device.open()?;
        let network = Network::new(graph, weights.to_device(compute.device())?);
        Ok(Self::Network(Box::new(Candle { network, compute, card, layer, method })))
    }

    fn file(args: &Args, model: &Path, threads: Option<usize>) -> Result<Self> {
        args.device.refuse("an .onnx file runs in an engine: for a GPU say --engine ort-cuda")?;
        if args.layer.is_some() {
            return Err(usage(
                "--layer needs the network's gradients, which a file has not: name the run or SavedModel it came from, \
                 or its weights with --weights",
            ));
        }
        let options = EngineOptions { threads, ..EngineOptions::default() };
        let builder = Classifier::builder().engine(args.engine.unwrap_or_default()).options(options);
        let classifier = builder.open(model)?;
        note!("{}", classifier.selection());
        note_if_altered(model, classifier.network().info());
        let Some(output) = classifier.network().output_index(CAM) else {
            bail!(
                "{} has no output `{CAM}`: export it again with --cam, or name the run or SavedModel it came from, or \
                 its weights with --weights",
                model.display()
            );
        };
        Ok(Self::Engine(Box::new(classifier), output))
    }

    pub fn preprocess(&self) -> &Preprocess {
        match self {
            Self::Network(candle) => &candle.card.preprocess,
            Self::Engine(classifier, _) => classifier.preprocess(),
        }
    }

    pub fn labels(&self) -> &[String] {
        match self {
            Self::Network(candle) => &candle.card.labels,
            Self::Engine(classifier, _) => classifier.labels(),
        }
    }

    /// What the maps are.
    pub fn method(&self) -> &str {
        match self {
            Self::Network(candle) => &candle.method,
            Self::Engine(..) => "class activation maps",
        }
    }

    /// The maps of the classes that `choose` takes by all classes' probabilities.
    ///
    /// # Errors
    /// Where the photo cannot be brought to the network's size, or the network cannot run.
    pub fn maps(&self, photo: &RgbImage, choose: impl FnOnce(&[f64]) -> Vec<usize>) -> Result<Vec<Seen>> {
        match self {
            Self::Network(candle) => candle.maps(photo, choose),
            Self::Engine(classifier, output) => engine_maps(classifier, *output, photo, choose),
        }
    }
}

impl Candle {
    fn maps(&self, photo: &RgbImage, choose: impl FnOnce(&[f64]) -> Vec<usize>) -> Result<Vec<Seen>> {
        let Self { network, compute, card, layer, .. } = self;
        let Preprocess { width, height, .. } = card.preprocess;
        let images = card.preprocess.apply(photo)?;
        let images = &compute.input(&images, [1, 3, height as usize, width as usize])?;
        let (logits, map_of): (_, Box<dyn Fn(usize) -> Result<Tensor>>) = match *layer {
            Some(layer) => {
                let map = move |class| Ok(grad_cam(network, images, class, layer)?.squeeze(0)?);
                (network.forward(images)?, Box::new(map))
            }
            None => {
                let found = class_activation_maps(network, images)?;
                let (logits, maps) = found.context("the network has no class activation maps")?;
                (logits, Box::new(move |class| Ok(maps.get(0)?.get(class)?)))
            }
        };
        let logits = compute.to_host(&logits)?;
        let probabilities = softmax(&logits);
        let seen = |class: usize| {
            let map = map_of(class)?;
            let (rows, columns) = map.dims2()?;
            let map = ActivationMap {
                label: card.labels[class].clone(),
                probability: probabilities[class],
                size: [rows, columns],
                values: compute.to_host(&map)?,
            };
            Ok(Seen { class, logit: Some(logits[class]), map })
        };
        choose(&probabilities).into_iter().map(seen).collect()
    }
}

fn engine_maps(
    classifier: &Classifier,
    output: usize,
    photo: &RgbImage,
    choose: impl FnOnce(&[f64]) -> Vec<usize>,
) -> Result<Vec<Seen>> {
    let photo = std::slice::from_ref(photo);
    let outputs = match classifier.network().info().element {
        Element::Float => classifier.network().run(classifier.prepare(photo)?.view())?,
        Element::Byte => classifier.network().run(classifier.pixels(photo)?.view())?,
    };
    let scores: Vec<f32> = outputs[classifier.scores_index()].iter().copied().collect();
    let (probabilities, logits) = match classifier.output() {
        OutputKind::Probabilities => (scores.iter().map(|&score| f64::from(score)).collect(), None),
        OutputKind::Logits => (softmax(&scores), Some(scores)),
    };
    let maps = outputs[output].index_axis(Axis(0), 0);
    let seen = |class: usize| {
        let map = ActivationMap {
            label: classifier.labels()[class].clone(),
            probability: probabilities[class],
            size: [maps.shape()[1], maps.shape()[2]],
            values: maps.index_axis(Axis(0), class).iter().copied().collect(),
        };
        Seen { class, logit: logits.as_ref().map(|logits| logits[class]), map }
    };
    Ok(choose(&probabilities).into_iter().map(seen).collect())
}
