//! Trains a layer graph: data, augmentation, optimisers, schedules, checkpoints.
//!
//! A [`Trainer`] runs what a [`Config`] says and leaves everything in a [`RunDir`].

pub mod augment;
pub mod checkpoint;
pub mod compute;
pub mod config;
pub mod data;
pub mod diagnose;
pub mod distributed;
mod error;
pub mod evaluate;
pub mod fine_tune;
pub mod metrics;
pub mod network;
pub mod optim;
mod pattern;
pub mod plot;
pub mod progress;
pub mod recipe;
mod run_dir;
pub mod schedule;
pub mod soup;
pub mod synthetic;
pub mod tally;
pub mod tensorboard;
mod trainer;

pub use config::Config;
pub use error::{Error, Result};
pub use run_dir::RunDir;
pub use trainer::{Changes, NewRun, Outcome, Trainer};
