//! Writes a table, byte for byte as TensorFlow's own writer does.

use prost::encoding::encode_varint;

use super::{FOOTER, Handle, MAGIC, UNCOMPRESSED};
use crate::crc;

/// A block is closed once it has this many bytes.
const BLOCK_SIZE: usize = 262_144;
/// Every so many entries of a data block one has its whole key.
const RESTART_INTERVAL: usize = 16;

/// A table in memory: an index is small beside what it indexes.
pub struct TableWriter {
    file: Vec<u8>,
    block: Block,
    index: Block,
    last_key: Vec<u8>,
    /// A closed block whose entry in the index waits for the next key.
    pending: Option<Handle>,
}

impl Default for TableWriter {
    fn default() -> Self {
        Self {
            file: vec![],
            block: Block::new(RESTART_INTERVAL),
            index: Block::new(1),
            last_key: vec![],
            pending: None,
        }
    }
}

impl TableWriter {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If `key` is not greater than the one before.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        assert!(self.is_empty() || key > &self.last_key[..], "keys must be sorted");
        if let Some(handle) = self.pending.take() {
            self.index.add(&separator(&self.last_key, key), &handle.encoded());
        }
        self.block.add(key, value);
        self.last_key = key.to_vec();
        if self.block.len() >= BLOCK_SIZE {
            self.close_block();
        }
    }

    /// The file's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        if !self.block.entries.is_empty() {
            self.close_block();
        }
        let metaindex = self.write(Block::new(RESTART_INTERVAL));
        if let Some(handle) = self.pending.take() {
            self.index.add(&successor(&self.last_key), &handle.encoded());
        }
        let block = std::mem::replace(&mut self.index, Block::new(1));
        let index = self.write(block);
        let mut footer = [metaindex.encoded(), index.encoded()].concat();
        footer.resize(FOOTER - 8, 0);
        footer.extend(MAGIC.to_le_bytes());
        self.file.extend(footer);
        self.file
    }

    fn is_empty(&self) -> bool {
        self.file.is_empty() && self.block.entries.is_empty()
    }

    fn close_block(&mut self) {
        let block = std::mem::replace(&mut self.block, Block::new(RESTART_INTERVAL));
        self.pending = Some(self.write(block));
    }

    fn write(&mut self, block: Block) -> Handle {
        let offset = self.file.len();
        let mut bytes = block.finish();
        let size = bytes.len();
        bytes.push(UNCOMPRESSED);
        let sum = crc::masked(&bytes);
        self.file.extend(bytes);
        self.file.extend(sum.to_le_bytes());
        Handle { offset: offset as u64, size: size as u64 }
    }
}

impl Handle {
    fn encoded(self) -> Vec<u8> {
        let mut bytes = vec![];
        encode_varint(self.offset, &mut bytes);
        encode_varint(self.size, &mut bytes);
        bytes
    }
}

struct Block {
    entries: Vec<u8>,
    restarts: Vec<u32>,
    interval: usize,
    since_restart: usize,
    last_key: Vec<u8>,
}

impl Block {
    fn new(interval: usize) -> Self {
        Self { entries: vec![], restarts: vec![0], interval, since_restart: 0, last_key: vec![] }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        let mut shared = 0;
        if self.since_restart < self.interval {
            shared = key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count();
        } else {
            self.restarts.push(self.entries.len() as u32);
            self.since_restart = 0;
        }
        for length in [shared, key.len() - shared, value.len()] {
            encode_varint(length as u64, &mut self.entries);
        }
        self.entries.extend(&key[shared..]);
        self.entries.extend(value);
        self.last_key = key.to_vec();
        self.since_restart += 1;
    }

    /// Bytes so far, with the restarts.
    fn len(&self) -> usize {
        self.entries.len() + 4 * self.restarts.len() + 4
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = self.entries;
        bytes.extend(self.restarts.iter().flat_map(|restart| restart.to_le_bytes()));
        bytes.extend((self.restarts.len() as u32).to_le_bytes());
        bytes
    }
}

/// A short key that is not below `a` and below `b`.
fn separator(a: &[u8], b: &[u8]) -> Vec<u8> {
    let shared = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    match (a.get(shared), b.get(shared)) {
        (Some(&x), Some(&y)) if x < 0xff && x + 1 < y => [&a[..shared], &[x + 1]].concat(),
        _ => a.to_vec(),
    }
}

/// A short key that is not below `key`.
fn successor(key: &[u8]) -> Vec<u8> {
    match key.iter().position(|&byte| byte != 0xff) {
        Some(i) => [&key[..i], &[key[i] + 1]].concat(),
        None => key.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_index_are_short_and_in_between() {
        assert_eq!(separator(b"abc", b"abz"), b"abd");
        assert_eq!(separator(b"abc", b"abd"), b"abc");
        assert_eq!(separator(b"ab", b"abd"), b"ab");
        assert_eq!(separator(b"a\xff", b"b"), b"a\xff");
        assert_eq!(successor(b"s"), b"t");
        assert_eq!(successor(b"\xff\xffab"), b"\xff\xffb");
        assert_eq!(successor(b"\xff"), b"\xff");
    }
}
