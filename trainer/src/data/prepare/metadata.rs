//! The files beside the shards: the classes' names, and for tensorflow_datasets what its `builder_from_directory`
//! reads.

use std::path::Path;

use serde_json::{Value, json};
use tallow_builder::files::write_atomically;

use super::Schema;
use super::journal::Done;
use crate::data::tfrecord::{Fields, INFO_FILE, LABELS_FILE};
use crate::error::Result;

/// The version of `imagenet2012` in tensorflow_datasets whose shards these are like.
const VERSION: &str = "5.1.0";

/// All names of files that are written beside shards.
pub const FILES: [&str; 4] = [LABELS_FILE, "label.labels.txt", "features.json", INFO_FILE];

/// A part and its shards.
pub type PartDone<'a> = (&'a str, Vec<&'a Done>);

/// Writes the files that `schema` has beside its shards.
///
/// # Errors
/// Where they cannot be written.
pub fn write(
    folder: &Path,
    schema: Schema,
    name: &str,
    classes: &[String],
    parts: &[PartDone<'_>],
) -> Result<()> {
    let names = classes.join("\n") + "\n";
    let text = |file: &str, text: &str| write_atomically(&folder.join(file), text.as_bytes());
    if schema != Schema::Tfds {
        return Ok(text(LABELS_FILE, &names)?);
    }
    let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON is plain data") + "\n";
    text(&Fields::tfds("image", "label").labels_file(), &names)?;
    text("features.json", &pretty(&features(classes.len())))?;
    text(INFO_FILE, &pretty(&info(name, parts)))?;
    Ok(())
}

fn features(classes: usize) -> Value {
    let feature = |class: &str| format!("tensorflow_datasets.core.features.{class}");
    json!({
        "pythonClassName": feature("features_dict.FeaturesDict"),
        "featuresDict": { "features": {
            "file_name": { "pythonClassName": feature("text_feature.Text"), "text": {} },
            "image": {
                "pythonClassName": feature("image_feature.Image"),
                "image": {
                    "shape": { "dimensions": ["-1", "-1", "3"] },
                    "dtype": "uint8",
                    "encodingFormat": "jpeg",
                },
            },
            "label": {
                "pythonClassName": feature("class_label_feature.ClassLabel"),
                "classLabel": { "numClasses": classes.to_string() },
            },
        }},
    })
}

/// Numbers of 64 bits are strings in the JSON form of protocol buffers.
fn info(name: &str, parts: &[PartDone<'_>]) -> Value {
    let split = |(part, shards): &PartDone<'_>| {
        json!({
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": part,
            "numBytes": shards.iter().map(|shard| shard.bytes).sum::<u64>().to_string(),
            "shardLengths": shards.iter().map(|shard| shard.images.to_string()).collect::<Vec<_>>(),
        })
    };
    json!({
        "fileFormat": "tfrecord",
        "name": name,
        "splits": parts.iter().map(split).collect::<Vec<_>>(),
        "version": VERSION,
    })
}
