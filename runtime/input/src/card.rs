//! The model card: what an `.onnx` file says about itself in its `metadata_props`.
//! The exporter writes it, the runtime reads it; both see string pairs, so no ONNX library is needed here.
//! Keys start with `tallow.`; keys that this version does not know are kept as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::InputError;
use crate::preprocess::Preprocess;

/// The prefix of every key.
pub const CARD_PREFIX: &str = "tallow.";

/// The key of the certificate of parity. It is no part of the card: files without one can have it, too.
pub const CERTIFICATE_KEY: &str = "tallow.parity";

/// The newest card format that this version writes and reads.
pub const CARD_FORMAT: u32 = 1;

/// What the network's first output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// Scores before softmax.
    #[default]
    Logits,
    /// Softmax is part of the graph.
    Probabilities,
}

/// What a network computes in. Its inputs and outputs are float32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats (IEEE binary16): weights and layers.
    F16,
}

/// Everything a runtime needs to serve a classifier, and where it came from.
///
/// ```
/// use tallow_input::{ModelCard, Preprocess};
/// let card = ModelCard::new("resnet18", vec!["cat".into(), "dog".into()], Preprocess::imagenet(224, 224));
/// let props = card.to_props();
/// assert_eq!(ModelCard::from_props(props)?, Some(card));
/// assert_eq!(ModelCard::from_props([("author".to_string(), "torch".to_string())])?, None);
/// # Ok::<(), tallow_input::InputError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCard {
    /// The network's name in the zoo, for example `resnet18`.
    pub architecture: String,
    /// The class names, in the order of the network's outputs.
    pub labels: Vec<String>,
    /// How an image becomes the network's input.
    pub preprocess: Preprocess,
    /// What the output holds.
    pub output: OutputKind,
    /// What the network computes in; files of versions that wrote no such entry compute in float32.
    pub dtype: Dtype,
    /// What wrote the file, for example `tallow 0.1.0`.
    pub producer: Option<String>,
    /// The data set it was trained on.
    pub dataset: Option<String>,
    /// Measured quality by name, for example `top1` -> 0.98. A number that is not finite is written as null.
    pub metrics: BTreeMap<String, f64>,
    /// `tallow.` entries that this version does not know, by full key.
    pub extra: BTreeMap<String, String>,
}

