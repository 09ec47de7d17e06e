//! The type most users need: open a model, hand it images, get labels.
//! Preparing images and naming classes follow the model's card, or what the caller says for a foreign model.

mod builder;

use std::path::Path;

use ndarray::{Array2, Array4, ArrayD, Ix2};
use tallow_input::{
    InputError, ModelCard, OutputKind, Preprocess, RgbImage, Views, decode, decode_file, mean_probabilities,
};

use crate::batch::{Batch, Element};
use crate::error::RuntimeError;
use crate::network::Network;
use crate::prediction::{Prediction, softmax, top_k};
use crate::select::Selection;

pub use builder::ClassifierBuilder;

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
        let path = path.as_ref();
        self.classify_image(&decode_file(path)?, k).map_err(|error| match error {
            RuntimeError::Input(source) => {
                InputError::Pixels { file: path.to_owned(), source: Box::new(source) }.into()
            }
            other => other,
        })
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
            predictions.extend(self.ranked(&self.scores_of(&self.sized(batch)?)?, k));
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
            let scores: Vec<f32> = self.scores_of(&views)?.into_iter().collect();
            let classes = self.labels.len();
            let means = mean_probabilities(&scores, self.kind, classes, self.views);
            predictions.extend(means.chunks_exact(classes).map(|row| self.predictions(row, None, k)));
        }
        Ok(predictions)
    }

    /// The k most probable classes of each image of a prepared batch: `[N, 3, H, W]` floats as [`prepare`](Self::prepare)
    /// makes them, or `[N, H, W, 3]` bytes for a graph that normalises them itself.
    ///
    /// # Errors
    /// As [`Network::run`].
    pub fn classify_tensor<'a>(
        &self,
        batch: impl Into<Batch<'a>>,
        k: usize,
    ) -> Result<Vec<Vec<Prediction>>, RuntimeError> {
        Ok(self.ranked(&self.scores(batch)?, k))
    }

    /// The k most probable classes of each row of scores.
    fn ranked(&self, scores: &Array2<f32>, k: usize) -> Vec<Vec<Prediction>> {
        let row = |row: ndarray::ArrayView1<'_, f32>| {
            let raw = row.to_vec();
            let (probabilities, logits) = match self.kind {
                OutputKind::Logits => (softmax(&raw), Some(raw)),
                OutputKind::Probabilities => (raw, None),
            };
            self.predictions(&probabilities, logits.as_deref(), k)
        };
        scores.rows().into_iter().map(row).collect()
    }

    /// The scores of images of the network's size, as its graph takes them.
    fn scores_of(&self, images: &[RgbImage]) -> Result<Array2<f32>, RuntimeError> {
        match self.network.info().element {
            Element::Float => self.scores(self.normalized(images)?.view()),
            Element::Byte => self.scores(self.stacked(images)?.view()),
        }
    }

    /// Images resized and cropped to the network's size.
    fn sized(&self, images: &[RgbImage]) -> Result<Vec<RgbImage>, RuntimeError> {
        Ok(images.iter().map(|image| self.preprocess.pixels(image)).collect::<Result<_, _>>()?)
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
    pub fn scores<'a>(&self, batch: impl Into<Batch<'a>>) -> Result<Array2<f32>, RuntimeError> {
        let batch = batch.into();
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

    /// Images as the network's input `[N, 3, H, W]`, normalised.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for an image without pixels.
    pub fn prepare(&self, images: &[RgbImage]) -> Result<Array4<f32>, RuntimeError> {
        self.normalized(&self.sized(images)?)
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

    /// The index of the scores among the network's outputs.
    pub fn scores_index(&self) -> usize {
        self.scores
    }

    /// Images at the network's size `[N, H, W, 3]`, for a graph that normalises them itself.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] for an image without pixels.
    pub fn pixels(&self, images: &[RgbImage]) -> Result<Array4<u8>, RuntimeError> {
        self.stacked(&self.sized(images)?)
    }

    /// Images of the network's size, one after another.
    fn stacked(&self, images: &[RgbImage]) -> Result<Array4<u8>, RuntimeError> {
        let Preprocess { width, height, .. } = self.preprocess;
        let values: Vec<u8> = images.iter().flat_map(|image| image.as_raw()).copied().collect();
        Array4::from_shape_vec((images.len(), height as usize, width as usize, 3), values).map_err(|e| {
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
