//! TensorFlow's files, read and written without TensorFlow.
//!
//! [`record`] is the framing that TFRecord shards and event files share; [`event`] is what TensorBoard shows. Nothing
//! here knows networks or tensors of candle: trainer reads its data and writes its curves with it, exporter builds its
//! models from it.

pub mod bundle;
pub mod crc;
mod error;
pub mod event;
pub mod proto;
pub mod record;
pub mod table;

pub use error::{Error, Result};
