//! Which features of an example are what: the image, its label, and what the class and the file are called.
//! Names: tensorflow/tpu's `imagenet_to_gcs.py`, Inception's `build_imagenet_data.py`, tensorflow_datasets.

use std::path::Path;

use serde::Deserialize;
use tallow_tensorflow::example::Example;

use crate::error::{Error, Result};

/// Names of the features that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The encoded image.
    pub image: String,
    /// The class as a number.
    pub label: String,
    /// Names of the class, the best first.
    pub names: Vec<String>,
    /// The file that the image was.
    pub file: String,
    /// The number that the first class has by custom.
    pub first_label: u32,
}

impl Fields {
    /// Those of `imagenet_to_gcs.py` and `build_imagenet_data.py`, whose labels start at 1.
    pub fn imagenet() -> Self {
        Self {
            image: "image/encoded".into(),
            label: "image/class/label".into(),
            // A synset names one class; a text is for people and may name several.
            names: vec!["image/class/synset".into(), "image/class/text".into()],
            file: "image/filename".into(),
            first_label: 1,
        }
    }

    /// Those of tensorflow_datasets, whose labels start at 0.
    pub fn tfds(image: &str, label: &str) -> Self {
        let file = "file_name".into();
        Self { image: image.into(), label: label.into(), names: vec![], file, first_label: 0 }
    }

    /// Those that an example has, if it is a labelled image.
    pub fn of(example: &Example<'_>) -> Option<Self> {
        [Self::imagenet(), Self::tfds("image", "label")]
            .into_iter()
            .find(|fields| example.bytes(&fields.image).is_some() && example.int(&fields.label).is_some())
    }

    /// Those that the `features.json` of a tensorflow_datasets folder names, and how many classes there are; `None`
    /// without such a file.
    ///
    /// # Errors
    /// Where the file is damaged, or its examples are no labelled images.
    pub fn from_tfds(folder: &Path) -> Result<Option<(Self, usize)>> {
        let path = folder.join("features.json");
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let unusable = |problem: String| Error::Shards { path: path.clone(), problem };
        let root: Root = serde_json::from_str(&text).map_err(|error| unusable(error.to_string()))?;
        let features = root.features_dict.features;
        let image = features.iter().find(|(_, feature)| feature.is("Image"));
        let label = features.iter().find(|(_, feature)| feature.class_label.is_some());
        let (Some((image, _)), Some((label, feature))) = (image, label) else {
            return Err(unusable("it names no Image and ClassLabel: only labelled images are read".into()));
        };
        let classes = feature.class_label.as_ref().and_then(|label| label.num_classes.parse().ok());
        let Some(classes) = classes else {
            return Err(unusable(format!("it does not say how many classes `{label}` has")));
        };
        Ok(Some((Self::tfds(image, label), classes)))
    }

    /// The label's file beside the shards of tensorflow_datasets.
    pub fn labels_file(&self) -> String {
        format!("{}.labels.txt", self.label)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    features_dict: FeaturesDict,
}

#[derive(Deserialize)]
struct FeaturesDict {
    features: std::collections::BTreeMap<String, FeatureJson>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeatureJson {
    python_class_name: String,
    class_label: Option<ClassLabel>,
}

impl FeatureJson {
    fn is(&self, class: &str) -> bool {
        self.python_class_name.rsplit('.').next() == Some(class)
    }
}

/// Numbers of 64 bits are strings in the JSON form of protocol buffers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClassLabel {
    num_classes: String,
}
