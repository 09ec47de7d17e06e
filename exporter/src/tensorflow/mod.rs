//! TensorFlow: the layer graph as a SavedModel and as a checkpoint that TensorFlow itself loads, and weights back from
//! either.
//!
//! `lower` turns layers into operations, NHWC, once for the graph that servers run and once for each function that
//! `tf.saved_model.load` offers; `variables` says what each tensor is called there and how its axes lie; `saver`,
//! `functions` and `objects` are what a loader needs besides.

mod attributes;
mod body;
mod checkpoint;
mod functions;
mod import;
mod lower;
mod meta_graph;
mod objects;
mod saved_model;
mod saver;
mod training;
mod variables;

pub use checkpoint::{Checkpoint, Step, write_checkpoint};
pub use import::{bundle_at, read_variables};
pub(crate) use saved_model::is_saved_model;
pub use saved_model::{SavedModel, SavedModelOptions};
