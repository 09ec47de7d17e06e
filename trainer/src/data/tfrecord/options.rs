//! How TFRecord shards are read, as the settings say it and as a run keeps it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::order::Mixing;
use crate::error::{Error, Result};

/// How TFRecord shards are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordOptions {
    /// The label of the first class; by default 1 for `image/class/label` and 0 for tensorflow_datasets. 0 where
    /// labels start at 1 makes label 0 a background class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_offset: Option<u32>,
    /// A file of class names, one a line, the first for the label `label_offset`; by default what lies beside the
    /// shards, or what the records say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Shards that are read in turn.
    pub cycle: usize,
    /// Records among which the next one is drawn.
    pub buffer: usize,
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self { label_offset: None, labels: None, cycle: 16, buffer: 4096 }
    }
}

impl RecordOptions {
    /// Refuses impossible numbers.
    ///
    /// # Errors
    /// [`Error::Setting`] with the number's name.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [("records.cycle", self.cycle), ("records.buffer", self.buffer)] {
            if value == 0 {
                return Err(Error::Setting { name, value: "0".into(), remedy: "choose at least 1" });
            }
        }
        if let Some(offset) = self.label_offset.filter(|&offset| offset > 1) {
            let remedy = "labels start at 0 or at 1";
            return Err(Error::Setting { name: "label_offset", value: offset.to_string(), remedy });
        }
        Ok(())
    }

    pub(crate) fn mixing(&self) -> Mixing {
        Mixing { cycle: self.cycle, buffer: self.buffer }
    }
}
