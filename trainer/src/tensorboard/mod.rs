//! What a run tells TensorBoard, as event files in its directory:
//!
//! - `train/`: `step/…` scalars of single batches, `epoch/…` scalars of whole epochs, histograms of weights, gradients
//!   and activations, images as the network sees them, the network's graph, the settings, the gradient flow;
//! - `validation/`: the same `epoch/…` scalars, so that the curves overlay, confusion matrix and PR curves;
//! - the run's own folder: hyperparameters, and how the run ended.
//!
//! An event's step is the number of optimiser steps done. What is written never enters the training: it draws no
//! random numbers and changes no tensor.

mod config;
mod graph;
mod hparams;
mod purge;
mod recorder;
#[cfg(test)]
mod tests;

pub use config::TensorboardConfig;
pub use graph::graph_def;
pub use purge::CutShort;
pub(crate) use recorder::{EpochRecord, Recorder, Setting, StepRecord};
