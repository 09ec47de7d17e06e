//! graph.proto, node_def.proto, attr_value.proto, function.proto, tensor.proto, tensor_shape.proto.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

use super::DataType;

/// Nodes, and the functions that they or a loader may call.
#[derive(Clone, PartialEq, Message)]
pub struct GraphDef {
    /// In any order; every input names a node.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeDef>,
    /// Functions.
    #[prost(message, optional, tag = "2")]
    pub library: Option<FunctionDefLibrary>,
    /// Which TensorFlow wrote it, and which may read it.
    #[prost(message, optional, tag = "4")]
    pub versions: Option<VersionDef>,
}

/// Versions of a format.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct VersionDef {
    /// The writer's.
    #[prost(int32, tag = "1")]
    pub producer: i32,
    /// The oldest reader's.
    #[prost(int32, tag = "2")]
    pub min_consumer: i32,
}

/// One operation.
#[derive(Clone, PartialEq, Message)]
pub struct NodeDef {
    /// Unique in its graph or function.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The operation.
    #[prost(string, tag = "2")]
    pub op: String,
    /// `node`, `node:output` or `^node` in a graph; `node:name:index` or an argument's name in a function.
    #[prost(string, repeated, tag = "3")]
    pub input: Vec<String>,
    /// Attributes by name.
    #[prost(btree_map = "string, message", tag = "5")]
    pub attr: BTreeMap<String, AttrValue>,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Message)]
pub struct AttrValue {
    /// The value.
    #[prost(oneof = "attr_value::Value", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub value: Option<attr_value::Value>,
}

/// Kinds of [`AttrValue`].
pub mod attr_value {
    use super::{DataType, ListValue, Oneof, TensorProto, TensorShape};

    /// The kinds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Value {
        /// A list.
        #[prost(message, tag = "1")]
        List(ListValue),
        /// Bytes.
        #[prost(bytes, tag = "2")]
        S(Vec<u8>),
        /// An integer.
        #[prost(int64, tag = "3")]
        I(i64),
        /// A number.
        #[prost(float, tag = "4")]
        F(f32),
        /// A truth value.
        #[prost(bool, tag = "5")]
        B(bool),
        /// An element type.
        #[prost(enumeration = "DataType", tag = "6")]
        Type(i32),
        /// A shape.
        #[prost(message, tag = "7")]
        Shape(TensorShape),
        /// A tensor.
        #[prost(message, tag = "8")]
        Tensor(TensorProto),
    }
}

/// A list as an attribute.
#[derive(Clone, PartialEq, Message)]
pub struct ListValue {
    /// Bytes.
    #[prost(bytes, repeated, tag = "2")]
    pub s: Vec<Vec<u8>>,
    /// Integers.
    #[prost(int64, repeated, tag = "3")]
    pub i: Vec<i64>,
    /// Element types.
    #[prost(enumeration = "DataType", repeated, tag = "6")]
    pub r#type: Vec<i32>,
    /// Shapes.
    #[prost(message, repeated, tag = "7")]
    pub shape: Vec<TensorShape>,
}

/// A shape; −1 where a dimension is unknown.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TensorShape {
    /// Dimensions.
    #[prost(message, repeated, tag = "2")]
    pub dim: Vec<Dim>,
    /// Whether even their number is unknown.
    #[prost(bool, tag = "3")]
    pub unknown_rank: bool,
}

/// A dimension.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Dim {
    /// Its size.
    #[prost(int64, tag = "1")]
    pub size: i64,
}

impl TensorShape {
    /// The shape with these dimensions, −1 for an unknown one.
    pub fn of(dims: impl IntoIterator<Item = i64>) -> Self {
        Self { dim: dims.into_iter().map(|size| Dim { size }).collect(), unknown_rank: false }
    }
}

/// A constant.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// Element type.
    #[prost(enumeration = "DataType", tag = "1")]
    pub dtype: i32,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub tensor_shape: Option<TensorShape>,
    /// All elements, little-endian; or else the lists below, whose last element repeats.
    #[prost(bytes = "vec", tag = "4")]
    pub tensor_content: Vec<u8>,
    /// 32-bit floating point.
    #[prost(float, repeated, tag = "5")]
    pub float_val: Vec<f32>,
    /// 32-bit integers.
    #[prost(int32, repeated, tag = "7")]
    pub int_val: Vec<i32>,
    /// Strings.
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub string_val: Vec<Vec<u8>>,
    /// 64-bit integers.
    #[prost(int64, repeated, tag = "10")]
    pub int64_val: Vec<i64>,
}

/// Functions.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionDefLibrary {
    /// Functions.
    #[prost(message, repeated, tag = "1")]
    pub function: Vec<FunctionDef>,
}

/// A function.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionDef {
    /// Name, inputs and outputs.
    #[prost(message, optional, tag = "1")]
    pub signature: Option<OpDef>,
    /// Its body.
    #[prost(message, repeated, tag = "3")]
    pub node_def: Vec<NodeDef>,
    /// Each output's value, `node:name:index`.
    #[prost(btree_map = "string, string", tag = "4")]
    pub ret: BTreeMap<String, String>,
    /// The nodes that run for their effect, by control output.
    #[prost(btree_map = "string, string", tag = "6")]
    pub control_ret: BTreeMap<String, String>,
}

/// What a function takes and gives.
#[derive(Clone, PartialEq, Message)]
pub struct OpDef {
    /// The function's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Inputs.
    #[prost(message, repeated, tag = "2")]
    pub input_arg: Vec<ArgDef>,
    /// Outputs.
    #[prost(message, repeated, tag = "3")]
    pub output_arg: Vec<ArgDef>,
    /// Whether it reads or writes variables.
    #[prost(bool, tag = "17")]
    pub is_stateful: bool,
    /// Effects.
    #[prost(string, repeated, tag = "20")]
    pub control_output: Vec<String>,
}

/// An input or output of a function.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ArgDef {
    /// Lower case letters, digits and underscores.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Element type.
    #[prost(enumeration = "DataType", tag = "3")]
    pub r#type: i32,
}
