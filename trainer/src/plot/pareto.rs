//! pareto.png: accuracy against cost of all networks that a search has trained, and those that none beats in both.

use image::RgbImage;

use super::axis::Axis;
use super::canvas::{AXIS, Anchor, Canvas, Color, GRID, LABEL, NOTE, TITLE, Type, shorten, text_width};
use crate::error::Result;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 900;
/// Okabe & Ito's colours, which colour-blind readers tell apart.
const BEST: Color = plotters::style::RGBColor(0xd5, 0x5e, 0x00);
const FRONT: Color = plotters::style::RGBColor(0x00, 0x72, 0xb2);
const BASELINE: Color = plotters::style::RGBColor(0x00, 0x9e, 0x73);
const OTHER: Color = plotters::style::RGBColor(0xb4, 0xba, 0xc3);
/// How thick the curve of equal worth is, pixels.
const LEVEL_WIDTH: f64 = 2.0;

/// What a network is among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// One of many.
    None,
    /// What the search started from.
    Baseline,
    /// What the search has found.
    Best,
}

/// A network that was trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Validation top-1, 0 to 1.
    pub accuracy: f64,
    /// Whether no other is both cheaper and more accurate.
    pub on_front: bool,
    /// What it is among the others.
    pub mark: Mark,
    /// What to call it, where it is marked or on the front.
    pub label: String,
}

/// Draws accuracy over cost. `level` is a curve of equal worth, pairs of MACs and accuracy, if there is such a measure.
///
/// # Errors
/// [`crate::Error::Plot`] if drawing fails.
pub fn pareto(title: &str, trials: &[Trial], level: &[(f64, f64)]) -> Result<RgbImage> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    canvas.text(&shorten(title, f64::from(WIDTH) - 120.0, TITLE), (60.0, 48.0), Anchor::Left, TITLE);
    legend(&mut canvas, !level.is_empty());
    let (left, top, width, height) = (130.0, 140.0, 1010.0, 620.0);
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, 0f64), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (low, high) = ends(&mut trials.iter().map(|trial| trial.macs as f64 / 1e6));
    let x = if high > 0.0 { Axis::log(low.max(1e-6), high.max(1e-6)) } else { Axis::log(0.1, 10.0) };
    let (worst, best) = ends(&mut trials.iter().map(|trial| 100.0 * trial.accuracy));
    let y = if worst <= best {
        Axis::linear(worst.min(best - 1.0).max(0.0), best, 6)
    } else {
        Axis::linear(0.0, 100.0, 5)
    };
    let at = |macs: f64, accuracy: f64| {
        (left + x.position(macs / 1e6) * width, top + (1.0 - y.position(100.0 * accuracy)) * height)
    };
    for (value, label) in &y.ticks {
        let (_, line) = at(1.0, value / 100.0);
        canvas.rectangle(left, line - 0.67, width, 1.34, GRID);
        canvas.text(label, (left - 12.0, line), Anchor::Right, NOTE);
    }
    canvas.rectangle(left, top + height - 0.67, width, 1.34, AXIS);
    for (value, label) in &x.ticks {
        let (tick, _) = at(value * 1e6, 0.0);
        canvas.rectangle(tick - 0.67, top + height, 1.34, 6.0, AXIS);
        canvas.text(label, (tick, top + height + 22.0), Anchor::Center, NOTE);
    }
    let middle = left + width / 2.0;
    canvas.text(
        "MACs for one image, millions, on a logarithmic scale (FLOPs are twice as many)",
        (middle, top + height + 58.0),
        Anchor::Center,
        NOTE,
    );
    canvas.text_upwards("validation top-1, %", (40.0, top + height / 2.0), Anchor::Center, NOTE);

    let inside = |&&(macs, accuracy): &&(f64, f64)| {
        (x.low..=x.high).contains(&(macs / 1e6)) && (y.low..=y.high).contains(&(100.0 * accuracy))
    };
    let curve: Vec<_> = level.iter().filter(inside).map(|&(macs, accuracy)| at(macs, accuracy)).collect();
    canvas.line(&curve, LEVEL_WIDTH, OTHER);
    let mut front: Vec<&Trial> = trials.iter().filter(|trial| trial.on_front).collect();
    front.sort_by_key(|trial| trial.macs);
    canvas.line(&front.iter().map(|t| at(t.macs as f64, t.accuracy)).collect::<Vec<_>>(), 2.5, FRONT);
    // The quiet ones first, so that none hides what matters.
    let rank = |trial: &Trial| (trial.on_front, trial.mark != Mark::None);
    let mut order: Vec<&Trial> = trials.iter().collect();
    order.sort_by_key(|trial| rank(trial));
    for trial in order {
        let (color, radius) = match trial.mark {
            Mark::Best => (BEST, 11.0),
            Mark::Baseline => (BASELINE, 9.0),
            Mark::None if trial.on_front => (FRONT, 8.0),
            Mark::None => (OTHER, 7.0),
        };
        let (px, py) = at(trial.macs as f64, trial.accuracy);
        canvas.disc((px, py), radius, color);
        if trial.on_front || trial.mark != Mark::None {
            let look = Type { bold: trial.mark == Mark::Best, ..NOTE };
            let fits = px + 20.0 + text_width(&trial.label, look) < f64::from(WIDTH);
            let (anchor, dx) = if fits { (Anchor::Left, 14.0) } else { (Anchor::Right, -14.0) };
            canvas.text(&trial.label, (px + dx, py + 18.0), anchor, look);
        }
    }
    canvas.finish()
}

fn legend(canvas: &mut Canvas, has_level: bool) {
    let mut x = 68.0;
    for (color, text) in [(BEST, "best"), (FRONT, "Pareto front"), (BASELINE, "start"), (OTHER, "others")] {
        canvas.disc((x, 96.0), 7.0, color);
        canvas.text(text, (x + 18.0, 96.0), Anchor::Left, LABEL);
        x += 56.0 + text_width(text, LABEL);
    }
    if has_level {
        canvas.line(&[(x - 7.0, 96.0), (x + 27.0, 96.0)], LEVEL_WIDTH, OTHER);
        canvas.text("as good as the best by the objective", (x + 40.0, 96.0), Anchor::Left, LABEL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_shows_a_curve_as_a_line() {
        let trials = [1_000_000, 4_000_000].map(|macs| Trial {
            macs,
            accuracy: macs as f64 / 5e6,
            on_front: false,
            mark: Mark::None,
            label: String::new(),
        });
        let grey = |level: &[(f64, f64)], row: u32| {
            let picture = pareto("Search", &trials, level).unwrap();
            (0..WIDTH).filter(|&x| picture.get_pixel(x, row).0 == [OTHER.0, OTHER.1, OTHER.2]).count()
        };
        let level = [(1e6, 0.3), (4e6, 0.7)];
        // A line of some length in the middle of the row, none a few pixels above it.
        assert!(grey(&level, 96) > grey(&[], 96) + 25);
        assert_eq!(grey(&level, 91), grey(&[], 91));
    }
}
