//! confusion.png: true classes down, predicted classes across, coloured by the share of the row.
//! Up to thirty classes each cell shows its count; beyond, cells shrink and labels are thinned out, and beyond a
//! thousand classes neighbours share a cell.

use image::RgbImage;

use super::canvas::{
    AXIS, Anchor, Canvas, Color, HEADING, LABEL, MUTED, NOTE, TITLE, Type, shorten, text_width,
};
use super::colormap::{blues, ink_on};
use crate::error::Result;
use crate::metrics::ConfusionMatrix;

/// Cells on a side at most.
const MOST_CELLS: usize = 1000;
/// Up to here every cell shows its count.
const MOST_COUNTED: usize = 30;
/// Cells without a sample, where cells are large enough to tell apart.
const EMPTY: Color = plotters::style::RGBColor(0xf6, 0xf7, 0xf9);
/// Room for a class name.
const NAME_WIDTH: f64 = 210.0;

/// A matrix ready to draw: `cells` x `cells` shares of the row, several classes to a cell if need be.
struct Shares {
    cells: usize,
    per_cell: usize,
    values: Vec<f64>,
}

impl Shares {
    fn of(matrix: &ConfusionMatrix) -> Self {
        let per_cell = matrix.classes().div_ceil(MOST_CELLS);
        let cells = matrix.classes().div_ceil(per_cell);
        let (mut counts, mut totals) = (vec![0u64; cells * cells], vec![0u64; cells]);
        for truth in 0..matrix.classes() {
            for (prediction, &count) in matrix.row(truth).iter().enumerate() {
                counts[truth / per_cell * cells + prediction / per_cell] += count;
                totals[truth / per_cell] += count;
            }
        }
        let share = |(cell, &count): (usize, &u64)| count as f64 / totals[cell / cells].max(1) as f64;
        Self { cells, per_cell, values: counts.iter().enumerate().map(share).collect() }
    }
}

/// Draws a confusion matrix with its classes' names.
///
/// # Errors
/// [`crate::Error::Plot`] if drawing fails or `labels` are not as many as the matrix has classes.
pub fn confusion(title: &str, matrix: &ConfusionMatrix, labels: &[String]) -> Result<RgbImage> {
    if labels.len() != matrix.classes() {
        let reason =
            format!("{} labels for a confusion matrix of {} classes", labels.len(), matrix.classes());
        return Err(crate::Error::Plot { reason });
    }
    let shares = Shares::of(matrix);
    let n = shares.cells as f64;
    let cell = (1000.0 / n).floor().clamp(1.0, 150.0);
    let side = cell * n;
    let counted = matrix.classes() <= MOST_COUNTED;
    let names = Type { size: (cell * 0.9).clamp(13.0, 20.0), ..LABEL };
    let shown: Vec<String> = labels.iter().map(|label| shorten(label, NAME_WIDTH, names)).collect();
    // Names at every k-th cell, so that they never touch.
    let every = (names.size * 1.15 / cell).ceil().max(1.0) as usize;
    let named = || (0..shares.cells).step_by(every).map(|row| (row, &shown[row * shares.per_cell]));
    let widest = named().map(|(_, name)| text_width(name, names)).fold(0.0, f64::max);
    let upright = widest > cell - 8.0;
    let below = if upright { widest } else { names.size };

    let (left, top) = (90.0 + widest, 175.0);
    let recall_width = if counted { 110.0 } else { 20.0 };
    let width = (left + side + recall_width + 130.0).max(700.0);
    let height = top + side + below + 85.0;
    let mut canvas = Canvas::new(width as u32, height as u32);
    canvas.text(&shorten(title, width - 100.0, TITLE), (50.0, 48.0), Anchor::Left, TITLE);
    canvas.text(&summary(matrix), (50.0, 88.0), Anchor::Left, NOTE);

    for (index, &share) in shares.values.iter().enumerate() {
        let (row, column) = (index / shares.cells, index % shares.cells);
        let (x, y) = (left + column as f64 * cell, top + row as f64 * cell);
        let tone = tone(share);
        let gap = if cell >= 12.0 { 1.0 } else { 0.0 };
        let color = if share == 0.0 && gap > 0.0 { EMPTY } else { blues(tone) };
        canvas.rectangle(x, y, cell - gap, cell - gap, color);
        let count = if counted { matrix.count(row, column) } else { 0 };
        if count > 0 {
            let text = count.to_string();
            let fits = (cell - 6.0) / text_width(&text, LABEL) * LABEL.size;
            let size = fits.min(cell * 0.42).clamp(9.0, 24.0);
            let look = Type { size, color: ink_on(tone), bold: row == column };
            canvas.text(&text, (x + cell / 2.0, y + cell / 2.0), Anchor::Center, look);
        }
    }
    outline(&mut canvas, (left, top), side);

    for (row, name) in named() {
        let middle = (row as f64 + 0.5) * cell;
        canvas.text(name, (left - 14.0, top + middle), Anchor::Right, names);
        if upright {
            canvas.text_upwards(name, (left + middle, top + side + 14.0), Anchor::Right, names);
        } else {
            canvas.text(name, (left + middle, top + side + 22.0), Anchor::Center, names);
        }
    }
    canvas.text("Predicted class", (left + side / 2.0, height - 34.0), Anchor::Center, HEADING);
    canvas.text_upwards("True class", (40.0, top + side / 2.0), Anchor::Center, HEADING);
    if counted {
        recalls(&mut canvas, matrix, (left + side + 90.0, top), cell);
    }
    color_bar(&mut canvas, (left + side + recall_width + 30.0, top), side.min(420.0));
    canvas.finish()
}

