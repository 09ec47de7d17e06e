//! The messages of TensorFlow's files, field numbers as in its .proto files (checked against 2.21 and 2.12).
//! Written by hand so that no protoc is needed; fields that are not listed are skipped on reading. Maps are sorted, so
//! that the same model gives the same bytes.

mod bundle;
mod graph;
mod meta_graph;
mod object_graph;

pub use bundle::{BundleEntry, BundleHeader, SliceExtent, TensorSlice, slice_extent};
pub use graph::{
    ArgDef, AttrValue, Dim, FunctionDef, FunctionDefLibrary, GraphDef, ListValue, NodeDef, OpDef,
    TensorProto, TensorShape, VersionDef, attr_value,
};
pub use meta_graph::{
    AssetFileDef, BytesList, CollectionDef, MetaGraphDef, MetaInfoDef, SavedModel, SaverDef, SignatureDef,
    TensorInfo, VariableDef, collection_def, tensor_info,
};
pub use object_graph::{
    BareConcreteFunction, DictValue, FunctionSpec, NamedTupleValue, NoneValue, ObjectReference, PairValue,
    SavedAsset, SavedConcreteFunction, SavedFunction, SavedObject, SavedObjectGraph, SavedUserObject,
    SavedVariable, SerializedTensor, StructuredValue, TensorSpec, TrackableObject, TrackableObjectGraph,
    Values, saved_object, structured_value,
};

/// Element types, `DataType` in types.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum DataType {
    /// No type.
    Invalid = 0,
    /// 32-bit floating point.
    Float = 1,
    /// 64-bit floating point.
    Double = 2,
    /// 32-bit integer.
    Int32 = 3,
    /// Unsigned byte.
    Uint8 = 4,
    /// 16-bit integer.
    Int16 = 5,
    /// Signed byte.
    Int8 = 6,
    /// Bytes of any length.
    String = 7,
    /// 64-bit integer.
    Int64 = 9,
    /// Truth value, one byte.
    Bool = 10,
    /// 16-bit floating point, 8 bits of exponent.
    Bfloat16 = 14,
    /// 16-bit floating point, 5 bits of exponent.
    Half = 19,
    /// A handle, as of a variable.
    Resource = 20,
}
