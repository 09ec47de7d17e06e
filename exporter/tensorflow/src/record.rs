//! TFRecord framing: u64 length, masked CRC of these eight bytes, data, masked CRC of the data; little-endian.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::crc;
use crate::error::{Error, Result};
use crate::index::parse_header;

/// Length and its checksum.
pub(crate) const HEADER: usize = 12;
/// The data's checksum.
pub(crate) const FOOTER: usize = 4;

/// Bytes that a record of `length` bytes takes in a file.
pub fn framed_len(length: usize) -> u64 {
    (HEADER + length + FOOTER) as u64
}

/// Writes one record. Byte for byte what TensorFlow's own writer gives.
///
/// # Errors
/// As `out`.
pub fn write_record(out: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&crc::masked(&length).to_le_bytes())?;
    out.write_all(data)?;
    out.write_all(&crc::masked(data).to_le_bytes())
}

/// Reads the records of one file in order, checking both sums of each.
pub struct RecordReader<R = BufReader<File>> {
    path: PathBuf,
    input: R,
    offset: u64,
}

impl RecordReader {
    /// Opens a file at its first record.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_at(path, 0)
    }

    /// Opens a file at the record that starts at byte `offset`, as [`Self::offset`] told it.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open_at(path: &Path, offset: u64) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(offset)).map_err(Error::io(path))?;
        Ok(Self { offset, ..Self::new(path, BufReader::with_capacity(256 * 1024, file)) })
    }
}

impl<R: Read> RecordReader<R> {
    /// Reads from `input`; `path` is what errors call it.
    pub fn new(path: &Path, input: R) -> Self {
        Self { path: path.to_owned(), input, offset: 0 }
    }

    /// Where the next record starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, in `buffer`; false at the end of the file.
    ///
    /// # Errors
    /// Where a sum is wrong or the file ends within a record. No more memory is taken than the file has bytes. After a
    /// record whose data alone is damaged the reader stands at the next one, as [`Self::offset`] tells.
    pub fn read_into(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        buffer.clear();
        let mut header = Vec::with_capacity(HEADER);
        if self.fill(&mut header, HEADER as u64)? == 0 {
            return Ok(false);
        }
        if header.len() < HEADER {
            return Err(self.damaged("the file ends within a record's length"));
        }
        let header = header[..].try_into().expect("a whole header was read");
        let length = parse_header(header).map_err(|problem| self.damaged(problem))?;
        let wanted = length.saturating_add(FOOTER as u64);
        if self.fill(buffer, wanted)? < wanted {
            return Err(self.damaged(format!("the file ends within a record of {length} bytes")));
        }
        let data = buffer.len() - FOOTER;
        let sum = u32::from_le_bytes(buffer[data..].try_into().expect("four bytes"));
        buffer.truncate(data);
        let sound = crc::masked(buffer) == sum;
        let checked = if sound {
            Ok(true)
        } else {
            Err(self.damaged(format!("the checksum of a record of {length} bytes is wrong")))
        };
        self.offset += framed_len(data);
        checked
    }

    /// Appends up to `count` bytes; fewer at the end of the file. The buffer grows as the bytes come, whatever a
    /// damaged length promises.
    fn fill(&mut self, buffer: &mut Vec<u8>, count: u64) -> Result<u64> {
        let read = self.input.by_ref().take(count).read_to_end(buffer).map_err(Error::io(&self.path))?;
        Ok(read as u64)
    }

    fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::damaged(&self.path, self.offset, problem)
    }
}

impl<R: Read> Iterator for RecordReader<R> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut data = vec![];
        match self.read_into(&mut data) {
            Ok(true) => Some(Ok(data)),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(records: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![];
        for record in records {
            write_record(&mut out, record).unwrap();
        }
        out
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        RecordReader::new(Path::new("memory"), bytes).collect()
    }

    #[test]
    fn records_read_back_and_their_places_are_known() {
        let records: [&[u8]; 3] = [b"one", b"", &[7; 100_000]];
        let bytes = bytes(&records);
        assert_eq!(bytes.len() as u64, records.iter().map(|r| framed_len(r.len())).sum::<u64>());
        assert_eq!(read(&bytes).unwrap(), records);
        let mut reader = RecordReader::new(Path::new("memory"), &bytes[..]);
        reader.next().unwrap().unwrap();
        assert_eq!(reader.offset(), framed_len(3));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found_with_its_place() {
        let sound = bytes(&[b"first", b"second"]);
        let second = framed_len(5);
        for i in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[i] ^= 0x40;
            let text = read(&flipped).unwrap_err().to_string();
            let place = if (i as u64) < second { 0 } else { second };
            assert!(text.starts_with(&format!("memory: damaged at byte {place}: ")), "{text}");
            let cut = read(&sound[..i]);
            match i as u64 {
                0 => assert_eq!(cut.unwrap().len(), 0),
                i if i == second => assert_eq!(cut.unwrap(), [b"first"]),
                _ => assert!(cut.unwrap_err().to_string().contains("the file ends within a record")),
            }
        }
    }

    #[test]
    fn an_absurd_length_takes_no_memory() {
        let length = (1u64 << 60).to_le_bytes();
        let mut file = length.to_vec();
        file.extend(crc::masked(&length).to_le_bytes());
        file.extend(b"little");
        let text = read(&file).unwrap_err().to_string();
        assert!(text.contains("the file ends within a record of 1152921504606846976 bytes"), "{text}");
    }
}
