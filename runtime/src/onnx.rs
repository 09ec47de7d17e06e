//! What an `.onnx` file says about its graph, read without any engine: input, outputs, opset, metadata.
//! Only the few protobuf fields that serving needs are declared; weights and nodes are skipped, not copied.
//! Field numbers: onnx.proto3, IR version 10.

use std::fmt;
use std::path::Path;

use prost::Message;
use tallow_input::Dtype;

use crate::batch::Element;
use crate::error::{RuntimeError, one_line};

/// Field numbers of the ONNX messages. Everything else in a file is skipped.
pub(crate) mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Model {
        #[prost(int64, tag = "1")]
        pub ir_version: i64,
        #[prost(string, tag = "2")]
        pub producer_name: String,
        #[prost(string, tag = "3")]
        pub producer_version: String,
        #[prost(message, optional, tag = "7")]
        pub graph: Option<Graph>,
        #[prost(message, repeated, tag = "8")]
        pub opset_import: Vec<OpsetId>,
        #[prost(message, repeated, tag = "14")]
        pub metadata_props: Vec<Entry>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(string, tag = "1")]
        pub key: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct OpsetId {
        #[prost(string, tag = "1")]
        pub domain: String,
        #[prost(int64, tag = "2")]
        pub version: i64,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Graph {
        #[prost(message, repeated, tag = "5")]
        pub initializer: Vec<Initializer>,
        #[prost(message, repeated, tag = "11")]
        pub input: Vec<Value>,
        #[prost(message, repeated, tag = "12")]
        pub output: Vec<Value>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Initializer {
        #[prost(int32, tag = "2")]
        pub data_type: i32,
        #[prost(string, tag = "8")]
        pub name: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub r#type: Option<Type>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Type {
        #[prost(message, optional, tag = "1")]
        pub tensor: Option<Tensor>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        #[prost(int32, tag = "1")]
        pub elem_type: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "1")]
        pub dim: Vec<Dimension>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dimension {
        #[prost(oneof = "Length", tags = "1, 2")]
        pub length: Option<Length>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Length {
        #[prost(int64, tag = "1")]
        Value(i64),
        #[prost(string, tag = "2")]
        Param(String),
    }
}

/// ONNX's codes for 32-bit floats, bytes and 16-bit floats.
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const FLOAT16: i32 = 10;

/// The length of one axis of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number in the graph.
    Fixed(usize),
    /// A name (or `?`): any length.
    Free(String),
}

impl Dim {
    /// The length, if the graph fixes it.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Dim::Fixed(length) => Some(*length),
            Dim::Free(_) => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(length) => write!(f, "{length}"),
            Dim::Free(name) => f.write_str(name),
        }
    }
}

/// An input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its axes; `None` where the graph does not say.
    pub dims: Option<Vec<Dim>>,
}

impl TensorInfo {
    /// The shape as text, for example `[N, 3, 224, 224]`.
    pub fn shape_text(&self) -> String {
        match &self.dims {
            Some(dims) => format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(", ")),
            None => "[any]".into(),
        }
    }
}

/// What a model's file says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The file's path, or `model data`.
    pub file: String,
    /// The format's version.
    pub ir_version: i64,
    /// The version of the standard operator set; 0 if the file names none.
    pub opset: i64,
    /// The program that wrote the file, with its version.
    pub producer: String,
    /// The image input: `[N, C, H, W]` of floats, or `[N, H, W, 3]` of bytes.
    pub input: TensorInfo,
    /// What the input is made of.
    pub element: Element,
    /// The float32 outputs. Outputs of other types are not served.
    pub outputs: Vec<TensorInfo>,
    /// What the weights are: float16 where any is.
    pub dtype: Dtype,
    /// The metadata entries, in the file's order.
    pub props: Vec<(String, String)>,
}

