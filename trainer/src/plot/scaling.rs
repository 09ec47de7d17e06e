//! How a network's cost grows with the compound coefficient, beside the law that it should double with each.

use image::RgbImage;

use super::axis::Axis;
use super::canvas::{AXIS, Anchor, Canvas, Color, GRID, LABEL, NOTE, TITLE, shorten, text_width};
use crate::error::Result;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 860;
/// Okabe & Ito's blue, vermilion and grey.
const MEASURED: Color = plotters::style::RGBColor(0x00, 0x72, 0xb2);
const PUBLISHED: Color = plotters::style::RGBColor(0xd5, 0x5e, 0x00);
const LAW: Color = plotters::style::RGBColor(0x9a, 0xa3, 0xaf);

/// What the axis and its points show.
const MEASURE: &str = "MACs over those at φ = 0";

/// Draws `scaled`, pairs of φ and cost over that at φ = 0, beside 2^φ, and named networks among them.
///
/// # Errors
/// [`crate::Error::Plot`] if drawing fails.
pub fn scaling(title: &str, scaled: &[(f64, f64)], named: &[(f64, f64, String)]) -> Result<RgbImage> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    canvas.text(&shorten(title, f64::from(WIDTH) - 120.0, TITLE), (60.0, 48.0), Anchor::Left, TITLE);
    let law = |phi: f64| (phi, phi.exp2());
    let shown = |(phi, ratio): &(f64, f64)| phi.is_finite() && ratio.is_finite() && *ratio > 0.0;
    let points: Vec<_> = scaled.iter().copied().filter(shown).collect();
    let others: Vec<_> = named.iter().filter(|(phi, ratio, _)| shown(&(*phi, *ratio))).collect();
    let all: Vec<f64> =
        points.iter().map(|point| point.0).chain(others.iter().map(|other| other.0)).collect();
    let (low, high) = range(&all);
    let x = Axis::linear(low, high, 8);
    let ratios: Vec<f64> =
        points.iter().map(|point| point.1).chain(others.iter().map(|other| other.1)).collect();
    let (least, most) = range(&ratios);
    let y = Axis::log(least.min(low.exp2()), most.max(high.exp2()));

    let (left, top, width, height) = (130.0, 130.0, 1000.0, 580.0);
    let at =
        |(phi, ratio): (f64, f64)| (left + x.position(phi) * width, top + (1.0 - y.position(ratio)) * height);
    for (value, label) in &y.ticks {
        let (_, line) = at((low, *value));
        canvas.rectangle(left, line - 0.67, width, 1.34, GRID);
        canvas.text(label, (left - 12.0, line), Anchor::Right, NOTE);
    }
    canvas.rectangle(left, top + height - 0.67, width, 1.34, AXIS);
    for (value, label) in &x.ticks {
        let (tick, _) = at((*value, least));
        canvas.rectangle(tick - 0.67, top + height, 1.34, 6.0, AXIS);
        canvas.text(label, (tick, top + height + 22.0), Anchor::Center, NOTE);
    }
    canvas.text_upwards(MEASURE, (40.0, top + height / 2.0), Anchor::Center, NOTE);
    canvas.text("compound coefficient φ", (left + width / 2.0, top + height + 56.0), Anchor::Center, NOTE);
    canvas.line(&[at(law(low)), at(law(high))], 3.0, LAW);
    canvas.line(&points.iter().copied().map(at).collect::<Vec<_>>(), 3.0, MEASURED);
    points.iter().for_each(|point| canvas.disc(at(*point), 7.0, MEASURED));
    for (phi, ratio, name) in others {
        let (px, py) = at((*phi, *ratio));
        canvas.disc((px, py), 7.0, PUBLISHED);
        // Above the line, which rises, and clear of the axis' labels on the left.
        let fits = px - 12.0 - text_width(name, NOTE) > left;
        let (anchor, dx, dy) = if fits { (Anchor::Right, -12.0, -14.0) } else { (Anchor::Left, 4.0, -28.0) };
        canvas.text(name, (px + dx, py + dy), anchor, NOTE);
    }
    let mut legend = vec![(MEASURED, MEASURE), (LAW, "2^φ")];
    if !named.is_empty() {
        legend.push((PUBLISHED, "published networks, at the φ of their depth"));
    }
    let mut start = left;
    for (color, text) in legend {
        canvas.disc((start, 96.0), 7.0, color);
        canvas.text(text, (start + 18.0, 96.0), Anchor::Left, LABEL);
        start += 60.0 + text_width(text, LABEL);
    }
    canvas.finish()
}

/// The smallest and the largest, or 0.5 and 1 where there are none.
fn range(values: &[f64]) -> (f64, f64) {
    let ends = values.iter().fold(None, |ends: Option<(f64, f64)>, &v| {
        Some(ends.map_or((v, v), |(low, high)| (low.min(v), high.max(v))))
    });
    ends.unwrap_or((0.5, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_beside_the_axis_leaves_its_labels_alone() {
        let scaled = [(0.0, 1.0), (7.0, 128.0)];
        // The labels of the vertical axis.
        let labels = |named: &[(f64, f64, String)]| {
            let mut picture = scaling("Law", &scaled, named).unwrap();
            image::imageops::crop(&mut picture, 60, 100, 62, 650).to_image()
        };
        assert!(labels(&[]) == labels(&[(0.0, 1.0, "B0".into())]));
    }
}
