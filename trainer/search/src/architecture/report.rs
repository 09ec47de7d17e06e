//! What an evolution has found: a row for each candidate, the best, and their picture.

use serde::Serialize;
use tallow_models::Table;
use tallow_trainer::Config;
use tallow_trainer::plot::{Mark, Trial};

use super::Search;
use super::space::change;
use crate::journal::Results;
use crate::objective::accuracy_for;
use crate::pareto::front;

/// Points of the curve of equal worth.
const CURVE: usize = 60;

/// A candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its number, from 0: the start.
    pub candidate: usize,
    /// The candidate it is a mutation of; none for the first population.
    pub parent: Option<usize>,
    /// What is different from the parent, or else from the start.
    pub change: String,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Validation top-1, once it is trained; 0 where that diverged.
    pub top1: Option<f64>,
    /// The objective, once it is trained.
    pub objective: Option<f64>,
    /// Seconds that its training took.
    pub seconds: Option<f64>,
    /// Whether no other is as accurate and cheaper.
    pub on_front: bool,
}

/// What an evolution has found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// MACs of a network whose objective is its accuracy.
    pub target: f64,
    /// The exponent of the objective.
    pub exponent: f64,
    /// The candidates that are known, in their order.
    pub rows: Vec<Row>,
    /// The one with the largest objective; of equal ones the first.
    pub best: Option<Row>,
    /// The stages of the best.
    pub best_table: Option<Table>,
    /// The settings that train the best.
    #[serde(skip)]
    pub best_config: Option<Config>,
}

impl Report {
    pub(super) fn new(search: &Search, results: &Results) -> Self {
        let table = |index: usize| search.space.table(&search.born[index].genome);
        let mut rows: Vec<Row> = vec![];
        for (index, born) in search.born.iter().enumerate() {
            let found = results.get(&index);
            rows.push(Row {
                candidate: index,
                parent: born.parent,
                change: change(&table(born.parent.unwrap_or(0)), &table(index)),
                parameters: born.candidate.parameters,
                macs: born.candidate.macs,
                top1: found.map(|found| found.top1),
                objective: search.worth(index, results),
                seconds: found.map(|found| found.seconds),
                on_front: false,
            });
        }
        let measured: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].top1.is_some()).collect();
        let points: Vec<(u64, f64)> =
            measured.iter().map(|&i| (rows[i].macs, rows[i].top1.unwrap_or_default())).collect();
        for (&i, is_on) in measured.iter().zip(front(&points)) {
            rows[i].on_front = is_on;
        }
        let best = measured
            .into_iter()
            .map(|i| &rows[i])
            .reduce(|best, row| if row.objective > best.objective { row } else { best });
        let best = best.cloned();
        let index = best.as_ref().map(|best| best.candidate);
        Self {
            target: search.target(),
            exponent: search.settings.exponent,
            best_table: index.map(table),
            best_config: index.map(|index| search.born[index].candidate.config.clone()),
            rows,
            best,
        }
    }

    /// The networks that were trained, for the picture.
    pub fn trials(&self) -> Vec<Trial> {
        let best = self.best.as_ref().map(|best| best.candidate);
        let trial = |row: &Row| {
            let mark = match row.candidate {
                candidate if best == Some(candidate) => Mark::Best,
                0 => Mark::Baseline,
                _ => Mark::None,
            };
            let label = if row.candidate == 0 { "start".into() } else { format!("#{}", row.candidate) };
            Some(Trial { macs: row.macs, accuracy: row.top1?, on_front: row.on_front, mark, label })
        };
        self.rows.iter().filter_map(trial).collect()
    }

    /// The accuracies that networks of other costs need to be worth as much as the best: pairs of MACs and accuracy.
    pub fn level(&self) -> Vec<(f64, f64)> {
        let Some(objective) = self.best.as_ref().and_then(|best| best.objective) else { return vec![] };
        let costs = self.rows.iter().map(|row| row.macs as f64);
        let (low, high) =
            costs.fold((f64::INFINITY, 0f64), |(low, high), macs| (low.min(macs), high.max(macs)));
        let macs = |i: usize| low * (high / low).powf(i as f64 / CURVE as f64);
        (0..=CURVE).map(macs).map(|m| (m, accuracy_for(objective, m, self.target, self.exponent))).collect()
    }
}
