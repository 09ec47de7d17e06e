//! The report as a table, for a terminal and for TensorBoard's text page.

use std::fmt;

use super::verdict::number;
use super::{GradientFlow, LayerFlow};

const HEADER: [&str; 8] =
    ["layer", "|gradient|", "|weight|", "|Δw|/|w|", "mean", "variance", "dead", "saturated"];

/// One line a layer, columns aligned.
impl fmt::Display for GradientFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 8]> =
            std::iter::once(HEADER.map(String::from)).chain(self.layers.iter().map(cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 8] = std::array::from_fn(width);
        for (i, row) in rows.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{:<1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
        }
        Ok(())
    }
}

impl GradientFlow {
    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        // A bar would end the cell.
        let header = HEADER.map(|name| name.replace('|', "\\|"));
        let rule = "|---|---:|---:|---:|---:|---:|---:|---:|\n";
        line(&header) + rule + &self.layers.iter().map(|layer| line(&cells(layer))).collect::<String>()
    }
}

fn cells(layer: &LayerFlow) -> [String; 8] {
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0));
    let activation = &layer.activation;
    // Batch normalisation leaves a mean of nearly 0.
    let is_rounding = activation.mean.abs() < 1e-5 * activation.variance.sqrt();
    [
        layer.layer.clone(),
        number(layer.gradient_norm),
        number(layer.weight_norm),
        if layer.update_ratio == 0.0 { "0".into() } else { format!("{:.1e}", layer.update_ratio) },
        number(if is_rounding { 0.0 } else { activation.mean }),
        number(activation.variance),
        percent(activation.dead),
        percent(activation.saturated),
    ]
}
