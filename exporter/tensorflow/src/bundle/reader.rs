//! Reads bundles: Tallow's and TensorFlow's own, of one data file or several, with whole and partitioned tensors.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::encoding::decode_varint;

use super::slices::{self, Extent};
use super::{data_path, index_path};
use crate::crc;
use crate::error::{Error, Result};
use crate::proto::{BundleEntry, BundleHeader, DataType};
use crate::table::read_table;

/// A bundle whose index has been read. Tensors are read one by one.
pub struct BundleReader {
    prefix: PathBuf,
    index: PathBuf,
    shards: usize,
    entries: BTreeMap<Vec<u8>, BundleEntry>,
}

/// A tensor's elements.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorData {
    /// Element type.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// The elements, little-endian, the last dimension fastest.
    pub bytes: Vec<u8>,
}

impl TensorData {
    /// The elements of a floating-point tensor in 32 bits; none for another type.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&bytes| convert(bytes)).collect()
        }
        match self.dtype {
            DataType::Float => Some(each(&self.bytes, f32::from_le_bytes)),
            DataType::Double => Some(each(&self.bytes, |bytes| f64::from_le_bytes(bytes) as f32)),
            DataType::Half => Some(each(&self.bytes, |bytes| half::f16::from_le_bytes(bytes).to_f32())),
            DataType::Bfloat16 => Some(each(&self.bytes, |bytes| half::bf16::from_le_bytes(bytes).to_f32())),
            _ => None,
        }
    }
}

impl BundleReader {
    /// Opens the bundle `<prefix>.index`.
    ///
    /// # Errors
    /// Where the index is missing or damaged, or a data file is missing.
    pub fn open(prefix: &Path) -> Result<Self> {
        let path = index_path(prefix);
        let file = fs::read(&path).map_err(Error::io(&path))?;
        let damaged = |problem: String| Error::damaged(&path, 0, problem);
        let mut table = read_table(&path, &file)?.into_iter();
        let header = table.next().filter(|(key, _)| key.is_empty());
        let header = header.and_then(|(_, value)| BundleHeader::decode(&value[..]).ok());
        let header = header.ok_or_else(|| damaged("the index has no header".into()))?;
        if header.endianness != 0 {
            return Err(Error::unusable(&path, "it was written on a big-endian machine; convert it there"));
        }
        let mut entries = BTreeMap::new();
        for (key, value) in table {
            let entry = BundleEntry::decode(&value[..]).map_err(|error| {
                damaged(format!("the entry of `{}` cannot be read ({error})", String::from_utf8_lossy(&key)))
            })?;
            entries.insert(key, entry);
        }
        let shards = usize::try_from(header.num_shards).ok().filter(|shards| (1..100_000).contains(shards));
        let shards = shards.ok_or_else(|| damaged(format!("it says {} data files", header.num_shards)))?;
        for shard in 0..shards {
            let data = data_path(prefix, shard, shards);
            if !data.is_file() {
                let problem =
                    format!("missing, and {} needs it: copy all files of the checkpoint", path.display());
                return Err(Error::unusable(&data, problem));
            }
        }
        Ok(Self { prefix: prefix.to_owned(), index: path, shards, entries })
    }

    /// The index file.
    pub fn index(&self) -> &Path {
        &self.index
    }

