//! Some images of each class of a data set, side by side.

use image::{RgbImage, imageops};

use super::canvas::{Anchor, Canvas, GRID, INK, LABEL, MUTED, NOTE, TITLE, Type, shorten};
use crate::error::Result;

/// The side of the square that an image is shown in, pixels.
pub const THUMBNAIL: u32 = 96;

/// A class and some of its images, none larger than [`THUMBNAIL`].
#[derive(Clone, Debug)]
pub struct SheetRow {
    /// The class's name.
    pub class: String,
    /// Images of the class in all.
    pub count: usize,
    /// The images that are shown.
    pub images: Vec<RgbImage>,
}

const MARGIN: f64 = 24.0;
const HEAD: f64 = 64.0;
const NAMES: f64 = 220.0;
const GAP: f64 = 6.0;
const ROW: f64 = THUMBNAIL as f64 + GAP;

/// Draws a row for each class; `classes` is how many there are in all.
///
/// # Errors
/// Where text cannot be drawn.
pub fn contact_sheet(title: &str, rows: &[SheetRow], classes: usize) -> Result<RgbImage> {
    let columns = rows.iter().map(|row| row.images.len()).max().unwrap_or(0).max(4);
    let width = 2.0 * MARGIN + NAMES + columns as f64 * ROW;
    let foot = if rows.len() < classes { 40.0 } else { 12.0 };
    let height = HEAD + rows.len() as f64 * ROW + foot;
    let mut canvas = Canvas::new(width as u32, height as u32);
    canvas.text(&shorten(title, width - 2.0 * MARGIN, TITLE), (MARGIN, HEAD / 2.0), Anchor::Left, TITLE);
    let name = Type { color: INK, ..LABEL };
    for (i, row) in rows.iter().enumerate() {
        let top = HEAD + i as f64 * ROW;
        let middle = top + f64::from(THUMBNAIL) / 2.0;
        canvas.rectangle(MARGIN, top - GAP / 2.0, width - 2.0 * MARGIN, 1.0, GRID);
        canvas.text(&shorten(&row.class, NAMES - 16.0, name), (MARGIN, middle - 12.0), Anchor::Left, name);
        let count = format!("{} image{}", row.count, if row.count == 1 { "" } else { "s" });
        canvas.text(&count, (MARGIN, middle + 14.0), Anchor::Left, Type { color: MUTED, ..NOTE });
    }
    if rows.len() < classes {
        let text = format!("{} of {classes} classes", rows.len());
        canvas.text(&text, (MARGIN, height - foot / 2.0), Anchor::Left, NOTE);
    }
    let mut sheet = canvas.finish()?;
    for (i, row) in rows.iter().enumerate() {
        for (column, image) in row.images.iter().enumerate() {
            let centred = |side: u32| (THUMBNAIL.saturating_sub(side) / 2) as f64;
            let x = MARGIN + NAMES + column as f64 * ROW + centred(image.width());
            let y = HEAD + i as f64 * ROW + centred(image.height());
            imageops::replace(&mut sheet, image, x as i64, y as i64);
        }
    }
    Ok(sheet)
}
