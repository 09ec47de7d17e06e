//! Which libraries an ELF file needs: the names that the system's loader looks for, whatever the release.
//! Layout: System V ABI, chapters 4 and 5; 64-bit little-endian files only, which is what CUDA runs on.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// `e_ident` of a 64-bit little-endian file.
const IDENT: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;

/// No sound file has larger tables; a damaged one may say anything.
const LARGEST_TABLE: u64 = 1 << 24;

/// A program header: what is where in the file and in memory.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    length: u64,
}

/// The names in a file's `DT_NEEDED` entries, in their order.
///
/// # Errors
/// Where it cannot be read or is no such file.
pub(crate) fn needed(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let header = bytes(&mut file, 0, 64)?;
    if header[..6] != IDENT {
        return Err(malformed("not a 64-bit little-endian ELF file"));
    }
    let (table, size, count) = (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56));
    if size < 56 {
        return Err(malformed("program headers of an unknown size"));
    }
    let headers = bytes(&mut file, table, u64::from(size) * u64::from(count))?;
    let segments: Vec<Segment> = headers
        .chunks_exact(usize::from(size))
        .map(|at| Segment {
            kind: u32_at(at, 0),
            offset: u64_at(at, 8),
            address: u64_at(at, 16),
            length: u64_at(at, 32),
        })
        .collect();
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Ok(vec![]);
    };
    let entries = bytes(&mut file, dynamic.offset, dynamic.length)?;
    let entries: Vec<(u64, u64)> =
        entries.chunks_exact(16).map(|entry| (u64_at(entry, 0), u64_at(entry, 8))).collect();
    let value = |tag: u64| entries.iter().find(|entry| entry.0 == tag).map(|entry| entry.1);
    let (Some(address), Some(length)) = (value(DT_STRTAB), value(DT_STRSZ)) else {
        return Ok(vec![]);
    };
    let holds = |segment: &&Segment| {
        segment.kind == PT_LOAD && address.checked_sub(segment.address).is_some_and(|at| at < segment.length)
    };
    let segment = segments.iter().find(holds).ok_or_else(|| malformed("no segment holds its names"))?;
    let offset = segment.offset.saturating_add(address - segment.address);
    let names = bytes(&mut file, offset, length)?;
    let name = |at: &(u64, u64)| {
        let text = names.get(usize::try_from(at.1).ok()?..)?;
        let end = text.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&text[..end]).into_owned())
    };
    Ok(entries.iter().filter(|entry| entry.0 == DT_NEEDED).filter_map(name).collect())
}

fn bytes(file: &mut File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > LARGEST_TABLE {
        return Err(malformed("a table of an impossible size"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
    #[test]
    fn this_program_needs_the_c_library() {
        let names = needed(&std::env::current_exe().unwrap()).unwrap();
        assert!(names.iter().any(|name| name.starts_with("libc.")), "{names:?}");
    }

    #[test]
    fn other_and_damaged_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        let mut header = vec![0u8; 64];
        header[..6].copy_from_slice(&IDENT);
        header[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        header[54] = 56;
        header[56] = 1;
        for contents in [b"text".to_vec(), vec![0; 64], header] {
            std::fs::write(&path, contents).unwrap();
            assert!(needed(&path).is_err());
        }
    }
}
