//! tensor_bundle.proto, tensor_slice.proto: the values of a bundle's index.

use prost::{Message, Oneof};

use super::{DataType, TensorShape, VersionDef};

/// The value of the empty key.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct BundleHeader {
    /// Data files.
    #[prost(int32, tag = "1")]
    pub num_shards: i32,
    /// 0: little-endian.
    #[prost(int32, tag = "2")]
    pub endianness: i32,
    /// Version of the format.
    #[prost(message, optional, tag = "3")]
    pub version: Option<VersionDef>,
}

/// Where a tensor's bytes are.
#[derive(Clone, PartialEq, Message)]
pub struct BundleEntry {
    /// Element type.
    #[prost(enumeration = "DataType", tag = "1")]
    pub dtype: i32,
    /// Shape of the whole tensor.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShape>,
    /// The data file.
    #[prost(int32, tag = "3")]
    pub shard_id: i32,
    /// First byte.
    #[prost(int64, tag = "4")]
    pub offset: i64,
    /// Bytes.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// Masked CRC-32C of the bytes.
    #[prost(fixed32, tag = "6")]
    pub crc32c: u32,
    /// The parts of a partitioned tensor; each has an entry of its own and this one has no bytes.
    #[prost(message, repeated, tag = "7")]
    pub slices: Vec<TensorSlice>,
}

/// A part of a tensor.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TensorSlice {
    /// One for each dimension.
    #[prost(message, repeated, tag = "1")]
    pub extent: Vec<SliceExtent>,
}

/// A range of a dimension.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SliceExtent {
    /// First index.
    #[prost(int64, tag = "1")]
    pub start: i64,
    /// Indices, or the whole dimension where it is absent.
    #[prost(oneof = "slice_extent::Length", tags = "2")]
    pub length: Option<slice_extent::Length>,
}

/// Length of a [`SliceExtent`].
pub mod slice_extent {
    use super::Oneof;

    /// Present or not.
    #[derive(Clone, Copy, PartialEq, Eq, Oneof)]
    pub enum Length {
        /// Indices.
        #[prost(int64, tag = "2")]
        Indices(i64),
    }
}
