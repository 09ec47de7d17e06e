//! What a grid search has found: a row for each point of the grid, the best, and their picture.

use serde::Serialize;
use tallow_models::Compound;
use tallow_trainer::Config;
use tallow_trainer::plot::{Mark, Trial};

use super::Search;
use crate::basis::Candidate;
use crate::journal::Results;
use crate::pareto::front;

/// A point of the grid, or the start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The candidate that was trained for it; several points may share one.
    pub candidate: usize,
    /// Factor on depth; 1 for the start, as are the others.
    pub alpha: f64,
    /// Factor on width.
    pub beta: f64,
    /// Factor on resolution.
    pub gamma: f64,
    /// α·β²·γ².
    pub growth: f64,
    /// Side of the images, pixels.
    pub resolution: u32,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Those over the start's: what rounding has made of the growth.
    pub macs_ratio: f64,
    /// Validation top-1, once it is trained; 0 where that diverged.
    pub top1: Option<f64>,
    /// Seconds that its training took.
    pub seconds: Option<f64>,
    /// Whether no other is as accurate and cheaper.
    pub on_front: bool,
}

/// What a grid search has found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The network at φ = 0.
    pub start: Row,
    /// The points of the grid, in its order.
    pub rows: Vec<Row>,
    /// The most accurate point; of equal ones the cheapest, then the first.
    pub best: Option<Row>,
    /// The settings that train the best.
    #[serde(skip)]
    pub best_config: Option<Config>,
}

impl Report {
    pub(super) fn new(search: &Search, results: &Results) -> Self {
        let none = Compound { alpha: 1.0, beta: 1.0, gamma: 1.0 };
        let base = search.candidates[0].macs;
        let row = |coefficients: Compound, candidate: &Candidate| {
            let found = results.get(&candidate.index);
            Row {
                candidate: candidate.index,
                alpha: coefficients.alpha,
                beta: coefficients.beta,
                gamma: coefficients.gamma,
                growth: coefficients.growth(),
                resolution: candidate.config.input.size.unwrap_or_default(),
                parameters: candidate.parameters,
                macs: candidate.macs,
                macs_ratio: candidate.macs as f64 / base as f64,
                top1: found.map(|found| found.top1),
                seconds: found.map(|found| found.seconds),
                on_front: false,
            }
        };
        let mut all = vec![row(none, &search.candidates[0])];
        all.extend(
            search.points.iter().map(|point| row(point.coefficients, &search.candidates[point.candidate])),
        );
        let measured: Vec<usize> = (0..all.len()).filter(|&i| all[i].top1.is_some()).collect();
        let points: Vec<(u64, f64)> =
            measured.iter().map(|&i| (all[i].macs, all[i].top1.unwrap_or_default())).collect();
        for (&i, is_on) in measured.iter().zip(front(&points)) {
            all[i].on_front = is_on;
        }
        let start = all.remove(0);
        let measured = all.iter().filter(|row| row.top1.is_some());
        let best = measured.reduce(|best, row| {
            let worth = |row: &Row| row.top1.unwrap_or_default();
            let is_better = worth(row) > worth(best) || (worth(row) == worth(best) && row.macs < best.macs);
            if is_better { row } else { best }
        });
        let best = best.cloned();
        let best_config = best.as_ref().map(|best| search.candidates[best.candidate].config.clone());
        Self { start, rows: all, best, best_config }
    }

    /// The networks that were trained, for the picture; points that share one are drawn once.
    pub fn trials(&self) -> Vec<Trial> {
        let best = self.best.as_ref().map(|best| best.candidate);
        let mut drawn = std::collections::BTreeSet::new();
        let rows = std::iter::once(&self.start).chain(&self.rows);
        let first = rows.filter(|row| row.top1.is_some() && drawn.insert(row.candidate));
        let trial = |row: &Row| {
            let mark = match row.candidate {
                0 => Mark::Baseline,
                candidate if best == Some(candidate) => Mark::Best,
                _ => Mark::None,
            };
            let Row { alpha, beta, gamma, .. } = row;
            let label =
                if row.candidate == 0 { "φ = 0".into() } else { format!("α {alpha} β {beta} γ {gamma}") };
            let accuracy = row.top1.unwrap_or_default();
            Trial { macs: row.macs, accuracy, on_front: row.on_front, mark, label }
        };
        first.map(trial).collect()
    }
}
