//! Trains a layer graph: data, augmentation, optimisers, schedules, checkpoints.

pub mod augment;
pub mod data;
mod error;
pub mod metrics;
pub mod plot;
pub mod progress;

pub use error::{Error, Result};