    /// The tensors' names and entries, sorted; parts of partitioned tensors are not listed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &BundleEntry)> {
        let names = self.entries.iter().filter(|(key, _)| key.first() != Some(&0));
        names.filter_map(|(key, entry)| Some((std::str::from_utf8(key).ok()?, entry)))
    }

    /// Reads a tensor of a fixed element size and checks its sum; none if the bundle has none of that name.
    ///
    /// # Errors
    /// Where the data is cut short or damaged, or the tensor is one of strings.
    pub fn read(&self, name: &str) -> Result<Option<TensorData>> {
        let Some(entry) = self.entries.get(name.as_bytes()) else { return Ok(None) };
        let (dtype, shape) = (self.dtype(name, entry)?, self.shape(name, entry)?);
        let size = element_size(dtype).ok_or_else(|| {
            self.unusable(format!("`{name}` holds {dtype:?}, and a tensor of numbers is needed"))
        })?;
        let length = shape.iter().try_fold(size, |length, &dim| length.checked_mul(dim));
        let length =
            length.ok_or_else(|| self.damaged(format!("`{name}` has the impossible shape {shape:?}")))?;
        if entry.slices.is_empty() {
            let bytes = self.bytes(name, entry, Some(length))?;
            self.check(name, entry, crc32c::crc32c(&bytes))?;
            return Ok(Some(TensorData { dtype, shape, bytes }));
        }
        // The parts are read first: a tensor is not larger than what the files hold of it.
        let mut parts = vec![];
        for slice in &entry.slices {
            let extents = slices::extents(slice).filter(|extents| fits(extents, &shape));
            let extents =
                extents.ok_or_else(|| self.damaged(format!("a part of `{name}` leads out of it")))?;
            let part = self.entries.get(&slices::key(name, &extents));
            let part = part.ok_or_else(|| self.damaged(format!("a part of `{name}` is missing")))?;
            let lengths =
                shape.iter().zip(&extents).map(|(&dim, e)| e.map_or(dim, |(_, length)| length as usize));
            let bytes = self.bytes(name, part, Some(size * lengths.product::<usize>()))?;
            self.check(name, part, crc32c::crc32c(&bytes))?;
            parts.push((extents, bytes));
        }
        if parts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() != length {
            return Err(self.damaged(format!("the parts of `{name}` do not make up the whole")));
        }
        let mut bytes = vec![0; length];
        for (extents, part) in parts {
            place(&mut bytes, &shape, &extents, &part, size);
        }
        Ok(Some(TensorData { dtype, shape, bytes }))
    }

    /// Reads a single string; none if the bundle has none of that name.
    ///
    /// # Errors
    /// Where the data is cut short or damaged, or the tensor is no single string.
    pub fn read_string(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.entries.get(name.as_bytes()) else { return Ok(None) };
        if self.dtype(name, entry)? != DataType::String || !self.shape(name, entry)?.is_empty() {
            return Err(self.unusable(format!("`{name}` is no single string")));
        }
        let bytes = self.bytes(name, entry, None)?;
        let mut rest = &bytes[..];
        let length = decode_varint(&mut rest).ok().and_then(|length| u32::try_from(length).ok());
        let (Some(length), Some((sum, text))) = (length, rest.split_first_chunk::<4>()) else {
            return Err(self.damaged(format!("the string `{name}` is cut short")));
        };
        let of_length = length.to_le_bytes();
        if text.len() != length as usize || crc::masked(&of_length).to_le_bytes() != *sum {
            return Err(self.damaged(format!("the length of the string `{name}` is wrong")));
        }
        let parts = [&of_length[..], sum, text];
        self.check(name, entry, parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part)))?;
        Ok(Some(text.to_vec()))
    }

    fn dtype(&self, name: &str, entry: &BundleEntry) -> Result<DataType> {
        DataType::try_from(entry.dtype)
            .map_err(|_| self.unusable(format!("`{name}` has the unknown element type {}", entry.dtype)))
    }

    fn shape(&self, name: &str, entry: &BundleEntry) -> Result<Vec<usize>> {
        let dims = entry.shape.iter().flat_map(|shape| &shape.dim);
        let dims: Result<_, _> = dims.map(|dim| usize::try_from(dim.size)).collect();
        dims.map_err(|_| self.damaged(format!("`{name}` has a negative dimension")))
    }

    /// The bytes of an entry, `length` of them if that is known.
    fn bytes(&self, name: &str, entry: &BundleEntry, length: Option<usize>) -> Result<Vec<u8>> {
        let path = data_path(&self.prefix, entry.shard_id.max(0) as usize, self.shards);
        let place = u64::try_from(entry.offset).ok().zip(usize::try_from(entry.size).ok());
        let known = (0..self.shards as i32).contains(&entry.shard_id);
        let Some((offset, size)) =
            place.filter(|&(_, size)| known && length.is_none_or(|length| length == size))
        else {
            return Err(self.damaged(format!("the entry of `{name}` contradicts itself")));
        };
        let mut file = File::open(&path).map_err(Error::io(&path))?;
        let available = file.metadata().map_err(Error::io(&path))?.len();
        if offset.checked_add(size as u64).is_none_or(|end| end > available) {
            let problem =
                format!("`{name}` should have {size} bytes here: the file is cut short at {available}");
            return Err(Error::damaged(&path, offset, problem));
        }
        let mut bytes = vec![0; size];
        file.seek(SeekFrom::Start(offset)).map_err(Error::io(&path))?;
        file.read_exact(&mut bytes).map_err(Error::io(&path))?;
        Ok(bytes)
    }

    fn check(&self, name: &str, entry: &BundleEntry, sum: u32) -> Result<()> {
        if crc::mask(sum) == entry.crc32c {
            return Ok(());
        }
        let path = data_path(&self.prefix, entry.shard_id as usize, self.shards);
        Err(Error::damaged(&path, entry.offset as u64, format!("the checksum of `{name}` is wrong")))
    }

    fn damaged(&self, problem: String) -> Error {
        Error::damaged(&self.index, 0, problem)
    }

    fn unusable(&self, problem: String) -> Error {
        Error::unusable(&self.index, problem)
    }
}

/// Bytes of an element; none where it varies.
fn element_size(dtype: DataType) -> Option<usize> {
    match dtype {
        DataType::Uint8 | DataType::Int8 | DataType::Bool => Some(1),
        DataType::Half | DataType::Bfloat16 | DataType::Int16 => Some(2),
        DataType::Float | DataType::Int32 => Some(4),
        DataType::Double | DataType::Int64 => Some(8),
        DataType::Invalid | DataType::String | DataType::Resource => None,
    }
}

fn fits(extents: &[Extent], shape: &[usize]) -> bool {
    let inside =
        |(start, length): (u64, u64), dim: usize| start.checked_add(length).is_some_and(|e| e <= dim as u64);
    extents.len() == shape.len()
        && extents.iter().zip(shape).all(|(extent, &dim)| extent.is_none_or(|extent| inside(extent, dim)))
}

/// Copies a part to its place in the whole.
fn place(whole: &mut [u8], shape: &[usize], extents: &[Extent], part: &[u8], size: usize) {
    let Some((&dim, inner)) = shape.split_first() else {
        whole.copy_from_slice(part);
        return;
    };
    let (start, length) = extents[0].map_or((0, dim), |(start, length)| (start as usize, length as usize));
    if length == 0 || part.is_empty() {
        return;
    }
    let row = size * inner.iter().product::<usize>();
    for (row, part) in whole.chunks_mut(row).skip(start).zip(part.chunks(part.len() / length)) {
        place(row, inner, &extents[1..], part, size);
    }
}

#[cfg(test)]
mod tests;