impl ModelInfo {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`RuntimeError::Read`] if it cannot be read, [`RuntimeError::Model`] if it is empty, damaged, or has not
    /// one image input and a float32 output.
    pub fn read(path: impl AsRef<Path>) -> Result<ModelInfo, RuntimeError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| RuntimeError::Read { file: path.into(), source })?;
        ModelInfo::parse(&path.display().to_string(), &bytes)
    }

    /// Reads a model held in memory; `file` is what errors call it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(file: &str, bytes: &[u8]) -> Result<ModelInfo, RuntimeError> {
        let wrong = |reason: String| RuntimeError::Model { file: file.to_owned(), reason };
        if bytes.is_empty() {
            return Err(wrong("the file is empty".into()));
        }
        let model = proto::Model::decode(bytes).map_err(|e| {
            wrong(format!(
                "not an ONNX model, or damaged ({}): name another file, or export it again",
                one_line(e)
            ))
        })?;
        let graph = model.graph.ok_or_else(|| wrong("not an ONNX model: it has no graph".into()))?;

        let is_half = graph.initializer.iter().any(|weight| weight.data_type == FLOAT16);
        let is_weight = |value: &proto::Value| graph.initializer.iter().any(|w| w.name == value.name);
        let inputs: Vec<&proto::Value> = graph.input.iter().filter(|value| !is_weight(value)).collect();
        let [input] = inputs[..] else {
            return Err(wrong(format!("the graph has {} inputs, expected one of images", inputs.len())));
        };
        let info = tensor_info(input);
        let element = match (value_type(input), info.dims.as_deref()) {
            (FLOAT, None | Some([_, _, _, _])) => Element::Float,
            (UINT8, Some([_, _, _, Dim::Fixed(3)])) => Element::Byte,
            (code, _) => {
                return Err(wrong(format!(
                    "the input `{}` is {} {}, expected float32 [N, C, H, W] or uint8 [N, H, W, 3]",
                    info.name,
                    type_name(code),
                    info.shape_text()
                )));
            }
        };
        let outputs: Vec<TensorInfo> =
            graph.output.iter().filter(|value| value_type(value) == FLOAT).map(tensor_info).collect();
        if outputs.is_empty() {
            return Err(wrong("the graph has no float32 output".into()));
        }
        let standard = model.opset_import.iter().find(|set| set.domain.is_empty() || set.domain == "ai.onnx");
        Ok(ModelInfo {
            file: file.to_owned(),
            ir_version: model.ir_version,
            opset: standard.map_or(0, |set| set.version),
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().to_owned(),
            input: info,
            element,
            outputs,
            dtype: if is_half { Dtype::F16 } else { Dtype::F32 },
            props: model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        })
    }

    /// The number of images in a run, if the graph fixes it.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.input.dims.as_ref().and_then(|dims| dims[0].fixed())
    }
}

pub(crate) fn value_type(value: &proto::Value) -> i32 {
    value.r#type.as_ref().and_then(|t| t.tensor.as_ref()).map_or(0, |tensor| tensor.elem_type)
}

pub(crate) fn tensor_info(value: &proto::Value) -> TensorInfo {
    let shape =
        value.r#type.as_ref().and_then(|t| t.tensor.as_ref()).and_then(|tensor| tensor.shape.as_ref());
    let dims = shape.map(|shape| {
        let dim = |dim: &proto::Dimension| match &dim.length {
            Some(proto::Length::Value(n)) if *n > 0 => Dim::Fixed(usize::try_from(*n).unwrap_or(usize::MAX)),
            Some(proto::Length::Param(name)) if !name.is_empty() => Dim::Free(name.clone()),
            _ => Dim::Free("?".into()),
        };
        shape.dim.iter().map(dim).collect()
    });
    TensorInfo { name: value.name.clone(), dims }
}

/// The names of ONNX's element types that image models are met with.
pub(crate) fn type_name(code: i32) -> String {
    match code {
        1 => "float32".into(),
        2 => "uint8".into(),
        3 => "int8".into(),
        6 => "int32".into(),
        7 => "int64".into(),
        10 => "float16".into(),
        11 => "float64".into(),
        16 => "bfloat16".into(),
        other => format!("of type {other}"),
    }
}
