//! `tallow train --print-config`: the settings as they would be used, as a TOML file that explains itself.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use tallow_trainer::Config;

/// A key's name, a value for it where it is off, and what it is.
type Key = (&'static str, &'static str, &'static str);

/// Every section and key that a settings file may hold.
const KEYS: &[(&str, &[Key])] = &[
    (
        "",
        &[
            ("model", "", "a network of the zoo; `tallow summary` lists them"),
            ("data", "", "`digits`, a folder laid out as train/<class>/<image>, or TFRecord shards"),
            ("epochs", "", "passes over the training set"),
            ("batch_size", "", "images in a batch"),
            ("accumulate", "", "batches in a step, whose gradient is that of the mean over their images"),
            ("seed", "", "decides everything random but what is held out"),
            (
                "weights",
                "\"hf:timm/resnet18.a1_in1k\"",
                "to start from: a run, a SavedModel, a file or of the hub",
            ),
            ("label_smoothing", "", "probability taken from the true class and spread over all"),
            ("clip_norm", "1.0", "the largest allowed norm of all gradients together"),
            ("dropout", "0.2", "before the last layer, instead of the network's own"),
            ("stochastic_depth", "0.2", "at the deepest block, instead of the network's own"),
            ("strict", "", "a broken image is an error instead of being left out"),
            ("workers", "", "threads that prepare images; 0 for one a core"),
            ("checkpoint_minutes", "", "between checkpoints within an epoch"),
            ("diagnose", "", "report how gradients flow at each epoch's first step"),
        ],
    ),
    (
        "input",
        &[
            ("size", "224", "columns and rows of the images, where they are equal"),
            ("width", "320", "columns, instead of size"),
            ("height", "240", "rows, instead of size"),
            ("mean", "", "of R, G, B on a scale of 0 to 1"),
            ("std", "", "standard deviation of R, G, B on a scale of 0 to 1"),
            ("interpolation", "", "resize filter: bilinear, bicubic"),
            ("crop_fraction", "", "part of the resized short side that validation's centre crop keeps"),
        ],
    ),
    (
        "fine_tune",
        &[
            ("freeze", "", "layers or parameters that are never trained, by name or pattern"),
            ("freeze_batch_norm", "", "every batch normalisation keeps its running moments"),
            ("layer_decay", "", "what the rate is multiplied by from each stage to the one below it"),
            ("head_epochs", "", "epochs in which the head alone is trained"),
            ("unfreeze_every", "", "epochs after which one stage more is trained; 0 for all at once"),
            (
                "rates",
                "[{ multiplier = 0.1, pattern = \"layer1\" }]",
                "factors on the rate of what a pattern names",
            ),
        ],
    ),
    (
        "optimizer",
        &[
            ("kind", "", "sgd, rmsprop or adamw; the keys below belong to this one"),
            ("momentum", "0.9", "share of the last step that is kept (sgd, rmsprop)"),
            ("nesterov", "true", "look ahead along the momentum (sgd)"),
            ("decay", "0.9", "share of the old mean square that is kept (rmsprop)"),
            ("beta1", "0.9", "share of the old mean that is kept (adamw)"),
            ("beta2", "0.999", "share of the old mean square that is kept (adamw)"),
            ("eps", "1e-8", "added to the mean square (rmsprop: under the root)"),
            (
                "weight_decay",
                "",
                "L2 penalty of the weights, decoupled in adamw; biases and batch norms are spared",
            ),
        ],
    ),
    (
        "schedule",
        &[
            ("learning_rate", "", "what the warm-up reaches and the decay starts from"),
            ("warmup_epochs", "", "over which the rate grows from nothing"),
        ],
    ),
    (
        "schedule.decay",
        &[
            ("kind", "", "constant, step, cosine or exponential"),
            ("floor", "0.0", "the last rate (cosine)"),
            ("every", "10.0", "epochs for one factor (step, exponential)"),
            ("factor", "0.1", "what the rate is multiplied by (step, exponential)"),
        ],
    ),
    (
        "ema",
        &[
            ("decay", "0.999", "validate and export an average of the weights that keeps this share"),
            ("warm_up", "true", "early steps keep less"),
        ],
    ),
    (
        "augment",
        &[
            ("pad_and_crop", "4", "pad by so many pixels and crop at a random place"),
            ("horizontal_flip", "", "probability of a mirror image"),
            ("interpolation", "\"bicubic\"", "resize filter in training, instead of validation's"),
            ("repeated_augment", "3", "how often an epoch has each image, each time augmented differently"),
        ],
    ),
    (
        "augment.random_resized_crop",
        &[
            ("scale", "[0.08, 1.0]", "least and largest share of the area that is cut out"),
            ("ratio", "[0.75, 1.33]", "least and largest width / height of that part"),
        ],
    ),
    (
        "augment.color_jitter",
        &[
            ("brightness", "0.4", "how far the factor may stray from 1"),
            ("contrast", "0.4", "likewise"),
            ("saturation", "0.4", "likewise"),
            ("hue", "0.1", "part of a full circle, at most 0.5"),
        ],
    ),
    (
        "augment.rand_augment",
        &[
            ("operations", "2", "operations in a row, drawn from fourteen"),
            ("magnitude", "9", "of each of them, 0 to 30"),
            ("filter", "\"nearest\"", "of shears and rotations: nearest, bilinear"),
        ],
    ),
    (
        "augment.auto_augment",
        &[
            ("policy", "\"imagenet\"", "imagenet or cifar10; instead of rand_augment"),
            ("filter", "\"nearest\"", "of shears and rotations: nearest, bilinear"),
        ],
    ),
    (
        "augment.random_erasing",
        &[
            ("probability", "0.25", "that a box of the input is overwritten"),
            ("scale", "[0.02, 0.33]", "least and largest share of the area"),
            ("ratio", "[0.3, 3.3]", "least and largest height / width"),
            ("fill", "\"pixel\"", "pixel: noise; rand: one random colour; const: the mean colour"),
        ],
    ),
    (
        "mix",
        &[
            ("mixup", "0.2", "α of mixup: sums of two images; 0 for none"),
            ("cutmix", "1.0", "α of CutMix: boxes of another image; 0 for none"),
            ("probability", "1.0", "that a batch is mixed"),
            ("switch", "0.5", "probability of CutMix where both are on"),
        ],
    ),
    (
        "network",
        &[
            ("widen", "1.5", "factor on the network's channels, which are rounded to multiples of 8"),
            ("deepen", "1.5", "factor on the repeats of its stages, which are rounded up"),
            ("stem", "32", "channels before stages of one's own, which follow as [[network.stages]]"),
            ("stem_stride", "2", "stride before them"),
            ("head", "1280", "channels after them"),
        ],
    ),
    (
        "split",
        &[
            ("fold", "\"1/5\"", "the part of several that is held out instead, for cross-validation"),
            ("fraction", "", "share of each class held out where there is no validation folder"),
            ("seed", "", "decides which"),
        ],
    ),
    (
        "compute",
        &[
            ("device", "", "auto, cpu or cuda:N"),
            ("precision", "", "f32; on a GPU also tf32, bf16 or f16"),
            ("checkpoint_activations", "", "compute most activations twice, to keep fewer"),
        ],
    ),
    (
        "distributed",
        &[
            ("sync_batch_norm", "", "batch norm uses the moments of all processes' images"),
            ("bucket_mb", "", "megabytes of gradients that are sent together"),
            ("world_size", "2", "shares of batch_size images in a batch; a run keeps how many it began with"),
        ],
    ),
    (
        "tensorboard",
        &[
            ("enabled", "", "write event files into the run's directory"),
            ("scalar_steps", "", "steps between two scalars of single batches"),
            ("histogram_epochs", "", "between two histograms of weights, gradients, activations; 0 for none"),
            ("picture_epochs", "", "between two sets of pictures and PR curves; 0 for none"),
        ],
    ),
    (
        "records",
        &[
            ("label_offset", "1", "the label of the first class in TFRecord shards, 0 or 1"),
            ("labels", "\"names.txt\"", "class names, one a line, instead of those the shards tell"),
            ("cycle", "16", "shards that are read in turn"),
            ("buffer", "4096", "records among which the next one is drawn"),
        ],
    ),
];

/// The settings with every default filled in and every key explained.
pub fn annotated(config: Config) -> Result<String> {
    let config = config.resolved()?;
    let values = values(&toml::to_string(&config)?)?;
    let mut text = String::from(
        "# Settings for `tallow train --config FILE`. Flags override them; lines that begin with # are off.\n",
    );
    for (section, keys) in KEYS {
        let on = values.keys().any(|(of, _)| of == section);
        let off = if on { "" } else { "# " };
        if !section.is_empty() {
            writeln!(text, "\n{off}[{section}]")?;
        }
        let stages = config.network.stages.iter().filter(|_| *section == "network");
        for (key, example, meaning) in *keys {
            let line = match values.get(&((*section).to_owned(), (*key).to_owned())) {
                Some(value) => format!("{key} = {value}"),
                None => format!("# {key} = {example}"),
            };
            writeln!(text, "{line:<34} # {meaning}")?;
        }
        for stage in stages {
            write!(text, "\n[[network.stages]]\n{}", toml::to_string(stage)?)?;
        }
    }
    Ok(text)
}

/// The values of a TOML text, each on one line, by section and key.
fn values(text: &str) -> Result<BTreeMap<(String, String), String>> {
    let mut values = BTreeMap::new();
    collect("", &text.parse()?, &mut values);
    Ok(values)
}

fn collect(section: &str, table: &toml::Table, values: &mut BTreeMap<(String, String), String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if section.is_empty() => collect(key, inner, values),
            toml::Value::Table(inner) => collect(&format!("{section}.{key}"), inner, values),
            other => drop(values.insert((section.to_owned(), key.clone()), other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tallow_models::{Stage, Table};
    use tallow_trainer::augment::{
        AffineFilter, Augment, AutoAugment, ColorJitter, Mix, Policy, RandAugment, RandomErasing,
        RandomResizedCrop,
    };
    use tallow_trainer::config::InputConfig;
    use tallow_trainer::data::{RecordOptions, SplitOptions};
    use tallow_trainer::distributed::DistributedConfig;
    use tallow_trainer::fine_tune::{FineTune, RateFactor};
    use tallow_trainer::network::NetworkConfig;
    use tallow_trainer::optim::{Decay, OptimizerKind};
    use tallow_trainer::recipe::SGD;
    use tallow_trainer::schedule::{RateDecay, Schedule};

    use super::*;

    /// Settings in which every key is there.
    fn full(optimizer: OptimizerKind, decay: RateDecay, input: InputConfig) -> Config {
        let stage = Stage { kernel: 5, stride: 2, expand: 3, channels: 16, repeats: 2, se: None };
        Config {
            model: "efficientnet_b0".into(),
            weights: Some("start \"here\".safetensors".into()),
            clip_norm: Some(1.0),
            dropout: Some(0.25),
            stochastic_depth: Some(0.1),
            ema: Some(Decay { decay: 0.99, warm_up: false }),
            augment: Some(Augment {
                random_resized_crop: Some(RandomResizedCrop::default()),
                pad_and_crop: Some(2),
                horizontal_flip: 0.5,
                rand_augment: Some(RandAugment::default()),
                auto_augment: Some(AutoAugment { policy: Policy::Cifar10, filter: AffineFilter::Bilinear }),
                color_jitter: Some(ColorJitter::default()),
                random_erasing: Some(RandomErasing::default()),
                repeated_augment: Some(2),
                interpolation: Some(tallow_input::Interpolation::Bicubic),
            }),
            mix: Some(Mix { mixup: 0.2, ..Mix::default() }),
            schedule: Schedule { decay, ..Schedule::default() },
            input,
            optimizer: Some(optimizer),
            network: NetworkConfig {
                widen: 0.5,
                deepen: 2.0,
                ..Table { stages: vec![stage, Stage { se: Some(0.25), ..stage }], ..Table::default() }.into()
            },
            fine_tune: FineTune {
                freeze: vec!["stage1".into(), "*.bias".into()],
                head_epochs: 1,
                rates: vec![RateFactor { pattern: "stage2.*".into(), multiplier: 0.1 }],
                ..FineTune::default()
            },
            distributed: DistributedConfig { sync_batch_norm: true, bucket_mb: 12.5, world_size: Some(2) },
            split: SplitOptions { fold: Some("2/5".parse().unwrap()), ..SplitOptions::default() },
            records: Some(RecordOptions {
                label_offset: Some(0),
                labels: Some("names.txt".into()),
                ..RecordOptions::default()
            }),
            ..Config::default()
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_settings() {
        let square = InputConfig { size: Some(64), ..InputConfig::default() };
        let wide = InputConfig { width: Some(64), height: Some(48), ..InputConfig::default() };
        let rmsprop = OptimizerKind::RmsProp { decay: 0.9, momentum: 0.9, eps: 1e-3, weight_decay: 0.0 };
        let adamw = OptimizerKind::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
        let every = RateDecay::Step { every: 2.0, factor: 0.5 };
        for config in [
            full(SGD, RateDecay::Cosine { floor: 0.1 }, square.clone()),
            full(rmsprop, every, wide),
            full(adamw, RateDecay::Constant, square),
            Config::default(),
        ] {
            let text = annotated(config.clone()).unwrap();
            let read: Config = toml::from_str(&text).unwrap();
            assert_eq!(read, config.clone().resolved().unwrap(), "{text}");
            assert_eq!(read.preprocess().unwrap(), config.preprocess().unwrap());
        }
    }

    #[test]
    fn every_example_may_be_switched_on() {
        let text = annotated(Config { model: "resnet20".into(), ..Config::default() }).unwrap();
        for line in text.lines().filter(|line| line.starts_with("# [") || line.contains(" = ")) {
            assert!(line.trim_start_matches("# ").parse::<toml::Table>().is_ok(), "{line}");
        }
    }
}
