//! saved_model.proto, meta_graph.proto, saver.proto, variable.proto.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

use super::{DataType, GraphDef, SavedObjectGraph, TensorShape};

/// `saved_model.pb`.
#[derive(Clone, PartialEq, Message)]
pub struct SavedModel {
    /// 1.
    #[prost(int64, tag = "1")]
    pub saved_model_schema_version: i64,
    /// One graph for each set of tags.
    #[prost(message, repeated, tag = "2")]
    pub meta_graphs: Vec<MetaGraphDef>,
}

/// A graph and what a loader must know of it; alone in a `.meta` file.
#[derive(Clone, PartialEq, Message)]
pub struct MetaGraphDef {
    /// Tags and writer.
    #[prost(message, optional, tag = "1")]
    pub meta_info_def: Option<MetaInfoDef>,
    /// The graph.
    #[prost(message, optional, tag = "2")]
    pub graph_def: Option<GraphDef>,
    /// How variables are saved and restored.
    #[prost(message, optional, tag = "3")]
    pub saver_def: Option<SaverDef>,
    /// Named lists, as of the variables.
    #[prost(btree_map = "string, message", tag = "4")]
    pub collection_def: BTreeMap<String, CollectionDef>,
    /// What a server may call.
    #[prost(btree_map = "string, message", tag = "5")]
    pub signature_def: BTreeMap<String, SignatureDef>,
    /// Files in `assets/`.
    #[prost(message, repeated, tag = "6")]
    pub asset_file_def: Vec<AssetFileDef>,
    /// Python's view of the model.
    #[prost(message, optional, tag = "7")]
    pub object_graph_def: Option<SavedObjectGraph>,
}

/// Tags and writer of a graph.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MetaInfoDef {
    /// What the graph is for.
    #[prost(string, repeated, tag = "4")]
    pub tags: Vec<String>,
    /// The writer's version.
    #[prost(string, tag = "5")]
    pub tensorflow_version: String,
}

/// The nodes that save and restore.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SaverDef {
    /// The tensor that takes the file's prefix.
    #[prost(string, tag = "1")]
    pub filename_tensor_name: String,
    /// The tensor whose computation saves.
    #[prost(string, tag = "2")]
    pub save_tensor_name: String,
    /// The node that restores.
    #[prost(string, tag = "3")]
    pub restore_op_name: String,
    /// How many checkpoints to keep.
    #[prost(int32, tag = "4")]
    pub max_to_keep: i32,
    /// 2: tensor bundles.
    #[prost(int32, tag = "7")]
    pub version: i32,
}

/// A named list.
#[derive(Clone, PartialEq, Message)]
pub struct CollectionDef {
    /// The list.
    #[prost(oneof = "collection_def::Kind", tags = "2")]
    pub kind: Option<collection_def::Kind>,
}

/// Kinds of [`CollectionDef`].
pub mod collection_def {
    use super::{BytesList, Oneof};

    /// The kinds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// Encoded messages.
        #[prost(message, tag = "2")]
        Bytes(BytesList),
    }
}

/// Encoded messages.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BytesList {
    /// Each of them.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub value: Vec<Vec<u8>>,
}

/// A variable, in the collections `variables` and `trainable_variables`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct VariableDef {
    /// The handle, `v:0`.
    #[prost(string, tag = "1")]
    pub variable_name: String,
    /// The node that assigns the initial value.
    #[prost(string, tag = "2")]
    pub initializer_name: String,
    /// The tensor that reads it.
    #[prost(string, tag = "3")]
    pub snapshot_name: String,
    /// True: a resource.
    #[prost(bool, tag = "5")]
    pub is_resource: bool,
    /// The tensor with the initial value.
    #[prost(string, tag = "6")]
    pub initial_value_name: String,
    /// Whether an optimiser changes it.
    #[prost(bool, tag = "7")]
    pub trainable: bool,
}

/// What a server may call.
#[derive(Clone, PartialEq, Message)]
pub struct SignatureDef {
    /// Tensors to feed.
    #[prost(btree_map = "string, message", tag = "1")]
    pub inputs: BTreeMap<String, TensorInfo>,
    /// Tensors to fetch.
    #[prost(btree_map = "string, message", tag = "2")]
    pub outputs: BTreeMap<String, TensorInfo>,
    /// `tensorflow/serving/predict`.
    #[prost(string, tag = "3")]
    pub method_name: String,
}

/// A tensor of the graph.
#[derive(Clone, PartialEq, Message)]
pub struct TensorInfo {
    /// Where it is.
    #[prost(oneof = "tensor_info::Encoding", tags = "1")]
    pub encoding: Option<tensor_info::Encoding>,
    /// Element type.
    #[prost(enumeration = "DataType", tag = "2")]
    pub dtype: i32,
    /// Shape.
    #[prost(message, optional, tag = "3")]
    pub tensor_shape: Option<TensorShape>,
}

/// Kinds of [`TensorInfo`].
pub mod tensor_info {
    use super::Oneof;

    /// The kinds.
    #[derive(Clone, PartialEq, Eq, Oneof)]
    pub enum Encoding {
        /// A dense tensor, `node:0`.
        #[prost(string, tag = "1")]
        Name(String),
    }
}

/// A file in `assets/`.
#[derive(Clone, PartialEq, Message)]
pub struct AssetFileDef {
    /// The string tensor that gets its path.
    #[prost(message, optional, tag = "1")]
    pub tensor_info: Option<TensorInfo>,
    /// Its name.
    #[prost(string, tag = "2")]
    pub filename: String,
}
