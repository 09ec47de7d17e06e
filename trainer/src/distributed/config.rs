//! The section `[distributed]` of the settings.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How several processes train together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistributedConfig {
    /// Whether batch normalisation uses the moments of all processes' images (SyncBN) instead of each process's own.
    pub sync_batch_norm: bool,
    /// Megabytes of gradients that are sent together, while backward makes the next ones.
    pub bucket_mb: f64,
    /// Shares of `batch_size` images that make a batch: the number of processes with which a run begins. A run that goes
    /// on keeps it, with any number of processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_size: Option<usize>,
}

impl Default for DistributedConfig {
    /// PyTorch's defaults.
    fn default() -> Self {
        Self { sync_batch_norm: false, bucket_mb: 25.0, world_size: None }
    }
}

impl DistributedConfig {
    /// Refuses numbers that make no sense.
    ///
    /// # Errors
    /// [`Error::Setting`] with the number's name.
    pub fn validate(&self) -> Result<()> {
        if !(self.bucket_mb > 0.0 && self.bucket_mb.is_finite()) {
            let remedy = "choose a number of megabytes above 0, such as 25";
            return Err(Error::Setting { name: "bucket_mb", value: self.bucket_mb.to_string(), remedy });
        }
        if self.world_size == Some(0) {
            let remedy = "there is at least one process: leave it out";
            return Err(Error::Setting { name: "distributed.world_size", value: "0".into(), remedy });
        }
        Ok(())
    }

    /// Bytes of a bucket.
    pub(super) fn bucket_bytes(&self) -> usize {
        (self.bucket_mb * 1024.0 * 1024.0) as usize
    }
}
