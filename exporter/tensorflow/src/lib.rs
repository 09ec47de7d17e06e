//! TensorFlow's files, read and written without TensorFlow.
//!
//! [`record`] is the framing that TFRecord shards and event files share; [`index`] finds records for reading in any
//! order, [`example`] is what is in them, [`shards`] how a set's files are called; [`event`] is what TensorBoard shows.
//! Nothing here knows networks or tensors of candle: trainer reads its data and writes its curves with it, exporter
//! builds its models from it.

pub mod bundle;
pub mod crc;
mod error;
pub mod event;
pub mod example;
pub mod index;
pub mod proto;
pub mod record;
pub mod shards;
pub mod table;
mod wire;

pub use error::{Error, Result};
pub use wire::Malformed;
