//! Where in a photo a network sees its classes: the photo, and a heat map over it for each class.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::canvas::{AXIS, Anchor, Canvas, HEADING, LABEL, MUTED, NOTE, TITLE, Type, shorten, text_width};
use super::colormap::heat;
use crate::error::Result;

/// A class and where it is seen.
#[derive(Clone, Debug)]
pub struct ActivationMap {
    /// The class's name.
    pub label: String,
    /// The class's probability.
    pub probability: f64,
    /// Rows and columns of the map.
    pub size: [usize; 2],
    /// Its values, row by row.
    pub values: Vec<f32>,
}

impl ActivationMap {
    /// The smallest and the largest value.
    pub fn range(&self) -> [f32; 2] {
        let start = [f32::INFINITY, f32::NEG_INFINITY];
        self.values.iter().fold(start, |[low, high], &v| [low.min(v), high.max(v)])
    }

    /// The value at a place of the map, from (0, 0) at its upper left to (1, 1) at its lower right corner: bilinear
    /// between the centres of the map's cells, constant beyond the outermost.
    fn at(&self, x: f64, y: f64) -> f64 {
        let [rows, columns] = self.size;
        let axis = |place: f64, cells: usize| {
            let at = (place * cells as f64 - 0.5).clamp(0.0, cells as f64 - 1.0);
            let low = at.floor() as usize;
            (low, (low + 1).min(cells - 1), at - low as f64)
        };
        let ((left, right, across), (above, below, down)) = (axis(x, columns), axis(y, rows));
        let value = |row: usize, column: usize| f64::from(self.values[row * columns + column]);
        let upper = value(above, left) * (1.0 - across) + value(above, right) * across;
        let lower = value(below, left) * (1.0 - across) + value(below, right) * across;
        upper * (1.0 - down) + lower * down
    }

    /// The place of the largest value after interpolation over `width`×`height` points, as shares of the map's sides:
    /// across and down, each from 0 to 1.
    pub fn peak(&self, width: usize, height: usize) -> (f64, f64) {
        let place = |i: usize, n: usize| (i as f64 + 0.5) / n as f64;
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (place(x, width), place(y, height))));
        let best = places.max_by(|a, b| self.at(a.0, a.1).total_cmp(&self.at(b.0, b.1)));
        best.unwrap_or((0.5, 0.5))
    }
}

/// The long side of the photo in the picture, pixels.
const SIDE: f64 = 420.0;
const MARGIN: f64 = 30.0;
const HEAD: f64 = 84.0;
const CAPTION: f64 = 102.0;
/// Room for the legend on the right.
const LEGEND: f64 = 150.0;
const CAPTION_NOTE: Type = Type { size: 16.0, ..NOTE };
/// Panels beside each other at most.
const COLUMNS: usize = 4;
/// How much of a pixel is the map's colour; the rest is the photo in grey.
const OPACITY: f64 = 0.55;

