//! What any `.onnx` file says about itself, whether it can be served here or not: inputs, outputs, operators, weights,
//! model card, certificate. What `tallow info` prints.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use serde::Serialize;
use tallow_input::{CARD_PREFIX, CERTIFICATE_KEY, Dtype, ModelCard, OutputKind, Preprocess};

use crate::certificate::Certified;
use crate::error::{RuntimeError, one_line};
use crate::onnx::{proto, tensor_info, type_name, value_type};

/// An `.onnx` file, described.
#[derive(Clone, Debug, Serialize)]
pub struct Description {
    /// The file.
    pub file: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The format's version.
    pub ir_version: i64,
    /// The operator sets and their versions; ONNX's own is called `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// The program that wrote the file, with its version.
    pub producer: String,
    /// The graph's inputs.
    pub inputs: Vec<ValueDescription>,
    /// The graph's outputs.
    pub outputs: Vec<ValueDescription>,
    /// How many nodes there are of each operator.
    pub operators: BTreeMap<String, usize>,
    /// Elements of all float weights but averages of batch normalisation; scalars do not count.
    pub parameters: u64,
    /// How many of these elements there are of each type, such as `float16`.
    pub parameter_types: BTreeMap<String, u64>,
    /// Files beside this one that hold weights.
    pub external_data: Vec<String>,
    /// Those of them that are not there.
    pub missing_data: Vec<String>,
    /// The model card; none in files that others made.
    pub card: Option<CardDescription>,
    /// The metadata entries that are not Tallow's.
    pub metadata: BTreeMap<String, String>,
    /// The certificate, and whether the file is still the one that it is about.
    pub certificate: Certified,
}

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct ValueDescription {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub r#type: String,
    /// Its shape, free axes by name.
    pub shape: String,
}

/// A model card.
#[derive(Clone, Debug, Serialize)]
pub struct CardDescription {
    /// The network's name in the zoo.
    pub architecture: String,
    /// The class names.
    pub labels: Vec<String>,
    /// How an image becomes the input.
    pub preprocess: Preprocess,
    /// What the output holds.
    pub output: OutputKind,
    /// What the network computes in.
    pub dtype: Dtype,
    /// The data set it was trained on.
    pub dataset: Option<String>,
    /// Measured quality.
    pub metrics: BTreeMap<String, f64>,
}

impl Description {
    /// Reads a file.
    ///
    /// # Errors
    /// [`RuntimeError::Read`] where it cannot be read, [`RuntimeError::Model`] where it is no ONNX model,
    /// [`RuntimeError::Card`] for metadata that cannot be understood.
    pub fn read(path: impl AsRef<Path>) -> Result<Description, RuntimeError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| RuntimeError::Read { file: path.into(), source })?;
        let file = path.display().to_string();
        let wrong = |reason: String| RuntimeError::Model { file: file.clone(), reason };
        if bytes.is_empty() {
            return Err(wrong("the file is empty".into()));
        }
        let certificate = Certified::read(&file, &bytes)?;
        let model = Model::decode(bytes.as_slice()).map_err(|e| {
            wrong(format!(
                "not an ONNX model, or damaged ({}): name another file, or export it again",
                one_line(e)
            ))
        })?;
        let graph = model.graph.ok_or_else(|| wrong("not an ONNX model: it has no graph".into()))?;
        let props = model.metadata_props.into_iter().map(|entry| (entry.key, entry.value));
        let (ours, metadata): (Vec<_>, _) = props.partition(|(key, _)| key.starts_with(CARD_PREFIX));
        let card = ModelCard::from_props(ours.into_iter().filter(|(key, _)| key != CERTIFICATE_KEY))
            .map_err(|source| RuntimeError::Card { file: file.clone(), source })?;
        let is_weight = |value: &&proto::Value| !graph.initializer.iter().any(|w| w.name == value.name);
        let mut operators = BTreeMap::new();
        for node in &graph.node {
            *operators.entry(node.op_type.clone()).or_default() += 1;
        }
        let opset = |set: proto::OpsetId| match set.domain.as_str() {
            "" => ("ai.onnx".to_owned(), set.version),
            _ => (set.domain, set.version),
        };
        let external_data = external_data(&graph);
        let parameter_types = parameter_types(&graph);
        let is_missing = |beside: &&String| !path.with_file_name(beside).is_file();
        Ok(Description {
            bytes: bytes.len() as u64,
            ir_version: model.ir_version,
            opsets: model.opset_import.into_iter().map(opset).collect(),
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            inputs: graph.input.iter().filter(is_weight).map(value).collect(),
            outputs: graph.output.iter().map(value).collect(),
            operators,
            parameters: parameter_types.values().sum(),
            parameter_types,
            missing_data: external_data.iter().filter(is_missing).cloned().collect(),
            external_data,
            card: card.map(described),
            metadata: metadata.into_iter().collect::<BTreeMap<_, _>>(),
            certificate,
            file,
        })
    }
}

