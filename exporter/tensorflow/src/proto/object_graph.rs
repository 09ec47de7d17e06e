//! saved_object_graph.proto, struct.proto, trackable_object_graph.proto: what `tf.saved_model.load` makes objects of.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

use super::{DataType, TensorShape, VersionDef};

/// Python's view of a model. Node 0 is what `tf.saved_model.load` returns.
#[derive(Clone, PartialEq, Message)]
pub struct SavedObjectGraph {
    /// Objects.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<SavedObject>,
    /// Functions of the graph's library that objects offer.
    #[prost(btree_map = "string, message", tag = "2")]
    pub concrete_functions: BTreeMap<String, SavedConcreteFunction>,
}

/// An object.
#[derive(Clone, PartialEq, Message)]
pub struct SavedObject {
    /// Its attributes.
    #[prost(message, repeated, tag = "1")]
    pub children: Vec<ObjectReference>,
    /// What it is.
    #[prost(oneof = "saved_object::Kind", tags = "4, 5, 6, 7, 8")]
    pub kind: Option<saved_object::Kind>,
}

/// Kinds of [`SavedObject`].
pub mod saved_object {
    use super::{BareConcreteFunction, Oneof, SavedAsset, SavedFunction, SavedUserObject, SavedVariable};

    /// The kinds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// An object with attributes, or a list.
        #[prost(message, tag = "4")]
        User(SavedUserObject),
        /// A file.
        #[prost(message, tag = "5")]
        Asset(SavedAsset),
        /// A `tf.function`.
        #[prost(message, tag = "6")]
        Function(SavedFunction),
        /// A variable.
        #[prost(message, tag = "7")]
        Variable(SavedVariable),
        /// A signature.
        #[prost(message, tag = "8")]
        BareConcreteFunction(BareConcreteFunction),
    }
}

/// An attribute.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ObjectReference {
    /// Index of the object.
    #[prost(int32, tag = "1")]
    pub node_id: i32,
    /// The attribute's name.
    #[prost(string, tag = "2")]
    pub local_name: String,
}

/// An object of a registered kind.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SavedUserObject {
    /// The kind.
    #[prost(string, tag = "1")]
    pub identifier: String,
    /// Version of the kind.
    #[prost(message, optional, tag = "2")]
    pub version: Option<VersionDef>,
}

/// A file.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SavedAsset {
    /// Index in `MetaGraphDef.asset_file_def`.
    #[prost(int32, tag = "1")]
    pub asset_file_def_index: i32,
}

/// A function with a trace for each kind of argument.
#[derive(Clone, PartialEq, Message)]
pub struct SavedFunction {
    /// Keys of [`SavedObjectGraph::concrete_functions`].
    #[prost(string, repeated, tag = "1")]
    pub concrete_functions: Vec<String>,
    /// Its parameters.
    #[prost(message, optional, tag = "2")]
    pub function_spec: Option<FunctionSpec>,
}

/// Python's view of a function's parameters.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionSpec {
    /// `inspect.FullArgSpec`.
    #[prost(message, optional, tag = "1")]
    pub fullargspec: Option<StructuredValue>,
    /// None where there are several traces.
    #[prost(message, optional, tag = "5")]
    pub input_signature: Option<StructuredValue>,
}

/// A variable.
#[derive(Clone, PartialEq, Message)]
pub struct SavedVariable {
    /// Element type.
    #[prost(enumeration = "DataType", tag = "1")]
    pub dtype: i32,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
    /// Whether an optimiser changes it.
    #[prost(bool, tag = "3")]
    pub trainable: bool,
    /// Its name.
    #[prost(string, tag = "6")]
    pub name: String,
}

/// A function with one trace.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BareConcreteFunction {
    /// Key of [`SavedObjectGraph::concrete_functions`].
    #[prost(string, tag = "1")]
    pub concrete_function_name: String,
    /// Names of its arguments.
    #[prost(string, repeated, tag = "2")]
    pub argument_keywords: Vec<String>,
    /// How many may be given by place.
    #[prost(int64, tag = "3")]
    pub allowed_positional_arguments: i64,
}

