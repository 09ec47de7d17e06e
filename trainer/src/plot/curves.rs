//! curves.png: loss and accuracy of training and validation over the epochs, the best epoch marked, and below
//! them learning rate and speed.
//! Values that are not finite leave a gap.

use image::RgbImage;

use super::axis::Axis;
use super::canvas::{
    AXIS, Anchor, Canvas, Color, GRID, HEADING, LABEL, MUTED, NOTE, PAPER, TITLE, Type, text_width,
};
use crate::error::Result;
use crate::metrics::csv::Row;

const WIDTH: u32 = 1600;
const HEIGHT: u32 = 1000;
/// Okabe & Ito's blue and vermilion, which colour-blind readers tell apart.
const TRAINING: Color = plotters::style::RGBColor(0x00, 0x72, 0xb2);
const VALIDATION: Color = plotters::style::RGBColor(0xd5, 0x5e, 0x00);
/// Learning rate and speed.
const QUIET: Color = plotters::style::RGBColor(0x5b, 0x67, 0x78);
/// From this ratio of largest to smallest loss on, a linear axis hides too much.
const LOG_FROM: f64 = 40.0;

/// One curve: a value for each row.
struct Curve<'a> {
    color: Color,
    value: &'a dyn Fn(&Row) -> Option<f64>,
}

/// A diagram's place, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// Draws the learning curves of a run: `rows` as metrics.csv has them.
///
/// # Errors
/// [`crate::Error::Plot`] if drawing fails.
pub fn curves(title: &str, rows: &[Row]) -> Result<RgbImage> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let best = best_epoch(rows);
    canvas.text(&super::canvas::shorten(title, 900.0, TITLE), (60.0, 48.0), Anchor::Left, TITLE);
    canvas.text(&summary(rows, best), (60.0, 88.0), Anchor::Left, NOTE);
    legend(&mut canvas, rows, best.is_some());

    let epochs = Axis::epochs(rows.first().map_or(1, |r| r.epoch), rows.last().map_or(1, |r| r.epoch));
    let (left, right) = (130.0, 910.0);
    let tall = |left| Frame { left, top: 175.0, width: 630.0, height: 440.0 };
    let low = |left| Frame { left, top: 745.0, width: 630.0, height: 140.0 };

    let losses = [
        Curve { color: TRAINING, value: &|row| Some(row.train_loss) },
        Curve { color: VALIDATION, value: &|row| row.validation.map(|v| v.loss) },
    ];
    let accuracies = [
        Curve { color: TRAINING, value: &|row| Some(row.train_top1 * 100.0) },
        Curve { color: VALIDATION, value: &|row| row.validation.map(|v| v.top1 * 100.0) },
    ];
    let rate = [Curve { color: QUIET, value: &|row| Some(row.learning_rate) }];
    let speed = [Curve { color: QUIET, value: &|row| Some(row.images_per_second) }];
    let loss_axis = loss_axis(&values(rows, &losses));
    let heading = if loss_axis.scale == super::axis::Scale::Log { "Loss (log scale)" } else { "Loss" };
    let accuracy_low = values(rows, &accuracies).into_iter().fold(100.0, f64::min).min(98.0);
    diagram(&mut canvas, tall(left), heading, (&epochs, &loss_axis), (rows, &losses), best);
    let accuracy_axis = Axis::linear(accuracy_low.max(0.0), 100.0, 5);
    diagram(
        &mut canvas,
        tall(right),
        "Top-1 accuracy, %",
        (&epochs, &accuracy_axis),
        (rows, &accuracies),
        best,
    );
    for (left, heading, curve) in
        [(left, "Learning rate", &rate), (right, "Training images per second", &speed)]
    {
        let axis = Axis::linear(0.0, values(rows, curve).into_iter().fold(0.0, f64::max), 2);
        diagram(&mut canvas, low(left), heading, (&epochs, &axis), (rows, curve), None);
        canvas.text("epoch", (left + 315.0, 945.0), Anchor::Center, NOTE);
    }
    canvas.finish()
}

/// The first row with the highest validation top-1.
fn best_epoch(rows: &[Row]) -> Option<&Row> {
    let measured = rows.iter().filter(|row| row.validation.is_some_and(|v| v.top1.is_finite()));
    measured.reduce(|best, row| {
        let top1 = |row: &Row| row.validation.map_or(f64::NAN, |v| v.top1);
        if top1(row) > top1(best) { row } else { best }
    })
}

fn summary(rows: &[Row], best: Option<&Row>) -> String {
    let count = rows.len();
    let epochs = if count == 1 { "1 epoch".to_string() } else { format!("{count} epochs") };
    match best.and_then(|row| row.validation.map(|v| (row.epoch, v))) {
        Some((epoch, v)) => format!(
            "{epochs} · best: epoch {epoch}, validation top-1 {:.2} %, top-5 {:.2} %, loss {:.4}",
            v.top1 * 100.0,
            v.top5 * 100.0,
            v.loss
        ),
        None => epochs,
    }
}

