//! The type most users need: open a model, hand it images, get labels.
//! Preparing images and naming classes follow the model's card, or what the caller says for a foreign model.

use std::path::Path;

use ndarray::{Array2, Array4, ArrayD, ArrayView4, Ix2};
use tallow_input::{
    ModelCard, OutputKind, Preprocess, RgbImage, Views, decode, decode_file, mean_probabilities,
};

use crate::engines::{EngineChoice, EngineOptions};
use crate::error::RuntimeError;
use crate::network::Network;
use crate::onnx::ModelInfo;
use crate::prediction::{Prediction, softmax, top_k};
use crate::select::Selection;

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
        let kind = match (self.output, card.as_ref().map(|card| card.output)) {
            (Some(said), Some(known)) if said != known => {
                return Err(RuntimeError::Output { file: info.file.clone(), said, known });
            }
            (said, known) => said.or(known).unwrap_or_default(),
        };

        if let Some(dims) = &info.input.dims {
            let image = [3, preprocess.height as usize, preprocess.width as usize];
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

/// An image classifier, ready to run; can be shared between threads.
///
/// ```no_run
/// use tallow_runtime::Classifier;
/// let classifier = Classifier::open("model.onnx")?;
/// eprintln!("{}", classifier.selection());
/// for prediction in classifier.classify_file("photo.jpg", 5)? {
///     println!("{:5.1} % {}", 100.0 * prediction.probability, prediction.label);
/// }
/// # Ok::<(), tallow_runtime::RuntimeError>(())
/// ```
#[derive(Debug)]
pub struct Classifier {
    network: Network,
    card: Option<ModelCard>,
    labels: Vec<String>,
    preprocess: Preprocess,
    kind: OutputKind,
    scores: usize,
    batch: usize,
    views: Views,
}

impl Classifier {
    /// Opens a self-describing model with the best engine there is.
    ///
    /// # Errors
    /// As [`ClassifierBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Classifier, RuntimeError> {
        Classifier::builder().open(path)
    }

    /// For a named engine, options, or a model that others made.
    pub fn builder() -> ClassifierBuilder {
        ClassifierBuilder::default()
    }

    /// The k most probable classes of an encoded image (JPEG, PNG, WebP, BMP).
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for a bad image, else as [`Network::run`].
    pub fn classify_bytes(&self, image: &[u8], k: usize) -> Result<Vec<Prediction>, RuntimeError> {
        self.classify_image(&decode(image)?, k)
    }

    /// The k most probable classes of an image file.
    ///
    /// # Errors
    /// As [`classify_bytes`](Self::classify_bytes), naming the file.
    pub fn classify_file(&self, path: impl AsRef<Path>, k: usize) -> Result<Vec<Prediction>, RuntimeError> {
        self.classify_image(&decode_file(path)?, k)
    }

    /// The k most probable classes of an image.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn classify_image(&self, image: &RgbImage, k: usize) -> Result<Vec<Prediction>, RuntimeError> {
        let mut all = self.classify_images(std::slice::from_ref(image), k)?;
        Ok(all.pop().unwrap_or_default())
    }

    /// The k most probable classes of each image, run in batches. Where an image is looked at in several ways, the
    /// probabilities are averaged, and there are no logits.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn classify_images(
        &self,
        images: &[RgbImage],
        k: usize,
    ) -> Result<Vec<Vec<Prediction>>, RuntimeError> {
        if self.views != Views::One {
            return self.classify_views(images, k);
        }
        let mut predictions = Vec::with_capacity(images.len());
        for batch in images.chunks(self.batch) {
            predictions.extend(self.classify_tensor(self.prepare(batch)?.view(), k)?);
        }
        Ok(predictions)
    }

    fn classify_views(&self, images: &[RgbImage], k: usize) -> Result<Vec<Vec<Prediction>>, RuntimeError> {
        let mut predictions = Vec::with_capacity(images.len());
        for images in images.chunks((self.batch / self.views.count()).max(1)) {
            let mut views = vec![];
            for image in images {
                views.extend(self.preprocess.views(image, self.views)?);
            }
            let scores = self.scores(self.normalized(&views)?.view())?;
            let scores: Vec<f32> = scores.into_iter().collect();
            let classes = self.labels.len();
            let means = mean_probabilities(&scores, self.kind, classes, self.views);
            predictions.extend(means.chunks_exact(classes).map(|row| self.predictions(row, None, k)));
        }
        Ok(predictions)
    }

    /// The k most probable classes of each image of a prepared batch `[N, 3, H, W]`.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn classify_tensor(
        &self,
        batch: ArrayView4<'_, f32>,
        k: usize,
    ) -> Result<Vec<Vec<Prediction>>, RuntimeError> {
        let scores = self.scores(batch)?;
        let row = |row: ndarray::ArrayView1<'_, f32>| {
            let raw = row.to_vec();
            let (probabilities, logits) = match self.kind {
                OutputKind::Logits => (softmax(&raw), Some(raw)),
                OutputKind::Probabilities => (raw, None),
            };
            self.predictions(&probabilities, logits.as_deref(), k)
        };
        Ok(scores.rows().into_iter().map(row).collect())
    }

    fn predictions(&self, probabilities: &[f32], logits: Option<&[f32]>, k: usize) -> Vec<Prediction> {
        let prediction = |index: usize| Prediction {
            label: self.labels[index].clone(),
            index,
            probability: probabilities[index],
            logit: logits.map(|logits| logits[index]),
        };
        top_k(probabilities, k).into_iter().map(prediction).collect()
    }

    /// The network's scores `[N, classes]` for a prepared batch, as they come out.
    ///
    /// # Errors
    /// As [`Network::run`]; [`RuntimeError::Model`] if they are not finite numbers, one for each label.
    pub fn scores(&self, batch: ArrayView4<'_, f32>) -> Result<Array2<f32>, RuntimeError> {
        let rows = batch.shape()[0];
        let mut outputs = self.network.run(batch)?;
        let scores: ArrayD<f32> = outputs.swap_remove(self.scores);
        let info = self.network.info();
        let wrong = |reason: String| RuntimeError::Model { file: info.file.clone(), reason };
        let name = &info.outputs[self.scores].name;
        if scores.shape() != [rows, self.labels.len()] {
            let expected = [rows, self.labels.len()];
            let shape = scores.shape();
            return Err(wrong(format!(
                "its output `{name}` has the shape {shape:?}, the labels need {expected:?}"
            )));
        }
        if let Some(value) = scores.iter().find(|value| !value.is_finite()) {
            return Err(wrong(format!(
                "its output `{name}` is not finite ({value}): damaged weights or a bad input"
            )));
        }
        scores.into_dimensionality::<Ix2>().map_err(|e| wrong(e.to_string()))
    }

    /// Images as the network's input `[N, 3, H, W]`.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for an image without pixels.
    pub fn prepare(&self, images: &[RgbImage]) -> Result<Array4<f32>, RuntimeError> {
        let pixels: Result<Vec<RgbImage>, _> =
            images.iter().map(|image| self.preprocess.pixels(image)).collect();
        self.normalized(&pixels?)
    }

    /// Images of the network's size as its input.
    fn normalized(&self, images: &[RgbImage]) -> Result<Array4<f32>, RuntimeError> {
        let Preprocess { width, height, .. } = self.preprocess;
        let normalizer = self.preprocess.normalizer();
        let mut values = vec![0.0; images.len() * self.preprocess.len()];
        for (image, out) in images.iter().zip(values.chunks_exact_mut(self.preprocess.len())) {
            normalizer.fill_chw(image, out)?;
        }
        Array4::from_shape_vec((images.len(), 3, height as usize, width as usize), values).map_err(|e| {
            RuntimeError::Model { file: self.network.info().file.clone(), reason: e.to_string() }
        })
    }

    /// The network behind it, for other outputs than the scores.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Which engine runs it, and why.
    pub fn selection(&self) -> &Selection {
        self.network.selection()
    }

    /// What the model's scores are.
    pub fn output(&self) -> OutputKind {
        self.kind
    }

    /// The model's card; `None` for a model that others made.
    pub fn card(&self) -> Option<&ModelCard> {
        self.card.as_ref()
    }

    /// The class names in use.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How images are looked at.
    pub fn views(&self) -> Views {
        self.views
    }

    /// The preprocessing in use.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }
}
