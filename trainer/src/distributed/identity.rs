//! What has to be the same in all processes: the settings and the data, by which they know each other, and the state
//! from which they start.

use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};
use tallow_builder::Weights;
use tallow_distributed::Identity;

use crate::compute::ComputeConfig;
use crate::config::Config;
use crate::data::{Fingerprint, Splits};
use crate::error::Result;
use crate::optim::State;

/// A run's settings and data. Where they lie and how they are reported may differ from host to host.
pub(super) fn fingerprint(config: &Config, data: &Splits) -> Identity {
    let records =
        config.records.clone().map(|records| crate::data::RecordOptions { labels: None, ..records });
    let config = Config {
        data: String::new(),
        weights: config.weights.as_ref().map(|_| "given".into()),
        workers: 0,
        diagnose: false,
        checkpoint_minutes: 1.0,
        tensorboard: crate::tensorboard::TensorboardConfig::default(),
        records,
        // Each process may be told its own GPU, and what is computed twice gives the same.
        compute: ComputeConfig { precision: config.compute.precision, ..ComputeConfig::default() },
        ..config.clone()
    };
    let settings = toml::Value::try_from(&config).expect("every setting is plain data that TOML can hold");
    let identity = Identity::default().with("the version of tallow", env!("CARGO_PKG_VERSION"));
    named(identity, &settings, &Fingerprint::of(data))
}

/// Causes before what follows from them: an optimiser and an augmentation that nobody chose are those of the network and
/// the data, and what the data is follows from how it is read and split.
fn named(mut identity: Identity, settings: &toml::Value, data: &Fingerprint) -> Identity {
    let mut values = vec![];
    flatten("", settings, &mut values);
    let decides_data = |name: &str| ["split.", "records."].iter().any(|section| name.starts_with(section));
    let (first, last): (Vec<_>, Vec<_>) =
        values.into_iter().partition(|(name, _)| !name.contains('.') || decides_data(name));
    let add = |identity: Identity, (name, value): (String, String)| identity.with(format!("`{name}`"), value);
    identity = first.into_iter().fold(identity, add);
    for (what, part) in data.described() {
        identity = identity.with(format!("the {what} data"), part);
    }
    last.into_iter().fold(identity, add)
}

/// Every setting by its name in a settings file, such as `schedule.learning_rate`.
fn flatten(prefix: &str, value: &toml::Value, values: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&name, value, values);
            }
        }
        other => values.push((prefix.to_owned(), other.to_string())),
    }
}

/// Of the state that training goes on from.
///
/// # Errors
/// Where the device fails.
pub(crate) fn state_digest(weights: &Weights, ema: Option<&Weights>, optimizer: &State) -> Result<Vec<u8>> {
    let mut hash = Sha256::new();
    let averages = ema.into_iter().flat_map(Weights::iter);
    let states = optimizer.iter().map(|(name, tensor)| (name.as_str(), tensor));
    for (name, tensor) in weights.iter().chain(averages).chain(states) {
        hash.update(name);
        add(&mut hash, tensor)?;
    }
    Ok(hash.finalize().to_vec())
}

fn add(hash: &mut Sha256, tensor: &Tensor) -> Result<()> {
    let flat = tensor.flatten_all()?;
    if tensor.dtype() == DType::F32 {
        flat.to_vec1::<f32>()?.iter().for_each(|value| hash.update(value.to_le_bytes()));
    } else {
        flat.to_dtype(DType::F64)?
            .to_vec1::<f64>()?
            .iter()
            .for_each(|value| hash.update(value.to_le_bytes()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Labelled, SplitOptions, Subset, digits::Digits, stratified_split};
    use crate::optim::Decay;
    use crate::schedule::Schedule;

    /// What rank 0 with the default settings says of one with these.
    fn difference(change: impl Fn(&mut Config), images: usize) -> Option<String> {
        let digits: Arc<dyn Labelled> = Arc::new(Digits::new());
        let data = |config: &Config, images| {
            stratified_split(Arc::new(Subset::new(digits.clone(), (0..images).collect())), config.split)
                .unwrap()
        };
        let own = Config::default();
        let mut other = own.clone();
        change(&mut other);
        // Where a host has its data, and with how many threads it reads them, is its own affair.
        let other = Config { data: "/elsewhere".into(), workers: 3, ..other.resolved().unwrap() };
        let own = own.resolved().unwrap();
        let identity = fingerprint(&own, &data(&own, 1797));
        identity.difference(&fingerprint(&other, &data(&other, images)), 1)
    }

    #[test]
    fn what_differs_is_named_by_its_cause() {
        let all = 1797;
        assert_eq!(difference(|_| {}, all), None);
        for (change, expected) in [
            (&|c: &mut Config| c.batch_size = 32 as _, "`batch_size` is 64 on rank 0 and 32 on rank 1"),
            (
                &|c: &mut Config| c.ema = Some(Decay { decay: 0.9, warm_up: true }),
                "`ema.decay` is not set on rank 0",
            ),
            (
                &|c: &mut Config| c.schedule = Schedule { learning_rate: Some(0.5), ..c.schedule },
                "`schedule.learning_rate` is",
            ),
            // Its optimiser and size follow from it.
            (&|c: &mut Config| c.model = "efficientnet_b0".into(), "`model` is \"resnet18\" on rank 0"),
            (
                &|c: &mut Config| c.split = SplitOptions { seed: 1, ..c.split },
                "`split.seed` is 0 on rank 0 and 1 on rank 1",
            ),
        ] as [(&dyn Fn(&mut Config), &str); 5]
        {
            let text = difference(change, all).unwrap();
            assert!(text.starts_with(expected), "{text}");
        }
        let text = difference(|_| {}, 1000).unwrap();
        assert!(text.starts_with("the training data is 1438 images in 10 classes"), "{text}");
        assert!(text.contains("rank 0 and 799 images in 10 classes"), "{text}");
    }
}
