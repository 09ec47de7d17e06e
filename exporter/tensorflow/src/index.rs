//! Where the records of a file are, so that they can be read in any order and from several threads.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::crc;
use crate::error::{Error, Result};
use crate::record::{FOOTER, HEADER, framed_len};

/// Read at a time while looking for records: a page, since the data between two lengths is skipped.
const PAGE: usize = 4096;

/// The place of a record in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where the record's length is, in bytes from the start of the file.
    pub offset: u64,
    /// Bytes of data.
    pub length: usize,
}

/// Finds the records of a file from their lengths alone; the data is skipped, and its sums are not checked.
///
/// # Errors
/// Where the file cannot be read, the sum of a length is wrong, or the file ends within a record.
pub fn scan(path: &Path) -> Result<Vec<Span>> {
    let mut spans = vec![];
    scan_into(path, &mut spans)?;
    Ok(spans)
}

/// As [`scan`]; the records before the one that is an error are in `spans` in any case.
///
/// # Errors
/// As [`scan`].
pub fn scan_into(path: &Path, spans: &mut Vec<Span>) -> Result<()> {
    let file = File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    let mut input = BufReader::with_capacity(PAGE, file);
    let mut offset = 0;
    while offset < size {
        let damaged = |problem: String| Error::damaged(path, offset, problem);
        if size - offset < HEADER as u64 {
            return Err(damaged("the file ends within a record's length".into()));
        }
        let mut header = [0; HEADER];
        input.read_exact(&mut header).map_err(Error::io(path))?;
        let length = parse_header(&header).map_err(|problem| damaged(problem.into()))?;
        let room = size - offset;
        let fits = usize::try_from(length).ok().filter(|_| length <= room).filter(|&n| framed_len(n) <= room);
        let Some(length) = fits else {
            return Err(damaged(format!("the file ends within a record of {length} bytes")));
        };
        spans.push(Span { offset, length });
        offset += framed_len(length);
        let skipped = i64::try_from(length + FOOTER).expect("a file's size fits an offset");
        input.seek_relative(skipped).map_err(Error::io(path))?;
    }
    Ok(())
}

/// The length that a header tells, if its sum is right.
pub(crate) fn parse_header(header: &[u8; HEADER]) -> Result<u64, &'static str> {
    let [length, sum] = [&header[..8], &header[8..]];
    if crc::masked(length) != u32::from_le_bytes(sum.try_into().expect("four bytes")) {
        return Err("the checksum of a record's length is wrong");
    }
    Ok(u64::from_le_bytes(length.try_into().expect("eight bytes")))
}

impl Span {
    /// Reads the record's data, checking both sums. `file` is not moved, so that threads can share it; `path` is what
    /// errors call it; `buffer` only lends its memory.
    ///
    /// # Errors
    /// Where the record is no longer there or a sum is wrong.
    pub fn read<'a>(&self, file: &File, path: &Path, buffer: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let damaged = |problem: String| Error::damaged(path, self.offset, problem);
        buffer.resize(HEADER + self.length + FOOTER, 0);
        read_exact_at(file, buffer, self.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("the file has become shorter".into()),
            _ => Error::io(path)(error),
        })?;
        let header = buffer[..HEADER].try_into().expect("the buffer starts with a header");
        let length = parse_header(header).map_err(|problem| damaged(problem.into()))?;
        if length != self.length as u64 {
            return Err(damaged("the file has changed".into()));
        }
        let (data, sum) = buffer[HEADER..].split_at(self.length);
        if crc::masked(data) != u32::from_le_bytes(sum.try_into().expect("four bytes")) {
            return Err(damaged(format!("the checksum of a record of {length} bytes is wrong")));
        }
        Ok(data)
    }

    /// Reads the first bytes of the record's data, at most `count`, checking nothing.
    ///
    /// # Errors
    /// Where the record is no longer there.
    pub fn peek<'a>(
        &self,
        file: &File,
        path: &Path,
        count: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        buffer.resize(count.min(self.length), 0);
        read_exact_at(file, buffer, self.offset + HEADER as u64).map_err(Error::io(path))?;
        Ok(buffer)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RecordReader, write_record};

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn records() -> Vec<Vec<u8>> {
        [0, 1, 5000, 3, 100_000, 4084].iter().map(|&n| (0..n).map(|i| i as u8).collect()).collect()
    }

    fn framed(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![];
        records.iter().for_each(|record| write_record(&mut bytes, record).unwrap());
        bytes
    }

    #[test]
    fn records_are_found_and_read_in_any_order() {
        let file = file(&framed(&records()));
        let spans = scan(file.path()).unwrap();
        let open = File::open(file.path()).unwrap();
        let mut buffer = vec![];
        for (span, record) in spans.iter().zip(records()).rev() {
            assert_eq!(span.read(&open, file.path(), &mut buffer).unwrap(), record);
            assert_eq!(
                span.peek(&open, file.path(), 10, &mut buffer).unwrap(),
                &record[..record.len().min(10)]
            );
        }
        assert_eq!(spans.len(), records().len());
        assert_eq!(scan(self::file(&[]).path()).unwrap(), []);
    }

    #[test]
    fn the_index_and_the_reader_agree_on_every_mutation() {
        let sound = framed(&[b"first".to_vec(), vec![], b"third".to_vec()]);
        let mutations = (0..sound.len()).flat_map(|at| {
            let flipped = |mask| {
                let mut bytes = sound.clone();
                bytes[at] ^= mask;
                bytes
            };
            [flipped(1), flipped(0x80), sound[..at].to_vec(), [&sound[..], &sound[..at]].concat()]
        });
        for bytes in mutations {
            let file = file(&bytes);
            let read: Result<Vec<_>> = RecordReader::new(file.path(), &bytes[..]).collect();
            let indexed = scan(file.path()).and_then(|spans| {
                let open = File::open(file.path()).unwrap();
                let one = |span: &Span| Ok(span.read(&open, file.path(), &mut vec![])?.to_vec());
                spans.iter().map(one).collect::<Result<Vec<_>>>()
            });
            match (read, indexed) {
                (Ok(read), Ok(indexed)) => assert_eq!(read, indexed),
                // The index sees all lengths before any data; the reader stops at the first damage.
                (Err(read), Err(indexed)) => {
                    assert!(indexed.to_string().contains(": damaged at byte "), "{read} / {indexed}");
                }
                (read, indexed) => panic!("{read:?} but {indexed:?}"),
            }
        }
    }

    #[test]
    fn an_absurd_length_is_an_error() {
        for length in [1u64 << 60, u64::MAX, u64::MAX - 15, 1000] {
            let length = length.to_le_bytes();
            let bytes = [&length[..], &crc::masked(&length).to_le_bytes(), b"little"].concat();
            let text = scan(file(&bytes).path()).unwrap_err().to_string();
            assert!(text.contains("damaged at byte 0: the file ends within a record of"), "{text}");
        }
    }

    #[test]
    fn a_file_that_changes_after_the_scan_is_noticed() {
        let file = file(&framed(&[b"first".to_vec(), b"second".to_vec()]));
        let spans = scan(file.path()).unwrap();
        let other = framed(&[b"other".to_vec(), b"three".to_vec()]);
        std::fs::write(file.path(), &other).unwrap();
        let open = File::open(file.path()).unwrap();
        let read = |span: &Span| span.read(&open, file.path(), &mut vec![]).map(<[u8]>::to_vec);
        assert_eq!(read(&spans[0]).unwrap(), b"other");
        assert!(read(&spans[1]).unwrap_err().to_string().contains("the file has become shorter"));
    }
}
