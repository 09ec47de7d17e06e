//! `tallow cam`: where in a photo a network sees its classes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use ndarray::Axis;
use serde_json::json;
use tallow_builder::cam::{class_activation_maps, grad_cam, last_feature_map};
use tallow_builder::{Network, NodeId};
use tallow_exporter::onnx::CAM;
use tallow_input::{ModelCard, Preprocess, RgbImage, decode_file, softmax};
use tallow_runtime::{Classifier, Element, EngineChoice, EngineOptions, OutputKind};
use tallow_trainer::plot::{self, ActivationMap};

use crate::failure::usage;
use crate::model::{Trained, open_trained};
use crate::output::{json, note, percent, say};
use crate::pretrained::{self, Said};

#[derive(clap::Args)]
pub struct Args {
    /// A run, a SavedModel, or an .onnx file exported with --cam (none of them with --weights); then images
    #[arg(required = true, value_name = "MODEL or IMAGE")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    pretrained: pretrained::Args,
    /// The PNG to write [default: the image's name with .cam.png, in this folder]
    #[arg(short, long, value_name = "PNG")]
    output: Option<PathBuf>,
    /// Classes to show, the most probable first
    #[arg(short = 'k', long, default_value_t = 3, conflicts_with = "class")]
    top_k: usize,
    /// A class to show: its name or its number; may be given several times
    #[arg(long)]
    class: Vec<String>,
    /// Show Grad-CAM at this layer instead of class activation maps: `tallow summary` lists the layers
    #[arg(long, value_name = "LAYER")]
    layer: Option<String>,
    /// The engine for an .onnx file: auto, ort-cuda, ort or tract [default: auto]
    #[arg(long)]
    engine: Option<EngineChoice>,
    /// Replace pictures that are there
    #[arg(long)]
    force: bool,
    /// Print JSON: classes, probabilities, and where each map is largest
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, threads: Option<usize>) -> Result<()> {
    let (source, images) = open(args, threads)?;
    if images.is_empty() {
        return Err(usage("name the images after the model"));
    }
    if args.output.is_some() && images.len() > 1 {
        return Err(usage("--output names one picture: leave it out for several images"));
    }
    let mut results = vec![];
    for image in images {
        let output = output(args, image)?;
        let photo = decode_file(image)?;
        let seen = source.preprocess().seen(photo.width(), photo.height());
        let maps = source.maps(&photo, args)?;
        let name = image.file_name().unwrap_or(image.as_os_str()).to_string_lossy();
        let picture =
            plot::activation_maps(&format!("{name}: {}", source.method(args)), &photo, seen, &maps)?;
        plot::save(&picture, &output)?;
        if args.json {
            results.push(result(image, &output, &photo, seen, &maps));
            continue;
        }
        say!("{}", output.display())?;
        for map in &maps {
            say!("{:>9}  {}", percent(map.probability), map.label)?;
        }
    }
    if args.json { json(&results) } else { Ok(()) }
}

/// Where the maps come from.
enum Source {
    /// candle runs the network.
    Network(Box<(Network, ModelCard)>),
    /// An engine runs an .onnx file that has the maps among its outputs.
    Engine(Box<Classifier>, usize),
}

fn open(args: &Args, threads: Option<usize>) -> Result<(Source, &[PathBuf])> {
    if let Some(trained) = args.pretrained.open(Said::default())? {
        refuse_engine(args)?;
        return Ok((network(trained), &args.paths));
    }
    let (model, images) = args.paths.split_first().context("no model is named")?;
    if !model.is_file() {
        refuse_engine(args)?;
        return Ok((network(open_trained(model)?), images));
    }
    if args.layer.is_some() {
        return Err(usage(
            "--layer needs the network's gradients: name the run or SavedModel instead of a file",
        ));
    }
    let options = EngineOptions { threads, ..EngineOptions::default() };
    let builder = Classifier::builder().engine(args.engine.unwrap_or_default()).options(options);
    let classifier = builder.open(model)?;
    note!("{}", classifier.selection());
    let Some(output) = classifier.network().output_index(CAM) else {
        bail!(
            "{} has no output `{CAM}`: export it again with --cam, or name the run it came from",
            model.display()
        );
    };
    Ok((Source::Engine(Box::new(classifier), output), images))
}

fn network(trained: Trained) -> Source {
    let Trained { graph, weights, card, .. } = trained;
    Source::Network(Box::new((Network::new(graph, weights), card)))
}

fn refuse_engine(args: &Args) -> Result<()> {
    match args.engine {
        Some(_) => {
            Err(usage("--engine is for .onnx files: candle shows where a run or weights see their classes"))
        }
        None => Ok(()),
    }
}

impl Source {
    fn preprocess(&self) -> &Preprocess {
        match self {
            Self::Network(trained) => &trained.1.preprocess,
            Self::Engine(classifier, _) => classifier.preprocess(),
        }
    }

    fn labels(&self) -> &[String] {
        match self {
            Self::Network(trained) => &trained.1.labels,
            Self::Engine(classifier, _) => classifier.labels(),
        }
    }

    /// What the picture shows.
    fn method(&self, args: &Args) -> String {
        match (self, &args.layer) {
            (_, Some(layer)) => format!("Grad-CAM at {layer}"),
            (Self::Network(trained), None) if tallow_builder::CamHead::of(trained.0.graph()).is_none() => {
                "Grad-CAM".into()
            }
            _ => "class activation maps".into(),
        }
    }

