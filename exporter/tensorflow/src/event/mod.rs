//! TensorBoard's event files: records of [`Event`] messages.
//!
//! [`EventWriter`] writes a file as TensorFlow does, [`EventReader`] reads one back. A [`SummaryValue`] is one value of
//! one tag, made by [`scalar`], [`histogram`], [`image`], [`text`], [`pr_curve`] or those of [`hparams`].

mod histogram;
pub mod hparams;
mod pr_curve;
mod proto;
mod reader;
mod summary;
mod writer;

pub use histogram::{BUCKETS, Histogram};
pub use pr_curve::{THRESHOLDS, ThresholdCounts};
pub use proto::{
    Event, PluginData, SessionLog, SessionStatus, SourceMetadata, Summary, SummaryMetadata, SummaryValue,
};
pub use reader::EventReader;
pub use summary::{histogram, image, pr_curve, scalar, text};
pub use writer::{EventWriter, is_event_file};
