//! The pictures of a run: learning curves ([`curves()`]) and the confusion matrix ([`confusion()`]); and of a data
//! set: [`contact_sheet()`].
//! Drawn with plotters' bitmap backend at three times the size, then averaged, so that every edge is smooth;
//! the font is DejaVu Sans, carried along, so that a picture needs nothing installed.

mod axis;
mod canvas;
mod colormap;
mod confusion;
mod contact_sheet;
mod curves;

use std::path::Path;

use image::{ImageEncoder, RgbImage};

use tallow_builder::files::write_atomically;

use crate::error::{Error, Result};

pub use confusion::confusion;
pub use contact_sheet::{SheetRow, THUMBNAIL, contact_sheet};
pub use curves::curves;

/// Writes a picture as PNG, by way of a temporary file: an earlier picture stays whole until the new one is.
///
/// # Errors
/// [`Error::Io`], such as for a full disk.
pub fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder
        .write_image(picture.as_raw(), picture.width(), picture.height(), image::ExtendedColorType::Rgb8)
        .map_err(|error| Error::Plot { reason: format!("{}: {error}", path.display()) })?;
    Ok(write_atomically(path, &png)?)
}

#[cfg(test)]
mod tests;
