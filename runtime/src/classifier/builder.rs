//! Opening a classifier: an engine is chosen, and what a file says of itself is completed by what the caller says.

use std::path::Path;

use tallow_input::{ModelCard, OutputKind, Preprocess, Views};

use super::Classifier;
use crate::batch::Element;
use crate::engines::gpu::GpuOptions;
use crate::engines::{EngineChoice, EngineOptions};
use crate::error::RuntimeError;
use crate::network::Network;
use crate::onnx::ModelInfo;

/// How to open a classifier: engine, options, and what a model does not say about itself.
#[derive(Debug, Clone)]
pub struct ClassifierBuilder {
    engine: EngineChoice,
    options: EngineOptions,
    batch: usize,
    labels: Option<Vec<String>>,
    preprocess: Option<Preprocess>,
    size: Option<(u32, u32)>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    output: Option<OutputKind>,
    views: Views,
}

impl Default for ClassifierBuilder {
    fn default() -> ClassifierBuilder {
        ClassifierBuilder {
            engine: EngineChoice::Auto,
            options: EngineOptions::default(),
            batch: 16,
            labels: None,
            preprocess: None,
            size: None,
            mean: None,
            std: None,
            output: None,
            views: Views::One,
        }
    }
}

impl ClassifierBuilder {
    /// Which engine to take (default: auto).
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// How the engine is set up.
    pub fn options(mut self, options: EngineOptions) -> Self {
        self.options = options;
        self
    }

    /// What an engine on a GPU is told, in place of [`EngineOptions::gpu`].
    pub fn gpu(mut self, gpu: GpuOptions) -> Self {
        self.options.gpu = gpu;
        self
    }

    /// The most images to run at once (default: 16); more are run one batch after another.
    pub fn batch(mut self, images: usize) -> Self {
        self.batch = images.max(1);
        self
    }

    /// Class names, in place of those in the file.
    pub fn labels(mut self, labels: Vec<String>) -> Self {
        self.labels = Some(labels);
        self
    }

    /// Preprocessing as a whole, in place of that in the file. [`size`](Self::size), [`mean`](Self::mean) and
    /// [`std`](Self::std) change one thing of it.
    pub fn preprocess(mut self, preprocess: Preprocess) -> Self {
        self.preprocess = Some(preprocess);
        self
    }

    /// Columns and rows of the input. The rest stays as the file says; where it says nothing, ImageNet's habits hold.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = Some((width, height));
        self
    }

    /// Mean of R, G, B on a scale of 0 to 1, in place of the file's.
    pub fn mean(mut self, mean: [f32; 3]) -> Self {
        self.mean = Some(mean);
        self
    }

    /// Standard deviation of R, G, B on a scale of 0 to 1, in place of the file's.
    pub fn std(mut self, std: [f32; 3]) -> Self {
        self.std = Some(std);
        self
    }

    /// What the network's output holds, where the file does not say.
    pub fn output(mut self, output: OutputKind) -> Self {
        self.output = Some(output);
        self
    }

    /// How each image is looked at (default: once); the probabilities of its views are averaged.
    pub fn views(mut self, views: Views) -> Self {
        self.views = views;
        self
    }

    /// Opens a model file.
    ///
    /// # Errors
    /// Those of [`Network::open`]; [`RuntimeError::Card`] for metadata that cannot be read; [`RuntimeError::Model`]
    /// where neither file nor builder gives labels and preprocessing, or where they do not fit the graph;
    /// [`RuntimeError::Output`] where the output is said to be another than the file says.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Classifier, RuntimeError> {
        let network = Network::open(path, self.engine, &self.options)?;
        self.finish(network)
    }

    /// Opens a model held in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(self, bytes: Vec<u8>) -> Result<Classifier, RuntimeError> {
        let network = Network::from_bytes(bytes, self.engine, &self.options)?;
        self.finish(network)
    }

    fn finish(self, network: Network) -> Result<Classifier, RuntimeError> {
        let info = network.info();
        let wrong = |reason: String| RuntimeError::Model { file: info.file.clone(), reason };
        let card = ModelCard::from_props(info.props.iter().cloned())
            .map_err(|source| RuntimeError::Card { file: info.file.clone(), source })?;
        let missing = |what: &str| {
            wrong(format!(
                "it has no tallow metadata, so the {what} must be given (on the command line: --labels FILE, --size PIXELS)"
            ))
        };
        let labels = self.labels.or_else(|| card.as_ref().map(|card| card.labels.clone()));
        let labels = labels.ok_or_else(|| missing("labels"))?;
        let known = self.preprocess.or_else(|| card.as_ref().map(|card| card.preprocess));
        let base = known.or_else(|| self.size.map(|(width, height)| Preprocess::imagenet(width, height)));
        let base = base.ok_or_else(|| missing("input size"))?;
        let (width, height) = self.size.unwrap_or((base.width, base.height));
        let preprocess = Preprocess {
            width,
            height,
            mean: self.mean.unwrap_or(base.mean),
            std: self.std.unwrap_or(base.std),
            ..base
        };
        preprocess.validate()?;
        if info.element == Element::Byte && (self.mean.is_some() || self.std.is_some()) {
            return Err(wrong(
                "its graph normalises the images itself: leave the mean and the deviation out".into(),
            ));
        }
        let kind = match (self.output, card.as_ref().map(|card| card.output)) {
            (Some(said), Some(known)) if said != known => {
                return Err(RuntimeError::Output { file: info.file.clone(), said, known });
            }
            (said, known) => said.or(known).unwrap_or_default(),
        };

        if let Some(dims) = &info.input.dims {
            let (rows, columns) = (preprocess.height as usize, preprocess.width as usize);
            let image = match info.element {
                Element::Float => [3, rows, columns],
                Element::Byte => [rows, columns, 3],
            };
            if dims[1..]
                .iter()
                .zip(image)
                .any(|(dim, length)| dim.fixed().is_some_and(|fixed| fixed != length))
            {
                let shape = info.input.shape_text();
                return Err(wrong(format!(
                    "its input is {shape}, but the preprocessing makes images of {image:?}"
                )));
            }
        }
        let scores = scores_output(info);
        if let Some([_, classes]) = info.outputs[scores].dims.as_deref()
            && let Some(classes) = classes.fixed()
            && classes != labels.len()
        {
            let name = &info.outputs[scores].name;
            return Err(wrong(format!(
                "its output `{name}` has {classes} classes, but there are {} labels",
                labels.len()
            )));
        }
        let (batch, views) = (self.batch, self.views);
        Ok(Classifier { network, card, labels, preprocess, kind, scores, batch, views })
    }
}

/// The output with the scores: by name where it has the usual one, else the first.
fn scores_output(info: &ModelInfo) -> usize {
    let usual = |name: &str| matches!(name, "logits" | "probabilities");
    info.outputs.iter().position(|output| usual(&output.name)).unwrap_or(0)
}
