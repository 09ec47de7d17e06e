//! Trains a layer graph: data, augmentation, optimisers, schedules, checkpoints.

mod atomic;
pub mod augment;
pub mod data;
mod error;
pub mod metrics;
pub mod plot;
pub mod progress;

pub use error::{Error, Result};
