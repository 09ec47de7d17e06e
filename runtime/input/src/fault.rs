//! What a decoder says of a file, in words for whoever has the file.

use image::error::{ImageError, LimitErrorKind};

use crate::decode::{MAX_ALLOC, MAX_SIDE};
use crate::error::ImageFault;

/// What is wrong with a file that a decoder refused.
pub(crate) fn fault(error: ImageError) -> ImageFault {
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError => {
                ImageFault::TooLarge(format!("more than {MAX_SIDE} pixels wide or high"))
            }
            _ => ImageFault::TooLarge(format!("decoding takes more than {} MiB", MAX_ALLOC >> 20)),
        },
        ImageError::Unsupported(what) => ImageFault::Unsupported(plain(&what.to_string())),
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => ImageFault::Truncated,
        other => {
            let text = plain(&other.to_string());
            let lower = text.to_lowercase();
            let cut = ["unexpected end", "unexpected eof", "failed to fill", "exhausted", "not enough bytes"];
            match cut.iter().any(|part| lower.contains(part)) {
                true => ImageFault::Truncated,
                false => ImageFault::Damaged(text),
            }
        }
    }
}

/// On one line, and without what the png crate prints of its own types.
fn plain(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.contains("CRC error") {
        let chunk = chunk(&text).map_or(String::new(), |(_, name, _)| format!(" of its {name} chunk"));
        return format!("the checksum{chunk} does not match; copy the file again from where it came");
    }
    if text.contains("Corrupt deflate stream") {
        return "its compressed data do not unpack; copy the file again from where it came".into();
    }
    let text = match chunk(&text) {
        Some((before, name, after)) => format!("{before}{name}{after}"),
        None => text,
    };
    match text.strip_prefix("Format error decoding ").and_then(|rest| rest.split_once(": ")) {
        Some((_, reason)) => reason.to_owned(),
        None => text,
    }
}

/// A text around `ChunkType { type: IDAT, critical: true, … }`, and the chunk's name; a damaged name may have anything
/// in it, braces and commas as well.
fn chunk(text: &str) -> Option<(&str, String, &str)> {
    let (before, rest) = text.split_once("ChunkType { type: ")?;
    let (name, rest) = rest.split_once(", critical: ")?;
    let (_, after) = rest.split_once('}')?;
    let known = name.chars().all(|c| c.is_ascii_alphanumeric());
    Some((before, if known { name.to_owned() } else { "unknown".into() }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_called_by_its_name() {
        let chunk = "ChunkType { type: tIME, critical: false, private: false }";
        let damaged = r"ChunkType { type: IDA\u{1, critical: true, private: false }";
        let text = plain(&format!("Format error decoding Png: Unrecognized critical chunk: {damaged}"));
        assert_eq!(text, "Unrecognized critical chunk: unknown");
        assert_eq!(plain(&format!("Chunk {chunk} is invalid\n here.")), "Chunk tIME is invalid here.");
        let text = plain(&format!("CRC error: expected 0x1 have 0x2 while decoding {chunk} chunk."));
        assert!(text.starts_with("the checksum of its tIME chunk does not match"), "{text}");
    }
}
