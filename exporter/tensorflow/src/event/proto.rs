//! event.proto and summary.proto: the part that TensorFlow 2 writes.

use prost::Message;

use crate::proto::TensorProto;

/// One record of an event file. Apart from `wall_time` and `step`, one field is set.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Optimiser steps done.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// `brain.Event:2`, in a file's first event alone.
    #[prost(string, optional, tag = "3")]
    pub file_version: Option<String>,
    /// An encoded `GraphDef`.
    #[prost(bytes = "vec", optional, tag = "4")]
    pub graph_def: Option<Vec<u8>>,
    /// Values of tags.
    #[prost(message, optional, tag = "5")]
    pub summary: Option<Summary>,
    /// The start of a session.
    #[prost(message, optional, tag = "7")]
    pub session_log: Option<SessionLog>,
    /// Who wrote the file, in its first event alone.
    #[prost(message, optional, tag = "10")]
    pub source_metadata: Option<SourceMetadata>,
}

/// Values of one step.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// Each with its tag.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<SummaryValue>,
}

/// The value of one tag.
#[derive(Clone, PartialEq, Message)]
pub struct SummaryValue {
    /// The name; TensorBoard groups by what stands before the first `/`.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The value.
    #[prost(message, optional, tag = "8")]
    pub tensor: Option<TensorProto>,
    /// Which of TensorBoard's plugins shows it.
    #[prost(message, optional, tag = "9")]
    pub metadata: Option<SummaryMetadata>,
}

/// How a tag is shown.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SummaryMetadata {
    /// The plugin.
    #[prost(message, optional, tag = "1")]
    pub plugin_data: Option<PluginData>,
    /// Scalar 1, tensor 2, blob sequence 3; TensorBoard knows it by the plugin's name where it is 0.
    #[prost(int32, tag = "4")]
    pub data_class: i32,
}

/// A plugin and what it needs to know.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PluginData {
    /// Such as `scalars`.
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    /// An encoded message of the plugin's own.
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

/// Tells readers that a run begins or begins again.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SessionLog {
    /// What happened.
    #[prost(enumeration = "SessionStatus", tag = "1")]
    pub status: i32,
}

/// What a [`SessionLog`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum SessionStatus {
    /// Nothing.
    Unspecified = 0,
    /// From here on: readers forget what they have of this step and later ones.
    Start = 1,
}

/// Who wrote a file.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SourceMetadata {
    /// The program.
    #[prost(string, tag = "1")]
    pub writer: String,
}
