//! Writes a bundle of one shard, byte for byte as TensorFlow's own writer does.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use prost::encoding::encode_varint;

use super::{data_path, index_path};
use crate::crc;
use crate::error::{Error, Result};
use crate::proto::{BundleEntry, BundleHeader, DataType, TensorShape, VersionDef};
use crate::table::TableWriter;

/// Values converted at a time: small enough for the cache.
const CHUNK: usize = 16 * 1024;

/// A bundle in the making.
pub struct BundleWriter {
    prefix: PathBuf,
    index: TableWriter,
    data: BufWriter<File>,
    offset: u64,
}

impl BundleWriter {
    /// Starts the bundle `<prefix>.*`, in place of one that is there.
    ///
    /// # Errors
    /// Where the files cannot be made.
    pub fn create(prefix: &Path) -> Result<Self> {
        let path = data_path(prefix, 0, 1);
        let data = BufWriter::new(File::create(&path).map_err(Error::io(&path))?);
        let version = Some(VersionDef { producer: 1, min_consumer: 0 });
        let header = BundleHeader { num_shards: 1, endianness: 0, version };
        let mut index = TableWriter::new();
        index.add(b"", &header.encode_to_vec());
        Ok(Self { prefix: prefix.to_owned(), index, data, offset: 0 })
    }

    /// Adds a tensor of 32-bit floating point numbers.
    ///
    /// # Errors
    /// Where the disk is full.
    ///
    /// # Panics
    /// If `key` is not greater than the one before, or `values` are not as many as `shape` says.
    pub fn add_f32(&mut self, key: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{key}");
        let mut sum = 0;
        let mut buffer = vec![0; 4 * CHUNK.min(values.len())];
        for chunk in values.chunks(CHUNK) {
            let buffer = &mut buffer[..4 * chunk.len()];
            for (bytes, value) in buffer.chunks_exact_mut(4).zip(chunk) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            sum = crc32c::crc32c_append(sum, buffer);
            self.write(buffer)?;
        }
        self.add_entry(key, DataType::Float, shape, 4 * values.len() as u64, sum);
        Ok(())
    }

    /// Adds a 64-bit integer.
    ///
    /// # Errors
    /// Where the disk is full.
    ///
    /// # Panics
    /// If `key` is not greater than the one before.
    pub fn add_i64(&mut self, key: &str, value: i64) -> Result<()> {
        let bytes = value.to_le_bytes();
        self.write(&bytes)?;
        self.add_entry(key, DataType::Int64, &[], 8, crc32c::crc32c(&bytes));
        Ok(())
    }

    /// Adds a string.
    ///
    /// # Errors
    /// Where the disk is full.
    ///
    /// # Panics
    /// If `key` is not greater than the one before, or the string has 4 GiB.
    pub fn add_string(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let length = u32::try_from(value.len()).expect("longer strings have another form").to_le_bytes();
        let of_length = crc::masked(&length).to_le_bytes();
        let mut bytes = vec![];
        encode_varint(value.len() as u64, &mut bytes);
        bytes.extend(of_length);
        bytes.extend(value);
        self.write(&bytes)?;
        // The sum is over the length as four bytes, not as the varint that is in the file.
        let sum =
            [&length[..], &of_length, value].iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part));
        self.add_entry(key, DataType::String, &[], bytes.len() as u64, sum);
        Ok(())
    }

    /// Writes the index and ends the bundle.
    ///
    /// # Errors
    /// Where the disk is full.
    pub fn finish(mut self) -> Result<()> {
        let path = data_path(&self.prefix, 0, 1);
        let synced = self.data.flush().and_then(|()| self.data.get_ref().sync_all());
        synced.map_err(Error::io(&path))?;
        let path = index_path(&self.prefix);
        let write = |bytes: &[u8]| -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write(&self.index.finish()).map_err(Error::io(&path))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.data.write_all(bytes).map_err(Error::io(&data_path(&self.prefix, 0, 1)))
    }

    fn add_entry(&mut self, key: &str, dtype: DataType, shape: &[usize], size: u64, sum: u32) {
        let entry = BundleEntry {
            dtype: dtype.into(),
            shape: Some(TensorShape::of(shape.iter().map(|&size| size as i64))),
            shard_id: 0,
            offset: self.offset as i64,
            size: size as i64,
            crc32c: crc::mask(sum),
            slices: vec![],
        };
        self.index.add(key.as_bytes(), &entry.encode_to_vec());
        self.offset += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// The bytes that TensorFlow 2.21 writes for `{"a": [1.0, 2.0], "s": b"hi"}`.
    #[test]
    fn the_bytes_are_tensorflows() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = folder.path().join("variables");
        let mut bundle = BundleWriter::create(&prefix).unwrap();
        bundle.add_f32("a", &[2], &[1.0, 2.0]).unwrap();
        bundle.add_string("s", b"hi").unwrap();
        bundle.finish().unwrap();
        let index = "00000608011a02080100010f610801120412020802280835593ce53500010d7308071200200828073509eb4d15\
                     0000000001000000006e02a3e7000000000100000000c0f2a1b0000102740035000000000100000000374a802b\
                     3a08470e00000000000000000000000000000000000000000000000000000000000000000000000057fb808b24\
                     7547db";
        assert_eq!(std::fs::read(index_path(&prefix)).unwrap(), hex(index));
        assert_eq!(std::fs::read(data_path(&prefix, 0, 1)).unwrap(), hex("0000803f0000004002d8d810736869"));
    }
}
