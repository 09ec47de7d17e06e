//! A JPEG file's pixels, to the bit those of libjpeg-turbo, which Pillow, PyTorch and TensorFlow decode with: a decoder
//! that rounds otherwise moves the logits of photos by some 0.3 %.

use image::RgbImage;
use image::metadata::Orientation;
use libjpeg_turbo_rs::{DecodeWarning, Decoder, JpegError, PixelFormat};

use crate::decode::{MAX_ALLOC, check_size};
use crate::error::ImageFault;
use crate::jpeg::reaches_end;

/// The pixels, and how they are to be turned.
pub(crate) fn decode(bytes: &[u8]) -> Result<(RgbImage, Orientation), ImageFault> {
    let mut decoder = Decoder::new(bytes).map_err(fault)?;
    let frame = decoder.header();
    let (width, height) = (u32::from(frame.width), u32::from(frame.height));
    let is_cmyk = frame.components.len() == 4;
    check_size(width, height)?;
    if !reaches_end(bytes) {
        return Err(ImageFault::Truncated);
    }
    let orientation = decoder.exif_orientation().and_then(Orientation::from_exif);
    decoder.set_output_format(if is_cmyk { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    decoder.set_max_memory(MAX_ALLOC as usize);
    // Real data sets have files with stray bytes, which every decoder reads over; what is damaged is found below.
    decoder.set_lenient(true);
    let image = decoder.decode_image().map_err(fault)?;
    if let Some(warning) = image.warnings.first() {
        return Err(match warning {
            DecodeWarning::TruncatedData { .. } => ImageFault::Truncated,
            other => ImageFault::Damaged(other.to_string()),
        });
    }
    let pixels = if is_cmyk { rgb(&image.data) } else { image.data };
    let picture = RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| ImageFault::Unsupported("a JPEG file of an unusual number of channels".into()))?;
    Ok((picture, orientation.unwrap_or(Orientation::NoTransforms)))
}

/// CMYK, inverted as Adobe writes it, to RGB, rounded as Pillow rounds.
fn rgb(cmyk: &[u8]) -> Vec<u8> {
    let channel = |ink: u8, black: u8| {
        let product = u32::from(255 - ink) * u32::from(black) + 128;
        black - ((product + (product >> 8)) >> 8) as u8
    };
    cmyk.chunks_exact(4).flat_map(|pixel| [0, 1, 2].map(|i| channel(pixel[i], pixel[3]))).collect()
}

fn fault(error: JpegError) -> ImageFault {
    match error {
        JpegError::UnexpectedEof => ImageFault::Truncated,
        JpegError::Unsupported(what) => ImageFault::Unsupported(what),
        JpegError::LimitExceeded { .. } => {
            ImageFault::TooLarge(format!("decoding takes more than {} MiB", MAX_ALLOC >> 20))
        }
        other => ImageFault::Damaged(other.to_string()),
    }
}
