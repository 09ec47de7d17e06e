//! A surface to draw on in pixels of the finished picture, with fractions; drawn larger and averaged at the end.
//! Colours and text sizes of all pictures are set here.
//! The first thing that goes wrong is kept and reported when the picture is finished.

use std::sync::Once;

use image::RgbImage;
use plotters::prelude::{
    BitMapBackend, DrawingBackend, FontStyle, FontTransform, IntoFont, RGBColor, TextStyle,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, FontFamily, register_font};

use crate::error::{Error, Result};

pub(super) type Color = RGBColor;

/// Text.
pub(super) const INK: Color = RGBColor(0x1f, 0x24, 0x2c);
/// Text of second rank: ticks, notes.
pub(super) const MUTED: Color = RGBColor(0x6a, 0x73, 0x80);
/// Grid lines.
pub(super) const GRID: Color = RGBColor(0xe8, 0xeb, 0xef);
/// Axes.
pub(super) const AXIS: Color = RGBColor(0xb4, 0xba, 0xc3);
/// Paper.
pub(super) const PAPER: Color = RGBColor(0xff, 0xff, 0xff);

/// Each pixel of the picture is the mean of this many squared.
const FINENESS: u32 = 3;
/// By how much of its size a text is lowered so that the middle of its letters, not of its box, is at its position.
const DROP: f64 = 0.08;
const FONT: &str = "tallow-dejavu";

/// Which point of a text lies at its position.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Left,
    Center,
    Right,
}

/// How a text looks. Its position is the anchor's height in the middle of the letters.
#[derive(Clone, Copy)]
pub(super) struct Type {
    pub size: f64,
    pub color: Color,
    pub bold: bool,
}

pub(super) const TITLE: Type = Type { size: 30.0, color: INK, bold: true };
pub(super) const HEADING: Type = Type { size: 23.0, color: INK, bold: true };
pub(super) const LABEL: Type = Type { size: 20.0, color: INK, bold: false };
pub(super) const NOTE: Type = Type { size: 19.0, color: MUTED, bold: false };

pub(super) struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    failure: Option<String>,
}

impl Canvas {
    /// A white surface of `width` x `height` pixels.
    pub fn new(width: u32, height: u32) -> Self {
        static REGISTER: Once = Once::new();
        REGISTER.call_once(|| {
            // The fonts are constants that parse; were they not, drawing text would report it.
            let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
            let _ = register_font(FONT, FontStyle::Bold, dejavu::sans::bold());
        });
        let bytes = 3 * (width * FINENESS) as usize * (height * FINENESS) as usize;
        Self { width, height, pixels: vec![0xff; bytes], failure: None }
    }

    pub fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, color: Color) {
        // plotters fills up to the lower right corner, without it.
        let (left, top) = fine((x, y));
        let (right, bottom) = fine((x + width, y + height));
        if right > left && bottom > top {
            self.draw(|backend| backend.draw_rect((left, top), (right, bottom), &color, true));
        }
    }

    pub fn disc(&mut self, (x, y): (f64, f64), radius: f64, color: Color) {
        let corners: Vec<_> = (0..48)
            .map(|corner| {
                let angle = f64::from(corner) / 48.0 * std::f64::consts::TAU;
                fine((x + radius * angle.cos(), y + radius * angle.sin()))
            })
            .collect();
        self.draw(|backend| backend.fill_polygon(corners, &color));
    }

    /// A line through `points` with round joints.
    pub fn line(&mut self, points: &[(f64, f64)], width: f64, color: Color) {
        for pair in points.windows(2) {
            let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
            let length = (x1 - x0).hypot(y1 - y0).max(1e-9);
            let (dx, dy) = ((y1 - y0) / length * width / 2.0, (x0 - x1) / length * width / 2.0);
            let corners = [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)];
            self.draw(|backend| backend.fill_polygon(corners.map(fine), &color));
        }
        for &point in points {
            self.disc(point, width / 2.0, color);
        }
    }

    /// A vertical line of dashes.
    pub fn dashes(&mut self, x: f64, top: f64, bottom: f64, color: Color) {
        let mut y = top;
        while y < bottom {
            self.rectangle(x - 0.67, y, 1.34, (bottom - y).min(6.0), color);
            y += 11.0;
        }
    }

    pub fn text(&mut self, text: &str, (x, y): (f64, f64), anchor: Anchor, look: Type) {
        self.write(text, (x, y + DROP * look.size), anchor, look, FontTransform::None);
    }

    /// Text that reads upwards; the anchor is along its own direction.
    pub fn text_upwards(&mut self, text: &str, (x, y): (f64, f64), anchor: Anchor, look: Type) {
        self.write(text, (x + DROP * look.size, y), anchor, look, FontTransform::Rotate270);
    }

    fn write(&mut self, text: &str, at: (f64, f64), anchor: Anchor, look: Type, transform: FontTransform) {
        if text.is_empty() {
            return;
        }
        let h = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Center => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let font = font(look).transform(transform);
        let style = TextStyle::from(font).color(&look.color).pos(Pos::new(h, VPos::Center));
        self.draw(|backend| backend.draw_text(text, &style, fine(at)));
    }

    fn draw<E: std::fmt::Display>(
        &mut self,
        paint: impl FnOnce(&mut BitMapBackend<'_>) -> std::result::Result<(), E>,
    ) {
        let size = (self.width * FINENESS, self.height * FINENESS);
        let mut backend = BitMapBackend::with_buffer(&mut self.pixels, size);
        if let Err(error) = paint(&mut backend) {
            self.failure.get_or_insert(error.to_string());
        }
    }

    /// The picture.
    pub fn finish(self) -> Result<RgbImage> {
        if let Some(reason) = self.failure {
            return Err(Error::Plot { reason });
        }
        let (stride, step) = (3 * (self.width * FINENESS) as usize, FINENESS as usize);
        let mut picture = RgbImage::new(self.width, self.height);
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let start = y as usize * step * stride + x as usize * step * 3;
            for channel in 0..3 {
                let rows = (0..step).map(|row| &self.pixels[start + row * stride + channel..]);
                let sum: u32 =
                    rows.map(|row| (0..step).map(|column| u32::from(row[3 * column])).sum::<u32>()).sum();
                let count = FINENESS * FINENESS;
                pixel.0[channel] = ((sum + count / 2) / count) as u8;
            }
        }
        Ok(picture)
    }
}

/// How wide a text is, in pixels.
pub(super) fn text_width(text: &str, look: Type) -> f64 {
    font(look).box_size(text).map_or(0.0, |(width, _)| f64::from(width) / f64::from(FINENESS))
}

/// `text` cut to `width` pixels, with an ellipsis where something is missing.
pub(super) fn shorten(text: &str, width: f64, look: Type) -> String {
    if text_width(text, look) <= width {
        return text.into();
    }
    let mut kept: Vec<char> = text.chars().collect();
    loop {
        kept.pop();
        let shorter = kept.iter().collect::<String>().trim_end().to_string() + "…";
        if kept.is_empty() || text_width(&shorter, look) <= width {
            return shorter;
        }
    }
}

fn font(look: Type) -> FontDesc<'static> {
    let style = if look.bold { FontStyle::Bold } else { FontStyle::Normal };
    (FontFamily::Name(FONT), look.size * f64::from(FINENESS), style).into_font()
}

/// Pixels of the picture to pixels of the larger drawing.
fn fine((x, y): (f64, f64)) -> (i32, i32) {
    let scale = |v: f64| (v * f64::from(FINENESS)).round() as i32;
    (scale(x), scale(y))
}