impl ModelCard {
    /// A card with what serving needs; the rest can be filled in through its fields.
    pub fn new(architecture: impl Into<String>, labels: Vec<String>, preprocess: Preprocess) -> ModelCard {
        ModelCard {
            architecture: architecture.into(),
            labels,
            preprocess,
            output: OutputKind::Logits,
            dtype: Dtype::F32,
            producer: None,
            dataset: None,
            metrics: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The entries for `metadata_props`, sorted by key: the same card gives the same pairs.
    pub fn to_props(&self) -> Vec<(String, String)> {
        let mut props = self.extra.clone();
        let mut put = |name: &str, value: String| props.insert(format!("{CARD_PREFIX}{name}"), value);
        put("format", CARD_FORMAT.to_string());
        put("architecture", self.architecture.clone());
        put("labels", json(&self.labels));
        put("preprocess", json(&self.preprocess));
        put("output", json(&self.output).trim_matches('"').to_owned());
        put("dtype", json(&self.dtype).trim_matches('"').to_owned());
        if let Some(producer) = &self.producer {
            put("producer", producer.clone());
        }
        if let Some(dataset) = &self.dataset {
            put("dataset", dataset.clone());
        }
        if !self.metrics.is_empty() {
            put("metrics", json(&self.metrics));
        }
        props.into_iter().collect()
    }

    /// Reads a card from a model's `metadata_props`; `None` if no key starts with `tallow.`, but for the certificate's.
    ///
    /// # Errors
    /// [`InputError::Metadata`] names the key that is missing, malformed, or of a format newer than
    /// [`CARD_FORMAT`].
    pub fn from_props(
        props: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Option<ModelCard>, InputError> {
        let mut props: BTreeMap<String, String> = props
            .into_iter()
            .filter(|(key, _)| key.starts_with(CARD_PREFIX) && key != CERTIFICATE_KEY)
            .collect();
        if props.is_empty() {
            return Ok(None);
        }
        let mut take = |name: &str| props.remove(&format!("{CARD_PREFIX}{name}"));
        let format: u32 = parse("format", &required("format", take("format"))?)?;
        if format > CARD_FORMAT {
            let reason =
                format!("is {format}, newer than the {CARD_FORMAT} this version reads: update tallow");
            return Err(wrong("format", reason));
        }
        let preprocess: Preprocess = parse("preprocess", &required("preprocess", take("preprocess"))?)?;
        preprocess.validate().map_err(|e| wrong("preprocess", e.to_string()))?;
        let metrics: BTreeMap<String, Option<f64>> = match take("metrics") {
            Some(text) => parse("metrics", &text)?,
            None => BTreeMap::new(),
        };
        let output = match take("output") {
            Some(text) => parse("output", &json(&text))?,
            None => OutputKind::Logits,
        };
        let dtype = match take("dtype") {
            Some(text) => parse("dtype", &json(&text))?,
            None => Dtype::F32,
        };
        Ok(Some(ModelCard {
            architecture: required("architecture", take("architecture"))?,
            labels: parse("labels", &required("labels", take("labels"))?)?,
            preprocess,
            output,
            dtype,
            producer: take("producer"),
            dataset: take("dataset"),
            metrics: metrics.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect(),
            extra: props,
        }))
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers and string-keyed maps are always representable")
}

fn required(name: &str, value: Option<String>) -> Result<String, InputError> {
    value.ok_or_else(|| wrong(name, "is missing: export the model again".into()))
}

fn parse<T: for<'a> Deserialize<'a>>(name: &str, text: &str) -> Result<T, InputError> {
    serde_json::from_str(text).map_err(|e| wrong(name, format!("cannot be read: {e}")))
}

fn wrong(name: &str, reason: String) -> InputError {
    InputError::Metadata { key: format!("{CARD_PREFIX}{name}"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> ModelCard {
        ModelCard {
            output: OutputKind::Probabilities,
            dtype: Dtype::F16,
            producer: Some("tallow 0.1.0".into()),
            dataset: Some("digits".into()),
            metrics: [("top1".to_string(), 0.984375), ("loss".to_string(), 0.0625)].into(),
            extra: [("tallow.later".to_string(), "{\"ort\":1e-6}".to_string())].into(),
            ..ModelCard::new(
                "resnet18",
                vec!["Ä \"quoted\"".into(), "猫".into()],
                Preprocess::imagenet(32, 48),
            )
        }
    }

    #[test]
    fn a_card_survives_the_trip_and_its_entries_are_sorted() {
        let props = card().to_props();
        assert!(props.is_sorted());
        assert_eq!(props, card().to_props());
        let foreign = [("author".to_string(), "someone".to_string())];
        let read = ModelCard::from_props(foreign.into_iter().chain(props)).unwrap().unwrap();
        assert_eq!(read, card());
    }

    #[test]
    fn a_certificate_is_no_card() {
        let certificate = (CERTIFICATE_KEY.to_string(), "{}".to_string());
        assert_eq!(ModelCard::from_props([certificate.clone()]).unwrap(), None);
        let read = ModelCard::from_props(card().to_props().into_iter().chain([certificate])).unwrap();
        assert_eq!(read, Some(card()));
    }

    #[test]
    fn a_metric_that_is_not_finite_survives_as_nan() {
        let nan = ModelCard { metrics: [("loss".to_string(), f64::INFINITY)].into(), ..card() };
        let read = ModelCard::from_props(nan.to_props()).unwrap().unwrap();
        assert!(read.metrics["loss"].is_nan());
    }

    #[test]
    fn each_malformed_or_missing_entry_is_named() {
        for (key, value) in [
            ("tallow.format", "one"),
            ("tallow.format", "99"),
            ("tallow.labels", "[\"cat\""),
            ("tallow.labels", "{}"),
            ("tallow.preprocess", "{\"width\":3}"),
            ("tallow.preprocess", "{\"width\":0,\"height\":1,\"mean\":[0,0,0],\"std\":[1,1,1]}"),
            ("tallow.metrics", "[1]"),
            ("tallow.output", "scores"),
            ("tallow.dtype", "int4"),
        ] {
            let props =
                card().to_props().into_iter().map(|(k, v)| if k == key { (k, value.into()) } else { (k, v) });
            let text = ModelCard::from_props(props).unwrap_err().to_string();
            assert!(text.starts_with(&format!("metadata {key}: ")), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        for key in ["tallow.format", "tallow.labels", "tallow.preprocess", "tallow.architecture"] {
            let props = card().to_props().into_iter().filter(|(k, _)| k != key);
            let text = ModelCard::from_props(props).unwrap_err().to_string();
            assert_eq!(text, format!("metadata {key}: is missing: export the model again"));
        }
    }
}
