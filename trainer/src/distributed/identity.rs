//! What has to be the same in all processes: the settings and the data, by which they know each other, and the state
//! from which they start.

use candle_core::{DType, Tensor};
use sha2::{Digest, Sha256};
use tallow_builder::Weights;

use crate::compute::ComputeConfig;
use crate::config::Config;
use crate::data::{Fingerprint, Splits};
use crate::error::Result;
use crate::optim::State;

/// Of a run's settings and data. Where they lie and how they are reported may differ from host to host.
pub(super) fn fingerprint(config: &Config, data: &Splits) -> [u8; 32] {
    let records =
        config.records.clone().map(|records| crate::data::RecordOptions { labels: None, ..records });
    let config = Config {
        data: String::new(),
        weights: config.weights.as_ref().map(|_| String::new()),
        workers: 0,
        diagnose: false,
        checkpoint_minutes: 1.0,
        tensorboard: crate::tensorboard::TensorboardConfig::default(),
        records,
        // Each process may be told its own GPU, and what is computed twice gives the same.
        compute: ComputeConfig { precision: config.compute.precision, ..ComputeConfig::default() },
        ..config.clone()
    };
    let data = serde_json::to_string(&Fingerprint::of(data)).expect("a fingerprint is plain data");
    let version = env!("CARGO_PKG_VERSION");
    Sha256::digest(format!("{version}\n{}\n{data}", config.to_toml())).into()
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
