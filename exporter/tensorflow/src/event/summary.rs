//! One value of one tag, in the form of each of TensorBoard's plugins.

use prost::Message;

use super::histogram::Histogram;
use super::pr_curve::ThresholdCounts;
use super::proto::{PluginData, SummaryMetadata, SummaryValue};
use crate::proto::{DataType, TensorProto, TensorShape};

/// The class of tensors, which TensorBoard does not derive from the name of the plugin `pr_curves`.
const TENSOR: i32 = 2;

/// A number.
pub fn scalar(tag: impl Into<String>, value: f32) -> SummaryValue {
    let bytes = value.to_le_bytes().to_vec();
    summary(tag, "scalars", TensorProto { tensor_content: bytes, ..tensor(DataType::Float, &[]) })
}

/// Counts of values by size.
pub fn histogram(tag: impl Into<String>, histogram: &Histogram) -> SummaryValue {
    let buckets = histogram.buckets();
    let rows = buckets.len() as i64;
    let numbers = buckets.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    let tensor = TensorProto { tensor_content: numbers, ..tensor(DataType::Double, &[rows, 3]) };
    summary(tag, "histograms", tensor)
}

/// An image of `width` × `height` pixels, encoded as PNG.
pub fn image(tag: impl Into<String>, width: u32, height: u32, png: Vec<u8>) -> SummaryValue {
    let strings = vec![width.to_string().into_bytes(), height.to_string().into_bytes(), png];
    let tensor = TensorProto { string_val: strings, ..tensor(DataType::String, &[3]) };
    summary(tag, "images", tensor)
}

/// Markdown.
pub fn text(tag: impl Into<String>, markdown: &str) -> SummaryValue {
    let tensor =
        TensorProto { string_val: vec![markdown.as_bytes().to_vec()], ..tensor(DataType::String, &[]) };
    summary(tag, "text", tensor)
}

/// Precision and recall over all thresholds.
pub fn pr_curve(tag: impl Into<String>, counts: &ThresholdCounts) -> SummaryValue {
    let rows = counts.rows();
    let thresholds = rows[0].len();
    let numbers = rows.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    let tensor = TensorProto { tensor_content: numbers, ..tensor(DataType::Float, &[6, thresholds as i64]) };
    let content = PrCurveData { num_thresholds: thresholds as u32 }.encode_to_vec();
    let plugin_data = PluginData { plugin_name: "pr_curves".into(), content };
    let metadata = SummaryMetadata { plugin_data: Some(plugin_data), data_class: TENSOR };
    SummaryValue { tag: tag.into(), tensor: Some(tensor), metadata: Some(metadata) }
}

/// The plugin's message `PrCurvePluginData`.
#[derive(Clone, PartialEq, Eq, Message)]
struct PrCurveData {
    #[prost(uint32, tag = "2")]
    num_thresholds: u32,
}

pub(super) fn tensor(dtype: DataType, shape: &[i64]) -> TensorProto {
    TensorProto {
        dtype: dtype.into(),
        tensor_shape: Some(TensorShape::of(shape.iter().copied())),
        ..TensorProto::default()
    }
}

fn summary(tag: impl Into<String>, plugin: &str, tensor: TensorProto) -> SummaryValue {
    let plugin_data = PluginData { plugin_name: plugin.into(), content: vec![] };
    let metadata = SummaryMetadata { plugin_data: Some(plugin_data), data_class: 0 };
    SummaryValue { tag: tag.into(), tensor: Some(tensor), metadata: Some(metadata) }
}