/// The place of a share on the colour map: its square root, so that rare mistakes show.
fn tone(share: f64) -> f64 {
    share.sqrt()
}

fn summary(matrix: &ConfusionMatrix) -> String {
    let (total, right) = (matrix.total(), (0..matrix.classes()).map(|c| matrix.count(c, c)).sum::<u64>());
    if total == 0 {
        return "no samples".into();
    }
    format!("{right} of {total} right: {:.2} %", matrix.accuracy() * 100.0)
}

fn outline(canvas: &mut Canvas, (left, top): (f64, f64), side: f64) {
    for (x, y, width, height) in [
        (left - 1.0, top - 1.0, side + 2.0, 1.0),
        (left - 1.0, top + side, side + 2.0, 1.0),
        (left - 1.0, top, 1.0, side),
        (left + side, top, 1.0, side),
    ] {
        canvas.rectangle(x, y, width, height, AXIS);
    }
}

/// A column with the share of each class that was found.
fn recalls(canvas: &mut Canvas, matrix: &ConfusionMatrix, (right, top): (f64, f64), cell: f64) {
    let look = Type { size: (cell * 0.6).clamp(13.0, 18.0), color: MUTED, bold: false };
    canvas.text("recall", (right, top - 18.0), Anchor::Right, look);
    for class in 0..matrix.classes() {
        let recall = matrix.recall(class);
        let text = if recall.is_nan() { "–".into() } else { format!("{:.1} %", recall * 100.0) };
        canvas.text(&text, (right, top + (class as f64 + 0.5) * cell), Anchor::Right, look);
    }
}

/// What the colours mean.
fn color_bar(canvas: &mut Canvas, (left, top): (f64, f64), height: f64) {
    let look = Type { size: 17.0, color: MUTED, bold: false };
    canvas.text("share of row", (left + 75.0, top - 18.0), Anchor::Right, Type { size: 15.0, ..look });
    let steps = height as usize;
    for step in 0..steps {
        let tone = 1.0 - step as f64 / (steps - 1).max(1) as f64;
        canvas.rectangle(left, top + step as f64, 20.0, 1.0, blues(tone));
    }
    for percent in [0.0, 1.0, 5.0, 20.0, 50.0, 100.0] {
        let y = top + height * (1.0 - tone(percent / 100.0));
        canvas.rectangle(left + 20.0, y - 0.5, 6.0, 1.0, AXIS);
        canvas.text(&format!("{percent} %"), (left + 32.0, y), Anchor::Left, look);
    }
}