/// Draws the photo and, for each class, its map over the photo in grey. `seen` is the part of the photo that the network
/// saw (left, top, width, height, in the photo's pixels); outside there is no map. Each map's colours span its own values,
/// from the smallest to the largest, which stand under it at the ends of a bar.
///
/// # Errors
/// Where text cannot be drawn.
pub fn activation_maps(
    title: &str,
    photo: &RgbImage,
    seen: [f64; 4],
    maps: &[ActivationMap],
) -> Result<RgbImage> {
    let scale = SIDE / f64::from(photo.width().max(photo.height()));
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    let (width, height) = (side(photo.width()), side(photo.height()));
    let small = imageops::resize(photo, width, height, FilterType::Triangle);
    let seen = seen.map(|v| v * scale);

    let panels = maps.len() + 1;
    let columns = panels.min(COLUMNS);
    let rows = panels.div_ceil(columns);
    // Room for the caption where a photo is narrow.
    let cell_width = f64::from(width).max(240.0);
    let cell = (cell_width + MARGIN, f64::from(height) + CAPTION);
    let full = (MARGIN + columns as f64 * cell.0 + LEGEND, HEAD + rows as f64 * cell.1);
    let mut canvas = Canvas::new(full.0 as u32, full.1 as u32);
    canvas.text(&shorten(title, full.0 - 2.0 * MARGIN, TITLE), (MARGIN, HEAD / 2.0), Anchor::Left, TITLE);
    let corner =
        |panel: usize| (MARGIN + (panel % columns) as f64 * cell.0, HEAD + (panel / columns) as f64 * cell.1);
    let caption = |canvas: &mut Canvas, panel: usize, text: &str, note: &str| {
        let (x, y) = corner(panel);
        let y = y + f64::from(height);
        for (text, down, look) in [(text, 22.0, Type { bold: true, ..LABEL }), (note, 48.0, CAPTION_NOTE)] {
            canvas.text(&shorten(text, cell_width, look), (x, y + down), Anchor::Left, look);
        }
    };
    caption(&mut canvas, 0, "the photo", "framed: what the network sees");
    for (i, map) in maps.iter().enumerate() {
        caption(&mut canvas, i + 1, &map.label, &format!("{:.1} %", 100.0 * map.probability));
        let (x, y) = corner(i + 1);
        scale_bar(&mut canvas, (x, y + f64::from(height) + 74.0), map.range());
    }
    legend(&mut canvas, (MARGIN + columns as f64 * cell.0 + 10.0, HEAD), f64::from(height).min(320.0));

    let mut picture = canvas.finish()?;
    let mut paste = |panel: usize, image: &RgbImage| {
        let (x, y) = corner(panel);
        imageops::replace(&mut picture, image, x as i64, y as i64);
    };
    paste(0, &framed(small.clone(), seen));
    for (i, map) in maps.iter().enumerate() {
        paste(i + 1, &over(&small, seen, map));
    }
    Ok(picture)
}

/// The map's colours over the photo in grey; beyond what is seen the grey is paler.
fn over(photo: &RgbImage, [left, top, width, height]: [f64; 4], map: &ActivationMap) -> RgbImage {
    let [low, high] = map.range().map(f64::from);
    let span = if high > low { high - low } else { 1.0 };
    RgbImage::from_fn(photo.width(), photo.height(), |x, y| {
        let Rgb([r, g, b]) = *photo.get_pixel(x, y);
        let grey = 0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b);
        let across = (f64::from(x) + 0.5 - left) / width;
        let down = (f64::from(y) + 0.5 - top) / height;
        if !(0.0..1.0).contains(&across) || !(0.0..1.0).contains(&down) {
            return Rgb([(0.35 * grey + 0.65 * 255.0) as u8; 3]);
        }
        let color = heat((map.at(across, down) - low) / span);
        let mixed = |v: u8| (OPACITY * f64::from(v) + (1.0 - OPACITY) * grey).round() as u8;
        Rgb([mixed(color.0), mixed(color.1), mixed(color.2)])
    })
}

/// A frame around what the network sees, in white with a dark edge so that it shows on every photo.
fn framed(mut photo: RgbImage, [left, top, width, height]: [f64; 4]) -> RgbImage {
    let inside = |x: i64, y: i64| {
        let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
        (left..left + width).contains(&x) && (top..top + height).contains(&y)
    };
    let (columns, rows) = (i64::from(photo.width()), i64::from(photo.height()));
    for (x, y, pixel) in photo.enumerate_pixels_mut() {
        let (x, y) = (i64::from(x), i64::from(y));
        // How many pixels it is to the nearest edge of the frame that lies in the photo, 3 or more for anything else.
        let depth = (0..3).find(|d| {
            let step = d + 1;
            let edge = |dx: i64, dy: i64| {
                let (nx, ny) = (x + dx * step, y + dy * step);
                (0..columns).contains(&nx) && (0..rows).contains(&ny) && !inside(nx, ny)
            };
            inside(x, y) && (edge(1, 0) || edge(-1, 0) || edge(0, 1) || edge(0, -1))
        });
        match depth {
            Some(0 | 2) => *pixel = Rgb([0x20; 3]),
            Some(_) => *pixel = Rgb([0xff; 3]),
            None => {}
        }
    }
    photo
}

