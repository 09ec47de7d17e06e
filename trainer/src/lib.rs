//! Trains a layer graph: data, augmentation, optimisers, schedules, checkpoints.

pub mod data;
mod error;

pub use error::{Error, Result};