    /// The maps of the classes that were asked for.
    fn maps(&self, photo: &RgbImage, args: &Args) -> Result<Vec<ActivationMap>> {
        match self {
            Self::Engine(classifier, output) => {
                let photo = std::slice::from_ref(photo);
                let outputs = match classifier.network().info().element {
                    Element::Float => classifier.network().run(classifier.prepare(photo)?.view())?,
                    Element::Byte => classifier.network().run(classifier.pixels(photo)?.view())?,
                };
                let scores: Vec<f32> = outputs[classifier.scores_index()].iter().copied().collect();
                let probabilities = match classifier.output() {
                    OutputKind::Probabilities => scores.iter().map(|&score| f64::from(score)).collect(),
                    OutputKind::Logits => softmax(&scores),
                };
                let maps = outputs[*output].index_axis(Axis(0), 0);
                let size = [maps.shape()[1], maps.shape()[2]];
                let map = |class| Ok((size, maps.index_axis(Axis(0), class).iter().copied().collect()));
                self.chosen(args, &probabilities, map)
            }
            Self::Network(trained) => {
                let network = &trained.0;
                let Preprocess { width, height, .. } = *self.preprocess();
                let shape = (1, 3, height as usize, width as usize);
                let images = Tensor::from_vec(self.preprocess().apply(photo)?, shape, &Device::Cpu)?;
                let layer = match &args.layer {
                    Some(name) => Some(find(network, name)?),
                    None => None,
                };
                match (class_activation_maps(network, &images)?, layer) {
                    (Some((logits, maps)), None) => {
                        let probabilities = softmax(&logits.flatten_all()?.to_vec1()?);
                        let (_, _, rows, columns) = maps.dims4()?;
                        let map =
                            |class| Ok(([rows, columns], maps.get(0)?.get(class)?.flatten_all()?.to_vec1()?));
                        self.chosen(args, &probabilities, map)
                    }
                    (_, layer) => {
                        let layer = layer.or_else(|| last_feature_map(network.graph()));
                        let layer = layer.context("the network has no feature map to look at")?;
                        let probabilities = softmax(&network.forward(&images)?.flatten_all()?.to_vec1()?);
                        let map = |class| {
                            let map = grad_cam(network, &images, class, layer)?.squeeze(0)?;
                            let (rows, columns) = map.dims2()?;
                            Ok(([rows, columns], map.flatten_all()?.to_vec1()?))
                        };
                        self.chosen(args, &probabilities, map)
                    }
                }
            }
        }
    }

    /// The classes that were named, or the most probable.
    fn chosen(
        &self,
        args: &Args,
        probabilities: &[f64],
        map: impl Fn(usize) -> Result<([usize; 2], Vec<f32>)>,
    ) -> Result<Vec<ActivationMap>> {
        let labels = self.labels();
        let mut classes: Vec<usize> = (0..probabilities.len()).collect();
        classes.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
        classes.truncate(args.top_k.max(1));
        if !args.class.is_empty() {
            classes = args.class.iter().map(|name| class(labels, name)).collect::<Result<_>>()?;
        }
        let found = classes.into_iter().map(|class| {
            let (size, values) = map(class)?;
            Ok(ActivationMap {
                label: labels[class].clone(),
                probability: probabilities[class],
                size,
                values,
            })
        });
        found.collect()
    }
}

/// A class by its name, or by its number.
fn class(labels: &[String], name: &str) -> Result<usize> {
    let by_name = labels.iter().position(|label| label == name);
    let by_number = || name.parse().ok().filter(|&class: &usize| class < labels.len());
    by_name.or_else(by_number).ok_or_else(|| {
        usage(format!(
            "no class is called `{name}`: name one of the labels, or a number below {}",
            labels.len()
        ))
    })
}

fn find(network: &Network, name: &str) -> Result<NodeId> {
    let found = network.graph().find(name);
    found.ok_or_else(|| {
        usage(format!("{} has no layer `{name}`: `tallow summary` lists them", network.graph().name()))
    })
}

fn output(args: &Args, image: &Path) -> Result<PathBuf> {
    let output = args.output.clone().unwrap_or_else(|| {
        let stem = image.file_stem().unwrap_or(image.as_os_str()).to_string_lossy();
        PathBuf::from(format!("{stem}.cam.png"))
    });
    if output.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("png")) {
        return Err(usage(format!("{}: the picture is a PNG, name it so", output.display())));
    }
    if output.exists() && !args.force {
        bail!("{}: already exists; choose another path, or pass --force to replace it", output.display());
    }
    Ok(output)
}

fn result(
    image: &Path,
    output: &Path,
    photo: &RgbImage,
    [left, top, width, height]: [f64; 4],
    maps: &[ActivationMap],
) -> serde_json::Value {
    let maps = maps.iter().map(|map| {
        let (across, down) = map.peak(photo.width() as usize, photo.height() as usize);
        let peak = [left + across * width, top + down * height];
        json!({ "label": map.label, "probability": map.probability, "peak": peak, "size": map.size })
    });
    let maps: Vec<_> = maps.collect();
    json!({ "image": image.display().to_string(), "picture": output.display().to_string(), "maps": maps })
}
