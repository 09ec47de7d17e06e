//! Image files to RGB pixels, as Pillow's `ImageOps.exif_transpose(Image.open(f)).convert("RGB")` gives them.
//! The format is told by the content, never by the name; the EXIF orientation is applied; alpha is dropped.
//! Truncated files and decompression bombs are errors.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::{ImageFault, InputError};
use crate::fault::fault;
use crate::{formats, jpeg_pixels};

/// The most pixels that an image's width or height may have.
pub const MAX_SIDE: u32 = 16_384;

/// The most pixels an image may have: the count at which Pillow raises `DecompressionBombError`.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The most bytes a decoder may allocate.
pub(crate) const MAX_ALLOC: u64 = 1 << 30;

/// Decodes a JPEG, PNG, WebP or BMP file held in memory.
///
/// Grey becomes R = G = B. Of 16-bit samples the high byte is kept (for 16-bit grey Pillow clips to 255
/// instead, which turns such images white). Alpha is dropped, not composited. CMYK and YCCK JPEGs are read as
/// Adobe writes them (inverted). An animation is an error, as nobody says which frame is meant. Colour profiles are not applied.
///
/// # Errors
/// [`InputError::Image`], its file given as `image data`.
pub fn decode(bytes: &[u8]) -> Result<RgbImage, InputError> {
    decode_named(bytes).map_err(|fault| InputError::Image { file: "image data".into(), fault })
}

/// Reads and [`decode`]s an image file.
///
/// # Errors
/// [`InputError::Read`] if the file cannot be read, [`InputError::Image`] if it is no usable image; both name it.
pub fn decode_file(path: impl AsRef<Path>) -> Result<RgbImage, InputError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| InputError::Read { file: path.into(), source })?;
    decode_named(&bytes).map_err(|fault| InputError::Image { file: path.display().to_string(), fault })
}

fn decode_named(bytes: &[u8]) -> Result<RgbImage, ImageFault> {
    if bytes.is_empty() {
        return Err(ImageFault::Empty);
    }
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp)) => format,
        _ => return Err(formats::other(bytes)),
    };
    if format == ImageFormat::Jpeg {
        let (picture, orientation) = jpeg_pixels::decode(bytes)?;
        let mut picture = DynamicImage::ImageRgb8(picture);
        picture.apply_orientation(orientation);
        return Ok(picture.into_rgb8());
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(fault)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    if format == ImageFormat::WebP && !riff_is_whole(bytes) {
        return Err(ImageFault::Truncated);
    }
    if is_animated(bytes) {
        return Err(ImageFault::Animated);
    }
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::ImageRgb8(to_rgb(DynamicImage::from_decoder(decoder).map_err(fault)?));
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// Whether a WebP file has the flag of an animation, or a PNG file its control chunk before its pixels.
fn is_animated(bytes: &[u8]) -> bool {
    if let [
        b'R',
        b'I',
        b'F',
        b'F',
        _,
        _,
        _,
        _,
        b'W',
        b'E',
        b'B',
        b'P',
        b'V',
        b'P',
        b'8',
        b'X',
        _,
        _,
        _,
        _,
        flags,
        ..,
    ] = *bytes
    {
        return flags & 0x02 != 0;
    }
    let mut rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap_or_default();
    // Chunks: length, type, data, checksum.
    while let [a, b, c, d, kind @ ..] = rest {
        match kind.get(..4) {
            Some(b"acTL") => return true,
            Some(b"IDAT") | None => return false,
            Some(_) => {}
        }
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        rest = rest.get(length.saturating_add(12)..).unwrap_or_default();
    }
    false
}

/// A WebP file says its length; its EXIF orientation comes last, and a cut must not lose it unseen.
fn riff_is_whole(bytes: &[u8]) -> bool {
    match bytes.get(4..8) {
        Some(length) => {
            bytes.len() as u64
                >= 8 + u64::from(u32::from_le_bytes([length[0], length[1], length[2], length[3]]))
        }
        None => false,
    }
}

pub(crate) fn check_size(width: u32, height: u32) -> Result<(), ImageFault> {
    let pixels = u64::from(width) * u64::from(height);
    if width == 0 || height == 0 {
        return Err(ImageFault::Damaged(format!("its size is {width}x{height}")));
    }
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(ImageFault::TooLarge(format!(
            "{width}x{height}, at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are read"
        )));
    }
    Ok(())
}

/// Drops alpha and the low byte of 16-bit samples; spreads grey over three channels.
fn to_rgb(picture: DynamicImage) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    fn high(v: u16) -> u8 {
        (v >> 8) as u8
    }
    fn gather<T: Copy>(samples: &[T], channels: usize, to8: impl Fn(T) -> u8) -> Vec<u8> {
        let colours: [usize; 3] = if channels < 3 { [0; 3] } else { [0, 1, 2] };
        samples.chunks_exact(channels).flat_map(|pixel| colours.map(|c| to8(pixel[c]))).collect()
    }
    let pixels = match &picture {
        DynamicImage::ImageRgb8(_) => return picture.into_rgb8(),
        DynamicImage::ImageLuma8(p) => gather(p, 1, |v| v),
        DynamicImage::ImageLumaA8(p) => gather(p, 2, |v| v),
        DynamicImage::ImageRgba8(p) => gather(p, 4, |v| v),
        DynamicImage::ImageLuma16(p) => gather(p, 1, high),
        DynamicImage::ImageLumaA16(p) => gather(p, 2, high),
        DynamicImage::ImageRgb16(p) => gather(p, 3, high),
        DynamicImage::ImageRgba16(p) => gather(p, 4, high),
        _ => return picture.to_rgb8(),
    };
    RgbImage::from_raw(width, height, pixels).expect("three bytes were gathered for each pixel")
}
