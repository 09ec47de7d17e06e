//! `dataset_info.json` of tensorflow_datasets: what a data set is called, and how many records each shard has.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The file's name.
pub const INFO_FILE: &str = "dataset_info.json";

/// What is read of the file.
#[derive(Deserialize)]
pub struct DatasetInfo {
    /// The data set's name.
    pub name: Option<String>,
    #[serde(default)]
    splits: Vec<Split>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Split {
    #[serde(default)]
    name: String,
    #[serde(default)]
    shard_lengths: Vec<Number>,
}

/// Numbers of 64 bits are strings in the JSON form of protocol buffers; not every writer knows.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Text(String),
    Plain(usize),
}

impl Number {
    fn value(&self) -> Option<usize> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Plain(value) => Some(*value),
        }
    }
}

impl DatasetInfo {
    /// Reads the file in `folder`; `None` if there is none.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(INFO_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let damaged = |error: serde_json::Error| Error::Shards {
            path: path.clone(),
            problem: format!("damaged: {error}: take another copy of it, or remove it"),
        };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// The splits that are told of, with the records of each shard as far as they are told.
    pub fn splits(&self) -> impl Iterator<Item = (&str, Vec<Option<usize>>)> {
        let told = self.splits.iter().filter(|split| !split.shard_lengths.is_empty());
        told.map(|split| (split.name.as_str(), split.shard_lengths.iter().map(Number::value).collect()))
    }
}
