//! Reads a whole table and checks every block's sum.

use std::path::Path;

use prost::encoding::decode_varint;

use super::{FOOTER, Handle, MAGIC, TRAILER, UNCOMPRESSED};
use crate::crc;
use crate::error::{Error, Result};

/// An entry: key and value.
type Entry = (Vec<u8>, Vec<u8>);

/// The entries of the table in `file`, in order; `path` is what errors call it.
///
/// # Errors
/// Where anything is not as the format demands: a wrong sum, a length that leads out of the file, keys that are not
/// sorted.
pub fn read_table(path: &Path, file: &[u8]) -> Result<Vec<Entry>> {
    let table = Table { path, file };
    let index = table.index()?;
    let mut entries: Vec<Entry> = vec![];
    for (_, handle) in table.entries(index)? {
        let handle = table.handle(&mut &handle[..], index.offset)?;
        let block = table.entries(handle)?;
        if let (Some((last, _)), Some((first, _))) = (entries.last(), block.first())
            && last >= first
        {
            return Err(table.damaged(handle.offset, "the keys are not sorted"));
        }
        entries.extend(block);
    }
    Ok(entries)
}

struct Table<'a> {
    path: &'a Path,
    file: &'a [u8],
}

impl<'a> Table<'a> {
    fn index(&self) -> Result<Handle> {
        let start = self.file.len().checked_sub(FOOTER);
        let Some(start) = start.filter(|_| self.file.ends_with(&MAGIC.to_le_bytes())) else {
            let problem =
                "it does not end in a table's footer: it is cut short, or no index of a tensor bundle";
            return Err(self.damaged(self.file.len() as u64, problem));
        };
        let mut footer = &self.file[start..];
        let place = start as u64;
        self.handle(&mut footer, place)?;
        self.handle(&mut footer, place)
    }

    /// A handle that stands at `place`.
    fn handle(&self, bytes: &mut &[u8], place: u64) -> Result<Handle> {
        let mut number =
            || decode_varint(bytes).map_err(|_| self.damaged(place, "a block's handle is cut short"));
        Ok(Handle { offset: number()?, size: number()? })
    }

    /// The bytes of a block, whose sum is right.
    fn block(&self, Handle { offset, size }: Handle) -> Result<&'a [u8]> {
        let end = offset.checked_add(size).and_then(|end| end.checked_add(TRAILER as u64));
        let Some(end) = end.filter(|&end| end <= self.file.len() as u64) else {
            return Err(self.damaged(offset, format!("a block of {size} bytes leads out of the file")));
        };
        let (block, sum) = self.file[offset as usize..end as usize].split_at(size as usize + 1);
        if crc::masked(block).to_le_bytes() != sum {
            return Err(self.damaged(offset, "the checksum of a block is wrong"));
        }
        match block.split_last() {
            Some((&UNCOMPRESSED, block)) => Ok(block),
            _ => Err(Error::unusable(
                self.path,
                "its blocks are compressed, which TensorFlow's bundles never are",
            )),
        }
    }

    fn entries(&self, handle: Handle) -> Result<Vec<Entry>> {
        let block = self.block(handle)?;
        let damaged = |problem: &str| self.damaged(handle.offset, problem);
        let restarts = || {
            let (rest, count) = block.split_last_chunk::<4>()?;
            rest.len().checked_sub((u32::from_le_bytes(*count) as usize).checked_mul(4)?)
        };
        let length = restarts().ok_or_else(|| damaged("a block's restarts lead out of it"))?;
        let mut bytes = &block[..length];
        let mut entries: Vec<Entry> = vec![];
        while !bytes.is_empty() {
            let mut number = || decode_varint(&mut bytes).map_err(|_| damaged("an entry is cut short"));
            let [shared, unshared, value] = [number()?, number()?, number()?];
            let last = entries.last().map_or(&[][..], |(key, _)| key);
            let prefix = usize::try_from(shared).ok().and_then(|shared| last.get(..shared));
            let whole = unshared.checked_add(value).filter(|&whole| whole <= bytes.len() as u64);
            let (Some(prefix), Some(whole)) = (prefix, whole) else {
                return Err(damaged("an entry leads out of its block"));
            };
            let (entry, rest) = bytes.split_at(whole as usize);
            let (suffix, value) = entry.split_at(unshared as usize);
            let key = [prefix, suffix].concat();
            if !entries.is_empty() && key.as_slice() <= last {
                return Err(damaged("the keys are not sorted"));
            }
            entries.push((key, value.to_vec()));
            bytes = rest;
        }
        Ok(entries)
    }

    fn damaged(&self, offset: u64, problem: impl Into<String>) -> Error {
        Error::damaged(self.path, offset, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TableWriter;
    use super::*;

    fn table(entries: usize) -> (Vec<Entry>, Vec<u8>) {
        let entries: Vec<Entry> = (0..entries)
            .map(|i| (format!("layer/{i:06}/kernel").into_bytes(), vec![i as u8; i % 300]))
            .collect();
        let mut writer = TableWriter::new();
        entries.iter().for_each(|(key, value)| writer.add(key, value));
        (entries, writer.finish())
    }

    #[test]
    fn entries_read_back_from_one_block_and_from_many() {
        for count in [0, 1, 16, 17, 5000] {
            let (entries, file) = table(count);
            assert_eq!(read_table(Path::new("index"), &file).unwrap(), entries);
        }
    }

    #[test]
    fn damage_anywhere_is_an_error_or_changes_nothing() {
        let (entries, file) = table(40);
        for i in 0..file.len() {
            for bit in [1, 0x80] {
                let mut flipped = file.clone();
                flipped[i] ^= bit;
                match read_table(Path::new("index"), &flipped) {
                    // The metaindex is empty and not read, and its handle's neighbour is padding.
                    Ok(read) => assert_eq!(read, entries),
                    Err(error) => assert!(error.to_string().starts_with("index: "), "{error}"),
                }
            }
            assert!(read_table(Path::new("index"), &file[..i]).is_err());
        }
    }

    /// Blocks whose sums are right and whose contents are nonsense.
    #[test]
    fn nonsense_with_a_sound_checksum_is_an_error_and_no_panic() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        for _ in 0..20_000 {
            let mut block: Vec<u8> = (0..random() % 40).map(|_| random()).collect();
            block.extend([1, 0, 0, 0, UNCOMPRESSED]);
            let handle = Handle { offset: 0, size: block.len() as u64 - 1 };
            block.extend(crc::masked(&block).to_le_bytes());
            let _ = Table { path: Path::new("index"), file: &block }.entries(handle);
        }
    }
}
