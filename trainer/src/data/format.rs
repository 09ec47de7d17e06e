//! What an image's first bytes tell of its format, without decoding it.

use tallow_input::jpeg_frame;

/// Why an image without [`endings`] is of no use.
pub const UNKNOWN_FORMAT: &str = "its image is in no supported format (JPEG, PNG, WebP, BMP)";

/// The endings that files of the image's format have, the usual one first; `None` if it is in no supported one.
pub fn endings(image: &[u8]) -> Option<&'static [&'static str]> {
    match image {
        _ if jpeg_frame(image).is_some() => Some(&["jpg", "jpeg"]),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(&["png"]),
        [b'B', b'M', ..] => Some(&["bmp"]),
        [b'R', b'I', b'F', b'F', ..] => Some(&["webp"]),
        _ => None,
    }
}
