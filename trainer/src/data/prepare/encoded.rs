//! The bytes that go into an example: a file's own where it is an RGB or grey JPEG, else re-encoded, as
//! `imagenet_to_gcs.py` did with the CMYK files and the one PNG of ImageNet.

use std::borrow::Cow;

use image::ImageEncoder;
use image::codecs::jpeg::JpegEncoder;
use tallow_input::{InputError, decode, jpeg_frame};

/// As in `imagenet_to_gcs.py`.
const QUALITY: u8 = 100;

/// An RGB or grey JPEG file.
pub struct Encoded<'a> {
    /// Its bytes.
    pub bytes: Cow<'a, [u8]>,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// What goes into an example of the image file `bytes`. Its pixels are decoded in any case, so that what cannot be
/// decoded is found now.
///
/// # Errors
/// Why the image cannot be used.
pub fn encoded(bytes: &[u8]) -> Result<Encoded<'_>, String> {
    let image = decode(bytes).map_err(|error| match error {
        InputError::Image { fault, .. } => fault.to_string(),
        other => other.to_string(),
    })?;
    if let Some(frame) = jpeg_frame(bytes).filter(|frame| frame.components != 4) {
        return Ok(Encoded { bytes: Cow::Borrowed(bytes), width: frame.width, height: frame.height });
    }
    let (width, height) = image.dimensions();
    let mut jpeg = vec![];
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .write_image(image.as_raw(), width, height, image::ExtendedColorType::Rgb8)
        .map_err(|error| format!("cannot be written as JPEG: {error}"))?;
    Ok(Encoded { bytes: Cow::Owned(jpeg), width, height })
}
