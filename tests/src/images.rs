//! The images that engines are compared on, in the form that a file takes: floats, or bytes that it normalises itself.

use ndarray::Array4;
use tallow_input::{ModelCard, Preprocess};
use tallow_runtime::{Dim, Element, ModelInfo};

use crate::error::Error;
use crate::outputs::random_images;

/// A batch of images.
pub(crate) struct Images {
    /// Normalised, `[N, C, H, W]`.
    pub(crate) floats: Array4<f32>,
    /// What these are made of, `[N, H, W, C]`, where the file takes bytes.
    pub(crate) pixels: Option<Array4<u8>>,
}

impl Images {
    /// Random batches for a file.
    pub(crate) fn random(info: &ModelInfo, seed: u64, batches: &[usize], sample: [usize; 3]) -> Vec<Self> {
        let card = ModelCard::from_props(info.props.iter().cloned()).ok().flatten();
        let preprocess = card.map_or_else(|| Preprocess::imagenet(1, 1), |card| card.preprocess);
        let images = random_images(seed, batches, sample).into_iter();
        match info.element {
            Element::Float => images.map(|floats| Self { floats, pixels: None }).collect(),
            Element::Byte => images.map(|floats| Self::of_bytes(&floats, &preprocess)).collect(),
        }
    }

    /// The bytes nearest to the images, and the floats that are exactly these bytes.
    fn of_bytes(images: &Array4<f32>, preprocess: &Preprocess) -> Self {
        let Preprocess { mean, std, .. } = preprocess;
        let of = |values: &[f32; 3], channel: usize| f64::from(values[channel % 3]);
        let (n, channels, rows, columns) = images.dim();
        let pixels = Array4::from_shape_fn((n, rows, columns, channels), |(i, y, x, c)| {
            let value = f64::from(images[[i, c, y, x]]) * of(std, c) + of(mean, c);
            (255.0 * value).round().clamp(0.0, 255.0) as u8
        });
        let floats = Array4::from_shape_fn(images.dim(), |(i, c, y, x)| {
            ((f64::from(pixels[[i, y, x, c]]) / 255.0 - of(mean, c)) / of(std, c)) as f32
        });
        Self { floats, pixels: Some(pixels) }
    }
}

/// Channels, rows and columns of the images that a file takes; three channels where it does not say. `said` is for
/// axes that it leaves free.
pub(crate) fn sample_shape(info: &ModelInfo, said: Option<[usize; 2]>) -> Result<[usize; 3], Error> {
    let [channels, rows, columns] = match info.element {
        Element::Float => [1, 2, 3],
        Element::Byte => [3, 1, 2],
    };
    let dims = info.input.dims.as_deref();
    let fixed = |axis: usize| dims.and_then(|dims| dims.get(axis)).and_then(Dim::fixed);
    let (file, input, shape) = (info.file.clone(), info.input.name.clone(), info.input.shape_text());
    let sides = [rows, columns].map(fixed);
    let contradicts = |(fixed, said): (&Option<usize>, &usize)| fixed.is_some_and(|fixed| fixed != *said);
    if said.is_some_and(|said| sides.iter().zip(&said).any(contradicts)) {
        return Err(Error::OtherSize { file, input, shape });
    }
    let side = |axis: usize| sides[axis].or(said.map(|said| said[axis])).filter(|&length| length > 0);
    match (side(0), side(1)) {
        (Some(rows), Some(columns)) => Ok([fixed(channels).unwrap_or(3), rows, columns]),
        _ => Err(Error::FreeSize { file, input, shape }),
    }
}
