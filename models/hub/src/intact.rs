//! Whether a file of the cache is what was published: a large file's name in the cache is its SHA-256, and every
//! safetensors file says how long it is.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Whether a name is a SHA-256: an ETag of a large file, or a blob called so.
fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the blob's name tells what it should hold.
pub fn is_known(blob: &Path) -> bool {
    blob.file_name().and_then(|name| name.to_str()).is_some_and(is_sha256)
}

/// How a file differs from what its ETag says, if it says anything.
pub fn differs(path: &Path, etag: &str) -> Option<String> {
    if !is_sha256(etag) {
        return None;
    }
    match sha256(path) {
        Ok(found) if found.eq_ignore_ascii_case(etag) => None,
        Ok(found) => Some(format!("its SHA-256 is {found}, and should be {etag}")),
        Err(error) => Some(format!("it cannot be read ({error})")),
    }
}

/// What is wrong with a file of the cache, if anything can be told.
pub fn problem(path: &Path) -> Option<String> {
    // What lies in a snapshot is a link to the blob.
    let blob = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match blob.file_name().and_then(|name| name.to_str()) {
        Some(name) if is_sha256(name) => differs(&blob, name),
        _ if path.extension().is_some_and(|ending| ending == "safetensors") => header_problem(&blob),
        _ => None,
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => sum.update(&piece[..read]),
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A safetensors file begins with the length of its header and the header, JSON that says where each tensor ends.
fn header_problem(path: &Path) -> Option<String> {
    let end = || -> io::Result<u64> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::new(file);
        let mut start = [0; 8];
        file.read_exact(&mut start)?;
        let header = u64::from_le_bytes(start);
        if header > length - 8 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let json: serde_json::Map<String, serde_json::Value> = serde_json::from_reader(file.take(header))?;
        let ends = json.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64());
        Ok(8 + header + ends.max().unwrap_or(0))
    };
    match (end(), fs::metadata(path)) {
        (Ok(end), Ok(file)) if end == file.len() => None,
        (Ok(end), Ok(file)) => Some(format!("it has {} bytes, and should have {end}", file.len())),
        _ => Some("its header cannot be read".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_its_sum_or_by_its_own_length() {
        let folder = tempfile::tempdir().unwrap();
        // Of "abc", as FIPS 180-2 has it.
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let blob = folder.path().join(sum);
        fs::write(&blob, "abc").unwrap();
        assert!(is_known(&blob) && problem(&blob).is_none());
        fs::write(&blob, "abd").unwrap();
        assert!(problem(&blob).unwrap().contains(&format!("should be {sum}")));
        assert_eq!(differs(&blob, "some-1"), None);

        let file = folder.path().join("m.safetensors");
        let header = br#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
        let whole = [&(header.len() as u64).to_le_bytes()[..], header, b"xy"].concat();
        for length in 0..=whole.len() {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(problem(&file).is_some(), length < whole.len(), "{length}");
        }
        fs::write(&file, [&[255; 8][..], header].concat()).unwrap();
        assert_eq!(problem(&file).as_deref(), Some("its header cannot be read"));
    }
}