/// A map's colours between its smallest and its largest value.
fn scale_bar(canvas: &mut Canvas, (left, middle): (f64, f64), range: [f32; 2]) {
    const LENGTH: usize = 90;
    let look = CAPTION_NOTE;
    let [low, high] = range.map(short);
    canvas.text(&low, (left, middle), Anchor::Left, look);
    let start = left + text_width(&low, look) + 8.0;
    for step in 0..LENGTH {
        let share = step as f64 / (LENGTH - 1) as f64;
        canvas.rectangle(start + step as f64, middle - 6.0, 1.0, 12.0, heat(share));
    }
    canvas.text(&high, (start + LENGTH as f64 + 8.0, middle), Anchor::Left, look);
}

/// A number with three digits that count.
fn short(value: f32) -> String {
    match value.abs().log10().floor() {
        f32::NEG_INFINITY => "0".into(),
        magnitude @ -4.0..6.0 => format!("{value:.*}", (2.0 - magnitude).max(0.0) as usize),
        _ => format!("{value:.2e}"),
    }
}

/// What the colours mean.
fn legend(canvas: &mut Canvas, (left, top): (f64, f64), height: f64) {
    let steps = height as usize;
    for step in 0..steps {
        let value = 1.0 - step as f64 / (steps - 1).max(1) as f64;
        canvas.rectangle(left, top + step as f64, 20.0, 1.0, heat(value));
    }
    canvas.rectangle(left + 20.0, top, 1.0, height, AXIS);
    let look = Type { size: 17.0, ..HEADING };
    let look = Type { bold: false, color: MUTED, ..look };
    canvas.text("speaks for", (left + 30.0, top + 10.0), Anchor::Left, look);
    canvas.text("the class", (left + 30.0, top + 30.0), Anchor::Left, look);
    canvas.text("least", (left + 30.0, top + height - 10.0), Anchor::Left, look);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: [usize; 2], values: &[f32]) -> ActivationMap {
        ActivationMap { label: "cat".into(), probability: 0.5, size, values: values.into() }
    }

    #[test]
    fn interpolation_is_bilinear_between_centres() {
        let map = map([2, 2], &[0.0, 1.0, 2.0, 3.0]);
        assert_eq!(map.at(0.0, 0.0), 0.0);
        assert_eq!(map.at(0.25, 0.25), 0.0);
        assert_eq!(map.at(0.5, 0.25), 0.5);
        assert_eq!(map.at(0.5, 0.5), 1.5);
        assert_eq!(map.at(1.0, 1.0), 3.0);
        assert_eq!(self::map([1, 1], &[4.0]).at(0.3, 0.9), 4.0);
    }

    #[test]
    fn numbers_are_short_whatever_their_size() {
        let numbers = [0.0, 0.664, -0.0123, 24.703, 123_456.7, 2e-7, -3.5e9];
        let texts = ["0", "0.664", "-0.0123", "24.7", "123457", "2.00e-7", "-3.50e9"];
        assert_eq!(numbers.map(short), texts);
    }

    #[test]
    fn the_peak_is_where_the_largest_value_lies() {
        let (x, y) = map([2, 3], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).peak(30, 20);
        assert!(x > 2.0 / 3.0 && y > 0.5, "{x} {y}");
    }

    #[test]
    fn colours_cover_what_is_seen_and_nothing_else() {
        let photo = RgbImage::from_pixel(40, 20, Rgb([100; 3]));
        let drawn = over(&photo, [10.0, 0.0, 20.0, 20.0], &map([1, 2], &[-1.0, 1.0]));
        assert_eq!(drawn.get_pixel(5, 10).0, [200; 3]);
        let [low, high] = [11, 28].map(|x| drawn.get_pixel(x, 10).0);
        assert!(low[0] < 100 && high[0] > 150 && high[1] > high[2], "{low:?} {high:?}");
    }
}
