//! What must be said about an `.onnx` file that others made: it names no classes and no preprocessing.

use std::path::PathBuf;

use anyhow::Result;
use tallow_runtime::{ClassifierBuilder, OutputKind, Preprocess};

use crate::failure::usage;
use crate::model::read_labels;

const HEADING: &str = "For .onnx files that others made";

/// Flags for `.onnx` files without Tallow's metadata; for others they stand in place of what the file says.
#[derive(clap::Args)]
pub struct Args {
    /// A text file with one class name a line
    #[arg(help_heading = HEADING, long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Side of the square input, pixels
    #[arg(help_heading = HEADING, long, value_name = "PIXELS", conflicts_with_all = ["width", "height"])]
    size: Option<u32>,
    /// Columns of the input, pixels
    #[arg(help_heading = HEADING, long, value_name = "PIXELS", requires = "height")]
    width: Option<u32>,
    /// Rows of the input, pixels
    #[arg(help_heading = HEADING, long, value_name = "PIXELS", requires = "width")]
    height: Option<u32>,
    /// Mean of R, G, B on a scale of 0 to 1 [default: ImageNet's 0.485,0.456,0.406]
    #[arg(help_heading = HEADING, long, value_name = "R,G,B", value_parser = rgb)]
    mean: Option<[f32; 3]>,
    /// Standard deviation of R, G, B on a scale of 0 to 1 [default: ImageNet's 0.229,0.224,0.225]
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
        match (self.size.or(self.width), self.size.or(self.height)) {
            (Some(width), Some(height)) => builder = builder.preprocess(self.preprocess(width, height)?),
            _ if self.mean.is_some() || self.std.is_some() => {
                return Err(usage("--mean and --std need --size, or --width and --height"));
            }
            _ => {}
        }
        if self.probabilities {
            builder = builder.output(OutputKind::Probabilities);
        }
        Ok(builder)
    }

    fn preprocess(&self, width: u32, height: u32) -> Result<Preprocess> {
        let usual = Preprocess::imagenet(width, height);
        let preprocess =
            Preprocess { mean: self.mean.unwrap_or(usual.mean), std: self.std.unwrap_or(usual.std), ..usual };
        preprocess.validate().map_err(usage)?;
        Ok(preprocess)
    }
}

fn rgb(text: &str) -> Result<[f32; 3], String> {
    let numbers: Result<Vec<f32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.ok_or_else(|| "three numbers are needed, such as 0.5,0.5,0.5".into())
}
