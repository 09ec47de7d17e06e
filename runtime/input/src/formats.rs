//! Picture formats that are not read here, told by their first bytes, so that an error can say what a file is.

use crate::error::ImageFault;

const CONVERT: &str = "convert it to JPEG or PNG";

/// What is wrong with a file that is no JPEG, PNG, WebP or BMP.
pub(crate) fn other(bytes: &[u8]) -> ImageFault {
    let (format, remedy) = match bytes {
        [b'G', b'I', b'F', b'8', ..] => {
            ("GIF", "this one may be an animation; save the frame that is meant as JPEG or PNG")
        }
        // Little and big endian; 42 is TIFF's number, 43 BigTIFF's.
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => ("TIFF", CONVERT),
        [_, _, _, _, b'f', b't', b'y', b'p', brands @ ..] => match iso_image(brands) {
            Some(format) => (format, CONVERT),
            None => return ImageFault::NotAnImage,
        },
        _ => return ImageFault::NotAnImage,
    };
    ImageFault::OtherFormat { format, remedy }
}

/// The format by the brands of an ISO media file (ISO 23008-12, section 10; AV1 Image File Format, section 6.2): the
/// major brand, four bytes of version, compatible brands. Only the first few are looked at; the box's length is not.
fn iso_image(brands: &[u8]) -> Option<&'static str> {
    let mut brands = brands.chunks_exact(4).take(8);
    brands.find_map(|brand| match brand {
        b"avif" | b"avis" => Some("AVIF"),
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" => Some("HEIC"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (bytes, says) in [
            (&b"GIF89a\x01\x00"[..], "GIF images are not read here: this one may be an animation"),
            (b"II*\0\x08\0\0\0", "TIFF images are not read here: convert it to JPEG or PNG"),
            (b"MM\0*\0\0\0\x08", "TIFF images are not read here"),
            (b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf", "AVIF images are not read here"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF images are not read here"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC images are not read here"),
            (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "not an image in a supported format"),
            (b"<html>", "not an image in a supported format"),
        ] {
            let text = other(bytes).to_string();
            assert!(text.starts_with(says), "{text}");
        }
    }
}
