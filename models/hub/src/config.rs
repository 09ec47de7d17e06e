//! `config.json` as timm writes it beside its weights (`timm.models.push_to_hf_hub`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use tallow_input::{Interpolation, Preprocess};

use crate::Pretrained;
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Config {
    /// A network of timm's.
    architecture: Option<String>,
    num_classes: Option<usize>,
    label_names: Option<Vec<String>>,
    #[serde(default)]
    pretrained_cfg: PretrainedConfig,
    /// What timm builds the network with, beside its name.
    #[serde(default)]
    model_args: Map<String, Value>,
}

/// Everything may be absent; what is, is as the network's other weights have it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PretrainedConfig {
    /// Channels, rows, columns.
    input_size: Option<[u32; 3]>,
    interpolation: Option<String>,
    crop_pct: Option<f64>,
    crop_mode: Option<String>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    num_classes: Option<usize>,
    label_names: Option<Vec<String>>,
}

/// Whether an argument of timm's leaves the network as Tallow builds it; timm writes some that say what is so anyway.
fn is_as_built(name: &str, value: &Value, classes: Option<usize>) -> bool {
    match name {
        // timm takes what is null for not said.
        _ if value.is_null() => true,
        "num_classes" => value.as_u64() == classes.map(|classes| classes as u64),
        "in_chans" => *value == 3,
        "output_stride" => *value == 32,
        "global_pool" => value == "avg",
        // Of the training alone.
        "drop_rate" | "drop_path_rate" | "drop_block_rate" => value.is_number(),
        _ => false,
    }
}

/// Reads a description; `weights` is left for the caller to fill in.
pub fn read(path: &Path) -> Result<Pretrained> {
    let wrong = |problem: String| Error::Config { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    let config: Config = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("is no description of weights as timm writes it ({error})")))?;
    let architecture = config.architecture.as_deref().ok_or_else(|| {
        wrong("names no `architecture`: the weights are not timm's; name their file, with --model".into())
    })?;
    let network = tallow_models::find(&format!("timm/{architecture}")).map_err(|_| {
        wrong(format!("is of timm's {architecture}, which Tallow has not: it has timm's resnet18 to resnet152, efficientnet and tf_efficientnet"))
    })?;
    let described = config.pretrained_cfg;
    if let Some(mode) = described.crop_mode.filter(|mode| mode != "center") {
        return Err(wrong(format!(
            "its images are cropped in the mode `{mode}`; only `center` is known here"
        )));
    }
    let side = network.native as u32;
    let [channels, height, width] = described.input_size.unwrap_or([3, side, side]);
    if channels != 3 {
        return Err(wrong(format!("its images have {channels} channels; networks here take 3")));
    }
    let usual = network.preprocess(width, height);
    let interpolation = match described.interpolation.as_deref() {
        None => usual.interpolation,
        Some("bilinear") => Interpolation::Bilinear,
        Some("bicubic") => Interpolation::Bicubic,
        Some("nearest") => Interpolation::Nearest,
        Some(other) => {
            return Err(wrong(format!(
                "its images are resized with `{other}`; known are nearest, bilinear and bicubic"
            )));
        }
    };
    let preprocess = Preprocess {
        mean: described.mean.unwrap_or(usual.mean),
        std: described.std.unwrap_or(usual.std),
        crop_fraction: described.crop_pct.unwrap_or(usual.crop_fraction),
        interpolation,
        ..usual
    };
    preprocess.validate().map_err(|error| wrong(error.to_string()))?;
    let by_arguments = config.model_args.get("num_classes").and_then(Value::as_u64);
    let classes =
        config.num_classes.or(described.num_classes).or(by_arguments.map(|classes| classes as usize));
    let foreign: Vec<String> = config
        .model_args
        .iter()
        .filter(|(name, value)| !is_as_built(name, value, classes))
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    if !foreign.is_empty() {
        return Err(wrong(format!(
            "its `model_args` make another network than {} of it ({}), which Tallow cannot build",
            network.name,
            foreign.join(", ")
        )));
    }
    let labels = config.label_names.or(described.label_names);
    if let (Some(labels), Some(classes)) = (&labels, classes)
        && labels.len() != classes
    {
        return Err(wrong(format!("has {} label_names for {classes} classes", labels.len())));
    }
    Ok(Pretrained { network, weights: PathBuf::new(), classes, preprocess, labels })
}
