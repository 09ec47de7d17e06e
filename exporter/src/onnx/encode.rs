//! The bytes of a model file. Tensors (f32, f16, or 64-bit integers) are streamed behind the rest of the graph:
//! protocol buffers leave the order of fields open, and every length is known beforehand.

use std::io::{self, Write};
use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, WithDType};
use half::f16;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::proto::{FLOAT, FLOAT16, GraphProto, INT64, ModelProto, TensorProto};
use crate::error::Result;

/// `ModelProto.graph`, `GraphProto.initializer`, `TensorProto.raw_data`.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// Values converted at a time: small enough for the cache.
const CHUNK: usize = 16 * 1024;

/// A model whose length is known and which is ready to be written.
pub(super) struct Encoding {
    /// Everything up to the first initializer.
    head: Vec<u8>,
    /// Each with the bytes that come before its values.
    tensors: Vec<(Vec<u8>, Tensor)>,
    length: usize,
}

impl Encoding {
    /// `head` is a model without its graph, `graph` has no initializers.
    pub(super) fn new(
        head: &ModelProto,
        graph: &GraphProto,
        initializers: Vec<(String, Tensor)>,
    ) -> Result<Self> {
        let mut tensors = Vec::with_capacity(initializers.len());
        let mut graph_length = graph.encoded_len();
        for (name, tensor) in initializers {
            let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
            let prefix = prefix(name, &tensor);
            graph_length += prefix.len() + bytes(&tensor);
            tensors.push((prefix, tensor));
        }
        let mut head = head.encode_to_vec();
        encode_key(GRAPH, WireType::LengthDelimited, &mut head);
        encode_varint(graph_length as u64, &mut head);
        let length = head.len() + graph_length;
        head.extend(graph.encode_to_vec());
        Ok(Self { head, tensors, length })
    }

    /// Length of the file in bytes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Writes the file's bytes.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        for (prefix, tensor) in &self.tensors {
            out.write_all(prefix)?;
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else { unreachable!("`new` moved it to the CPU") };
            let place = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
            match tensor.dtype() {
                DType::I64 => write_values(out, storage, place, i64::to_le_bytes)?,
                DType::F16 => write_values(out, storage, place, f16::to_le_bytes)?,
                _ => write_values(out, storage, place, f32::to_le_bytes)?,
            }
        }
        Ok(())
    }
}

fn write_values<T: WithDType, const N: usize>(
    out: &mut impl Write,
    storage: &CpuStorage,
    place: Range<usize>,
    to_bytes: fn(T) -> [u8; N],
) -> io::Result<()> {
    let values = &storage.as_slice::<T>().map_err(io::Error::other)?[place];
    let mut buffer = Vec::with_capacity(N * CHUNK.min(values.len()));
    for chunk in values.chunks(CHUNK) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|&value| to_bytes(value)));
        out.write_all(&buffer)?;
    }
    Ok(())
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.dtype().size_in_bytes() * tensor.elem_count()
}

/// Keys and lengths of the initializer, its fields but the values, and key and length of these.
fn prefix(name: String, tensor: &Tensor) -> Vec<u8> {
    let dims = tensor.dims().iter().map(|&d| d as i64).collect();
    let data_type = match tensor.dtype() {
        DType::I64 => INT64,
        DType::F16 => FLOAT16,
        _ => FLOAT,
    };
    let fields = TensorProto { dims, data_type, name, raw_data: vec![] };
    let values = bytes(tensor);
    let length = fields.encoded_len() + key_len(RAW_DATA) + encoded_len_varint(values as u64) + values;
    let mut prefix = Vec::new();
    encode_key(INITIALIZER, WireType::LengthDelimited, &mut prefix);
    encode_varint(length as u64, &mut prefix);
    prefix.extend(fields.encode_to_vec());
    encode_key(RAW_DATA, WireType::LengthDelimited, &mut prefix);
    encode_varint(values as u64, &mut prefix);
    prefix
}
