//! What must be said about an `.onnx` file that others made: it names no classes and no preprocessing.

use std::path::PathBuf;

use anyhow::Result;
use tallow_runtime::{ClassifierBuilder, OutputKind};

use crate::failure::usage;
use crate::image_size::ImageSize;
use crate::model::read_labels;
use crate::pretrained::Said;

const HEADING: &str = "For .onnx files that others made";

/// Flags for `.onnx` files without Tallow's metadata; in files with it, each replaces the one thing that it names.
#[derive(Default, PartialEq, clap::Args)]
pub struct Args {
    /// A text file with one class name a line
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Side of the square input, pixels, or HEIGHTxWIDTH
    #[arg(help_heading = HEADING, long, value_name = "PIXELS", visible_alias = "resolution")]
    size: Option<ImageSize>,
    /// Mean of R, G, B on a scale of 0 to 1 [default: the file's, else ImageNet's 0.485,0.456,0.406]
    #[arg(help_heading = HEADING, long, value_name = "R,G,B", value_parser = rgb)]
    mean: Option<[f32; 3]>,
    /// Standard deviation of R, G, B on a scale of 0 to 1 [default: the file's, else ImageNet's 0.229,0.224,0.225]
    #[arg(help_heading = HEADING, long, value_name = "R,G,B", value_parser = rgb)]
    std: Option<[f32; 3]>,
    /// The output is probabilities already, not logits
    #[arg(help_heading = HEADING, long)]
    probabilities: bool,
}

impl Args {
    /// Adds what was said to a builder.
    pub fn apply(&self, mut builder: ClassifierBuilder) -> Result<ClassifierBuilder> {
        if let Some(path) = &self.labels {
            builder = builder.labels(read_labels(path)?);
        }
        if let Some(ImageSize { height, width }) = self.size {
            builder = builder.size(width, height);
        }
        if let Some(mean) = self.mean {
            builder = builder.mean(mean);
        }
        if let Some(std) = self.std {
            builder = builder.std(std);
        }
        if self.probabilities {
            builder = builder.output(OutputKind::Probabilities);
        }
        Ok(builder)
    }

    /// What was said, for weights that are exported in passing.
    pub fn said(&self) -> Said {
        Said { labels: self.labels.clone(), size: self.size, mean: self.mean, std: self.std }
    }

    /// Whether the output is said to be probabilities.
    pub fn probabilities(&self) -> bool {
        self.probabilities
    }

    /// Refuses any of these flags where they would be ignored.
    pub fn refuse(&self, reason: &str) -> Result<()> {
        if *self == Self::default() { Ok(()) } else { Err(usage(reason)) }
    }
}

fn rgb(text: &str) -> Result<[f32; 3], String> {
    let numbers: Result<Vec<f32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| "three numbers are needed, such as 0.5,0.5,0.5".into())
}
