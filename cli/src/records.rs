//! The flags that say what the labels of TFRecord shards mean.

use std::path::PathBuf;

use tallow_trainer::data::RecordOptions;

const HEADING: &str = "TFRecord shards";

/// Flags for shards whose own files do not say it all.
#[derive(Clone, Default, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    offset: Offset,
    /// A text file with one class name a line [default: what lies beside the shards, or what the records say]
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    labels: Option<PathBuf>,
}

/// The flag for the first label alone.
#[derive(Clone, Copy, Default, PartialEq, clap::Args)]
pub struct Offset {
    /// The label of the first class, 0 or 1; 0 makes label 0 a background class where labels start at 1
    /// [default: what the files beside the shards say, else what the evaluated run took, else 1 for image/class/label
    /// and 0 for tensorflow_datasets]
    #[arg(help_heading = HEADING, long, value_name = "LABEL")]
    label_offset: Option<u32>,
}

impl Args {
    /// What was said, on top of `options`.
    pub fn apply(&self, options: Option<RecordOptions>) -> Option<RecordOptions> {
        let options = self.offset.apply(options);
        match &self.labels {
            Some(labels) => {
                Some(RecordOptions { labels: Some(labels.clone()), ..options.unwrap_or_default() })
            }
            None => options,
        }
    }
}

impl Offset {
    /// What was said, on top of `options`.
    pub fn apply(self, options: Option<RecordOptions>) -> Option<RecordOptions> {
        match self.label_offset {
            Some(offset) => Some(RecordOptions { label_offset: Some(offset), ..options.unwrap_or_default() }),
            None => options,
        }
    }
}
