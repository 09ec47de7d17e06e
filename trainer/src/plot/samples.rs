//! A sheet of images as the network sees them, each with its class.

use image::RgbImage;
use image::imageops::{FilterType, replace, resize};

use super::canvas::{Anchor, Canvas, NOTE, TITLE, Type, shorten};
use crate::error::Result;

const COLUMNS: usize = 8;
/// Room for an image, pixels.
const CELL: u32 = 144;
const GAP: f64 = 16.0;
const CAPTION: f64 = 30.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 90.0;

/// Draws images of any size, enlarged without smoothing or reduced to fit, above their classes.
///
/// # Errors
/// [`crate::Error::Plot`] if drawing fails.
pub fn samples(title: &str, images: &[(RgbImage, &str)]) -> Result<RgbImage> {
    let rows = images.len().div_ceil(COLUMNS);
    let columns = images.len().clamp(4, COLUMNS);
    let cell = f64::from(CELL);
    let width = 2.0 * LEFT + columns as f64 * (cell + GAP) - GAP;
    let height = TOP + rows as f64 * (cell + CAPTION + GAP) + 10.0;
    let mut canvas = Canvas::new(width as u32, height as u32);
    canvas.text(&shorten(title, width - 2.0 * LEFT, TITLE), (LEFT, 44.0), Anchor::Left, TITLE);
    let place = |index: usize| {
        let (row, column) = (index / COLUMNS, index % COLUMNS);
        (LEFT + column as f64 * (cell + GAP), TOP + row as f64 * (cell + CAPTION + GAP))
    };
    let caption = Type { size: 16.0, ..NOTE };
    for (index, (_, class)) in images.iter().enumerate() {
        let (x, y) = place(index);
        let text = shorten(class, cell, caption);
        canvas.text(&text, (x + cell / 2.0, y + cell + 16.0), Anchor::Center, caption);
    }
    let mut sheet = canvas.finish()?;
    for (index, (image, _)) in images.iter().enumerate() {
        let shown = fit(image);
        let (x, y) = place(index);
        let inset = |side: u32| i64::from(CELL - side) / 2;
        replace(&mut sheet, &shown, x as i64 + inset(shown.width()), y as i64 + inset(shown.height()));
    }
    Ok(sheet)
}

/// The image at the largest whole multiple of its size that fits, or reduced.
fn fit(image: &RgbImage) -> RgbImage {
    let longest = image.width().max(image.height()).max(1);
    if longest <= CELL {
        let times = CELL / longest;
        return resize(image, image.width() * times, image.height() * times, FilterType::Nearest);
    }
    let reduced = |side: u32| (side * CELL / longest).max(1);
    resize(image, reduced(image.width()), reduced(image.height()), FilterType::Triangle)
}