/// The finite values of all curves.
fn values(rows: &[Row], curves: &[Curve<'_>]) -> Vec<f64> {
    let all = curves.iter().flat_map(|curve| rows.iter().filter_map(|row| (curve.value)(row)));
    all.filter(|value| value.is_finite()).collect()
}

fn loss_axis(losses: &[f64]) -> Axis {
    let high = losses.iter().copied().fold(0.0, f64::max);
    let low = losses.iter().copied().fold(f64::INFINITY, f64::min);
    if low > 0.0 && low.is_finite() && high / low >= LOG_FROM {
        Axis::log(low, high)
    } else {
        Axis::linear(low.min(0.0), high, 5)
    }
}

/// Which colour is what, at the top right, laid out from the right edge.
fn legend(canvas: &mut Canvas, rows: &[Row], best: bool) {
    let mut x = f64::from(WIDTH) - 60.0;
    let mut entry = |canvas: &mut Canvas, text: &str, mark: &dyn Fn(&mut Canvas, f64)| {
        x -= text_width(text, LABEL);
        canvas.text(text, (x, 48.0), Anchor::Left, LABEL);
        x -= 44.0;
        mark(canvas, x);
        x -= 28.0;
    };
    if best {
        entry(canvas, "best epoch", &|canvas, x| ring(canvas, (x + 18.0, 48.0)));
    }
    if rows.iter().any(|row| row.validation.is_some()) {
        entry(canvas, "validation", &|c, x| c.line(&[(x, 48.0), (x + 34.0, 48.0)], 4.0, VALIDATION));
    }
    entry(canvas, "training", &|c, x| c.line(&[(x, 48.0), (x + 34.0, 48.0)], 4.0, TRAINING));
}

/// The mark of the best epoch.
fn ring(canvas: &mut Canvas, at: (f64, f64)) {
    canvas.disc(at, 9.0, VALIDATION);
    canvas.disc(at, 5.5, PAPER);
}

/// One diagram: heading, grid, ticks, curves, and the best epoch on the last curve.
fn diagram(
    canvas: &mut Canvas,
    frame: Frame,
    heading: &str,
    (epochs, axis): (&Axis, &Axis),
    (rows, curves): (&[Row], &[Curve<'_>]),
    best: Option<&Row>,
) {
    let Frame { left, top, width, height } = frame;
    let place = |epoch: u64, value: f64| {
        let (x, y) = (epochs.position(epoch as f64), axis.position(value));
        (left + 16.0 + x * (width - 32.0), top + height - y * height)
    };
    canvas.text(heading, (left - 70.0, top - 32.0), Anchor::Left, HEADING);
    for (value, label) in &axis.ticks {
        let y = place(0, *value).1;
        canvas.rectangle(left, y - 0.67, width, 1.34, GRID);
        canvas.text(label, (left - 12.0, y), Anchor::Right, NOTE);
    }
    canvas.rectangle(left, top + height - 0.67, width, 1.34, AXIS);
    for (epoch, label) in &epochs.ticks {
        let x = place(*epoch as u64, 0.0).0;
        canvas.rectangle(x - 0.67, top + height, 1.34, 6.0, AXIS);
        canvas.text(label, (x, top + height + 22.0), Anchor::Center, NOTE);
    }
    if let Some(row) = best {
        canvas.dashes(place(row.epoch, 0.0).0, top, top + height, AXIS);
    }
    for curve in curves {
        let points = rows.iter().map(|row| {
            let value = (curve.value)(row).filter(|value| value.is_finite());
            value.map(|value| place(row.epoch, value))
        });
        draw_curve(canvas, &points.collect::<Vec<_>>(), curve.color);
    }
    if let (Some(row), Some(curve)) = (best, curves.last())
        && let Some(value) = (curve.value)(row).filter(|value| value.is_finite())
    {
        let at = place(row.epoch, value);
        ring(canvas, at);
        let note = Type { size: 18.0, color: MUTED, bold: false };
        canvas.text(&format!("epoch {}", row.epoch), (at.0, top - 16.0), Anchor::Center, note);
    }
}

/// A line through the points that are there; gaps stay open, single points show as dots.
pub(super) fn draw_curve(canvas: &mut Canvas, points: &[Option<(f64, f64)>], color: Color) {
    for run in points.split(Option::is_none) {
        let run: Vec<(f64, f64)> = run.iter().flatten().copied().collect();
        canvas.line(&run, 3.0, color);
        if points.len() <= 40 || run.len() == 1 {
            run.iter().for_each(|&point| canvas.disc(point, 4.5, color));
        }
    }
}
