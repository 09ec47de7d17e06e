//! What an image's example holds, as the three usual writers have it.
//! Keys: tensorflow/tpu `imagenet_to_gcs.py`; tensorflow/models `build_imagenet_data.py`; tensorflow_datasets
//! `imagenet2012`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tallow_tensorflow::example::{Example, Feature};

use super::facts::Facts;

/// Whose keys, labels and file names are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schema {
    /// `imagenet_to_gcs.py`: labels from 1.
    #[default]
    Imagenet,
    /// `build_imagenet_data.py`: also texts and bounding boxes; labels from 1.
    Inception,
    /// tensorflow_datasets: image, label and file name alone; labels from 0.
    Tfds,
}

impl Schema {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Imagenet, Self::Inception, Self::Tfds];

    /// The label of the first class by custom.
    pub fn first_label(self) -> u32 {
        if self == Self::Tfds { 0 } else { 1 }
    }

    /// What the shards of a split are called, without their numbers.
    pub fn prefix(self, name: &str, split: &str) -> String {
        match self {
            Self::Imagenet | Self::Inception => split.into(),
            Self::Tfds => format!("{name}-{split}.tfrecord"),
        }
    }

    /// A serialised example.
    pub fn example(self, image: &[u8], facts: &Facts<'_>) -> Vec<u8> {
        let label = i64::from(facts.label);
        if self == Self::Tfds {
            let features = [
                ("file_name", Feature::bytes(facts.file)),
                ("image", Feature::bytes(image)),
                ("label", Feature::int(label)),
            ];
            return Example::from_iter(features).encode();
        }
        let mut example = Example::from_iter([
            ("image/height", Feature::int(facts.height.into())),
            ("image/width", Feature::int(facts.width.into())),
            ("image/colorspace", Feature::bytes("RGB")),
            ("image/channels", Feature::int(3)),
            ("image/class/label", Feature::int(label)),
            ("image/class/synset", Feature::bytes(facts.synset)),
            ("image/format", Feature::bytes("JPEG")),
            ("image/filename", Feature::bytes(facts.file)),
            ("image/encoded", Feature::bytes(image)),
        ]);
        if self == Self::Inception {
            let side = |i: usize| Feature::Floats(facts.boxes.iter().map(|corners| corners[i]).collect());
            example.features.extend([
                ("image/class/text", Feature::bytes(facts.text)),
                ("image/object/bbox/xmin", side(0)),
                ("image/object/bbox/ymin", side(1)),
                ("image/object/bbox/xmax", side(2)),
                ("image/object/bbox/ymax", side(3)),
                ("image/object/bbox/label", Feature::Ints(vec![label; facts.boxes.len()])),
            ]);
        }
        example.encode()
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imagenet => "imagenet",
            Self::Inception => "inception",
            Self::Tfds => "tfds",
        })
    }
}

impl FromStr for Schema {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|schema| schema.to_string() == text);
        found.ok_or_else(|| "choose imagenet, inception or tfds".into())
    }
}