fn value(value: &proto::Value) -> ValueDescription {
    let info = tensor_info(value);
    ValueDescription { r#type: type_name(value_type(value)), shape: info.shape_text(), name: info.name }
}

fn described(card: ModelCard) -> CardDescription {
    let ModelCard { architecture, labels, preprocess, output, dtype, dataset, metrics, .. } = card;
    CardDescription { architecture, labels, preprocess, output, dtype, dataset, metrics }
}

fn parameter_types(graph: &Graph) -> BTreeMap<String, u64> {
    let averages: Vec<&String> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "BatchNormalization")
        .flat_map(|node| node.input.iter().skip(3))
        .collect();
    // Integers are no weights but shapes, axes and indices that nodes take.
    let is_float = |weight: &Weight| matches!(weight.data_type, 1 | 10 | 11 | 16);
    let counts =
        |weight: &&Weight| is_float(weight) && !weight.dims.is_empty() && !averages.contains(&&weight.name);
    let elements =
        |weight: &Weight| weight.dims.iter().map(|&d| u64::try_from(d).unwrap_or(0)).product::<u64>();
    let mut types = BTreeMap::new();
    for weight in graph.initializer.iter().filter(counts) {
        *types.entry(type_name(weight.data_type)).or_default() += elements(weight);
    }
    types
}

fn external_data(graph: &Graph) -> Vec<String> {
    let entries = graph.initializer.iter().flat_map(|weight| &weight.external_data);
    let mut files: Vec<String> =
        entries.filter(|entry| entry.key == "location").map(|entry| entry.value.clone()).collect();
    files.sort();
    files.dedup();
    files
}

/// `ModelProto`, with what a description needs and no weights' values.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<proto::OpsetId>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<proto::Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Weight>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<proto::Value>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<proto::Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Weight {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    /// 1, 10, 11 and 16 are float32, float16, float64 and bfloat16.
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<proto::Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(data_type: i32, beside: &str) -> Weight {
        let entry = proto::Entry { key: "location".into(), value: beside.into() };
        Weight { dims: vec![2, 3], data_type, name: beside.into(), external_data: vec![entry] }
    }

    #[test]
    fn integers_are_no_parameters_and_missing_files_are_told() {
        let folder = std::env::temp_dir().join(format!("tallow-description-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let initializer = vec![weight(1, "there.data"), weight(7, "gone.data"), weight(10, "there.data")];
        let graph = Some(Graph { initializer, ..Graph::default() });
        let path = folder.join("m.onnx");
        std::fs::write(&path, Model { ir_version: 8, graph, ..Model::default() }.encode_to_vec()).unwrap();
        std::fs::write(folder.join("there.data"), "").unwrap();
        let description = Description::read(&path).unwrap();
        assert_eq!(description.parameters, 12);
        let types = [("float16".to_owned(), 6), ("float32".to_owned(), 6)];
        assert_eq!(description.parameter_types, types.into());
        assert_eq!(description.external_data, ["gone.data", "there.data"]);
        assert_eq!(description.missing_data, ["gone.data"]);
        std::fs::write(&path, "").unwrap();
        let text = Description::read(&path).unwrap_err().to_string();
        assert!(text.ends_with("m.onnx: the file is empty"), "{text}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
