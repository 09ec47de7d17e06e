//! The pictures of a run: learning curves ([`curves()`]), the confusion matrix ([`confusion()`]), images as the network
//! sees them ([`samples()`]) and how gradients flow ([`gradient_flow()`]); of a data set: [`contact_sheet()`]; of what a
//! network sees in a photo: [`activation_maps()`]; of a search: [`pareto()`]; of scaling: [`scaling()`].
//! Drawn with plotters' bitmap backend at three times the size, then averaged, so that every edge is smooth;
//! the font is DejaVu Sans, carried along, so that a picture needs nothing installed.

mod activation_maps;
mod axis;
mod canvas;
mod colormap;
mod confusion;
mod contact_sheet;
mod curves;
mod gradient_flow;
mod pareto;
mod samples;
mod scaling;

use std::path::Path;

use image::{ImageEncoder, RgbImage};

use tallow_builder::files::write_atomically;

use crate::error::{Error, Result};

pub use activation_maps::{ActivationMap, activation_maps};
pub use confusion::confusion;
pub use contact_sheet::{SheetRow, THUMBNAIL, contact_sheet};
pub use curves::curves;
pub use gradient_flow::gradient_flow;
pub use pareto::{Mark, Trial, pareto};
pub use samples::samples;
pub use scaling::scaling;

/// Writes a picture as PNG, by way of a temporary file: an earlier picture stays whole until the new one is.
///
/// # Errors
/// [`Error::Io`], such as for a full disk.
pub fn save(picture: &RgbImage, path: &Path) -> Result<()> {
    Ok(write_atomically(path, &png(picture)?)?)
}

/// A picture as the bytes of a PNG file.
///
/// # Errors
/// [`Error::Plot`] for a picture without pixels.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder
        .write_image(picture.as_raw(), picture.width(), picture.height(), image::ExtendedColorType::Rgb8)
        .map_err(|error| Error::Plot { reason: error.to_string() })?;
    Ok(png)
}

#[cfg(test)]
mod tests;
