//! Hyperparameters and the metrics to judge them by, for TensorBoard's table of runs.
//!
//! A run's folder holds one event file with [`experiment`], [`session_start`] and, once the run has ended,
//! [`session_end`]. The metrics are scalars of that folder or of folders in it ("groups").

use std::collections::BTreeMap;

use prost::{Message, Oneof};

use super::proto::{PluginData, SummaryMetadata, SummaryValue};
use super::summary::tensor;
use crate::proto::DataType;

/// A hyperparameter's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A word.
    Text(String),
    /// Yes or no.
    Bool(bool),
}

/// A scalar that tells how good a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Folder in the run's folder, such as `validation`.
    pub group: String,
    /// The scalar's tag.
    pub tag: String,
    /// What the table calls it.
    pub display_name: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Not said.
    Unknown = 0,
    /// It did all its work.
    Success = 1,
    /// It stopped at an error.
    Failure = 2,
    /// It has not ended.
    Running = 3,
}

/// The tag of [`session_start`].
pub const SESSION_START: &str = "_hparams_/session_start_info";
/// The tag of [`session_end`].
pub const SESSION_END: &str = "_hparams_/session_end_info";

/// Names the hyperparameters (from any run's values, for their types) and the metrics.
pub fn experiment(hparams: &BTreeMap<String, Value>, metrics: &[Metric]) -> SummaryValue {
    let info = |(name, value): (&String, &Value)| HParamInfo {
        name: name.clone(),
        r#type: match value {
            Value::Text(_) => 1,
            Value::Bool(_) => 2,
            Value::Number(_) => 3,
        },
    };
    let metric = |metric: &Metric| MetricInfo {
        name: Some(MetricName { group: metric.group.clone(), tag: metric.tag.clone() }),
        display_name: metric.display_name.clone(),
    };
    let experiment = Experiment {
        hparam_infos: hparams.iter().map(info).collect(),
        metric_infos: metrics.iter().map(metric).collect(),
    };
    summary("_hparams_/experiment", HParamsData { experiment: Some(experiment), ..HParamsData::default() })
}

/// The values that a run starts with, and the time, seconds since 1970.
pub fn session_start(hparams: &BTreeMap<String, Value>, seconds: f64) -> SummaryValue {
    let kind = |value: &Value| match value {
        Value::Number(number) => value::Kind::Number(*number),
        Value::Text(text) => value::Kind::String(text.clone()),
        Value::Bool(truth) => value::Kind::Bool(*truth),
    };
    let entry = |(name, value): (&String, &Value)| (name.clone(), AnyValue { kind: Some(kind(value)) });
    let start = SessionStart { hparams: hparams.iter().map(entry).collect(), start_time_secs: seconds };
    summary(SESSION_START, HParamsData { session_start_info: Some(start), ..HParamsData::default() })
}

/// How a run ended, and the time, seconds since 1970.
pub fn session_end(status: Status, seconds: f64) -> SummaryValue {
    let end = SessionEnd { status: status.into(), end_time_secs: seconds };
    summary(SESSION_END, HParamsData { session_end_info: Some(end), ..HParamsData::default() })
}

/// Everything is in the metadata; the tensor is empty.
fn summary(tag: &str, data: HParamsData) -> SummaryValue {
    let plugin_data = PluginData { plugin_name: "hparams".into(), content: data.encode_to_vec() };
    let metadata = SummaryMetadata { plugin_data: Some(plugin_data), data_class: 0 };
    SummaryValue { tag: tag.into(), tensor: Some(tensor(DataType::Float, &[0])), metadata: Some(metadata) }
}

/// The plugin's message `HParamsPluginData`, of version 0.
#[derive(Clone, PartialEq, Message)]
struct HParamsData {
    #[prost(message, optional, tag = "2")]
    experiment: Option<Experiment>,
    #[prost(message, optional, tag = "3")]
    session_start_info: Option<SessionStart>,
    #[prost(message, optional, tag = "4")]
    session_end_info: Option<SessionEnd>,
}

#[derive(Clone, PartialEq, Message)]
struct Experiment {
    #[prost(message, repeated, tag = "4")]
    hparam_infos: Vec<HParamInfo>,
    #[prost(message, repeated, tag = "5")]
    metric_infos: Vec<MetricInfo>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HParamInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "4")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    name: Option<MetricName>,
    #[prost(string, tag = "3")]
    display_name: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MetricName {
    #[prost(string, tag = "1")]
    group: String,
    #[prost(string, tag = "2")]
    tag: String,
}

#[derive(Clone, PartialEq, Message)]
struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, AnyValue>,
    #[prost(double, tag = "5")]
    start_time_secs: f64,
}

#[derive(Clone, PartialEq, Message)]
struct SessionEnd {
    #[prost(enumeration = "Status", tag = "1")]
    status: i32,
    #[prost(double, tag = "2")]
    end_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "value::Kind", tags = "2, 3, 4")]
    kind: Option<value::Kind>,
}

mod value {
    use super::Oneof;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(double, tag = "2")]
        Number(f64),
        #[prost(string, tag = "3")]
        String(String),
        #[prost(bool, tag = "4")]
        Bool(bool),
    }
}