/// A trace: a function of the library and the variables it takes after its arguments.
#[derive(Clone, PartialEq, Message)]
pub struct SavedConcreteFunction {
    /// Objects passed after the arguments.
    #[prost(int32, repeated, tag = "2")]
    pub bound_inputs: Vec<i32>,
    /// A tuple of the positional and a dictionary of the named arguments.
    #[prost(message, optional, tag = "3")]
    pub canonicalized_input_signature: Option<StructuredValue>,
    /// What it returns.
    #[prost(message, optional, tag = "4")]
    pub output_signature: Option<StructuredValue>,
}

/// A nested Python value.
#[derive(Clone, PartialEq, Message)]
pub struct StructuredValue {
    /// The value.
    #[prost(oneof = "structured_value::Kind", tags = "1, 12, 13, 14, 33, 51, 52, 53, 54")]
    pub kind: Option<structured_value::Kind>,
}

/// Kinds of [`StructuredValue`].
pub mod structured_value {
    use super::{DictValue, NamedTupleValue, NoneValue, Oneof, TensorSpec, Values};

    /// The kinds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// None.
        #[prost(message, tag = "1")]
        None(NoneValue),
        /// An integer.
        #[prost(sint64, tag = "12")]
        Int(i64),
        /// A string.
        #[prost(string, tag = "13")]
        String(String),
        /// A truth value.
        #[prost(bool, tag = "14")]
        Bool(bool),
        /// A kind of tensor.
        #[prost(message, tag = "33")]
        TensorSpec(TensorSpec),
        /// A list.
        #[prost(message, tag = "51")]
        List(Values),
        /// A tuple.
        #[prost(message, tag = "52")]
        Tuple(Values),
        /// A dictionary.
        #[prost(message, tag = "53")]
        Dict(DictValue),
        /// A named tuple.
        #[prost(message, tag = "54")]
        NamedTuple(NamedTupleValue),
    }
}

/// None.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct NoneValue {}

/// A list or tuple.
#[derive(Clone, PartialEq, Message)]
pub struct Values {
    /// Elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<StructuredValue>,
}

/// A dictionary.
#[derive(Clone, PartialEq, Message)]
pub struct DictValue {
    /// Entries.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, StructuredValue>,
}

/// A named tuple.
#[derive(Clone, PartialEq, Message)]
pub struct NamedTupleValue {
    /// Its type's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its fields in order.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<PairValue>,
}

/// A field of a named tuple.
#[derive(Clone, PartialEq, Message)]
pub struct PairValue {
    /// Name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<StructuredValue>,
}

/// A kind of tensor.
#[derive(Clone, PartialEq, Message)]
pub struct TensorSpec {
    /// The argument's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Shape.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
    /// Element type.
    #[prost(enumeration = "DataType", tag = "3")]
    pub dtype: i32,
}

/// The objects that a checkpoint holds values of, under the key `_CHECKPOINTABLE_OBJECT_GRAPH`.
#[derive(Clone, PartialEq, Message)]
pub struct TrackableObjectGraph {
    /// Objects; node 0 is the root.
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<TrackableObject>,
}

/// An object of a checkpoint.
#[derive(Clone, PartialEq, Message)]
pub struct TrackableObject {
    /// Its attributes.
    #[prost(message, repeated, tag = "1")]
    pub children: Vec<ObjectReference>,
    /// Its tensors.
    #[prost(message, repeated, tag = "2")]
    pub attributes: Vec<SerializedTensor>,
}

/// A tensor of an object.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SerializedTensor {
    /// `VARIABLE_VALUE`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The variable's name.
    #[prost(string, tag = "2")]
    pub full_name: String,
    /// The key of its value in the bundle.
    #[prost(string, tag = "3")]
    pub checkpoint_key: String,
}
