//! How good a network is, from its logits: running loss, top-1 and top-5 ([`Running`]), the confusion matrix
//! ([`ConfusionMatrix`]), precision and recall ([`PrecisionRecall`]) and the run's log, one row an epoch ([`csv`]).
//! Logits come as a row-major (N, classes) slice.

mod confusion;
pub mod csv;
mod precision_recall;

pub use confusion::ConfusionMatrix;
pub use precision_recall::PrecisionRecall;
use serde::{Deserialize, Serialize};

/// Loss and accuracies over the samples seen so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    classes: usize,
    samples: usize,
    loss: f64,
    top1: usize,
    top5: usize,
}

impl Running {
    /// Nothing seen yet, for `classes` classes.
    ///
    /// # Panics
    /// If `classes` is 0.
    pub fn new(classes: usize) -> Self {
        assert!(classes > 0, "metrics need at least one class");
        Self { classes, samples: 0, loss: 0.0, top1: 0, top5: 0 }
    }

    /// Adds a batch: its mean loss, its logits (N, classes) and its N labels.
    ///
    /// # Panics
    /// If the logits are not N rows of `classes`, or a label is not below `classes`.
    pub fn update(&mut self, mean_loss: f64, logits: &[f32], labels: &[u32]) {
        assert_eq!(logits.len(), labels.len() * self.classes, "logits are (labels, classes)");
        self.samples += labels.len();
        if !labels.is_empty() {
            self.loss += mean_loss * labels.len() as f64;
        }
        for (row, &label) in logits.chunks_exact(self.classes).zip(labels) {
            let rank = rank_of(row, label as usize);
            self.top1 += usize::from(rank < 1);
            self.top5 += usize::from(rank < 5);
        }
    }

    /// Adds what was seen elsewhere, or in another batch.
    pub fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.loss += other.loss;
        self.top1 += other.top1;
        self.top5 += other.top5;
    }

    /// Samples, sum of losses, and how often the label was the first and among the first five: to sum over processes.
    pub(crate) fn sums(&self) -> [f64; 4] {
        [self.samples as f64, self.loss, self.top1 as f64, self.top5 as f64]
    }

    /// Of such sums.
    pub(crate) fn of_sums(classes: usize, [samples, loss, top1, top5]: [f64; 4]) -> Self {
        Self {
            samples: samples as usize,
            loss,
            top1: top1 as usize,
            top5: top5 as usize,
            ..Self::new(classes)
        }
    }

    /// Samples seen.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Mean loss per sample; NaN before the first sample.
    pub fn loss(&self) -> f64 {
        self.loss / self.samples as f64
    }

    /// Share of samples whose label has the largest logit, 0 to 1; NaN before the first sample.
    pub fn top1(&self) -> f64 {
        self.top1 as f64 / self.samples as f64
    }

    /// Share of samples whose label is among the five largest logits (all of them if there are fewer classes).
    pub fn top5(&self) -> f64 {
        self.top5 as f64 / self.samples as f64
    }
}

/// How many classes come before `label`: those with a larger logit, or with the same logit and a smaller index.
///
/// NaN orders before everything but is never right: a label whose logit is NaN has a rank beyond all classes.
fn rank_of(row: &[f32], label: usize) -> usize {
    let own = row[label];
    if own.is_nan() {
        return usize::MAX;
    }
    let before =
        |(class, &logit): (usize, &f32)| logit.is_nan() || logit > own || (logit == own && class < label);
    row.iter().enumerate().filter(|&entry| before(entry)).count()
}

/// The class with the largest logit, the first of equals; NaN counts as smallest.
fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, &logit) in row.iter().enumerate() {
        if logit > row[best] || (row[best].is_nan() && !logit.is_nan()) {
            best = class;
        }
    }
    best
}

/// Mean cross-entropy −log softmax(logits)\[label\] over a batch of logits (N, classes), in f64 and without label
/// smoothing; 0 for an empty batch.
///
/// # Panics
/// If the logits are not N rows of one length, or a label is not below it.
pub fn cross_entropy(logits: &[f32], labels: &[u32]) -> f64 {
    if labels.is_empty() {
        return 0.0;
    }
    assert_eq!(logits.len() % labels.len(), 0, "logits are (labels, classes)");
    let rows = logits.chunks_exact(logits.len() / labels.len());
    let sum: f64 = rows
        .zip(labels)
        .map(|(row, &label)| {
            let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let log_sum = row.iter().map(|&logit| (f64::from(logit) - max).exp()).sum::<f64>().ln();
            max + log_sum - f64::from(row[label as usize])
        })
        .sum();
    sum / labels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_builder::Rng;

    #[test]
    fn accuracies_agree_with_sorting() {
        let mut rng = Rng::new(5);
        for classes in [2, 3, 5, 6, 40] {
            let (mut running, n) = (Running::new(classes), 300);
            let logits: Vec<f32> = (0..n * classes).map(|_| rng.normal() as f32).collect();
            let labels: Vec<u32> = (0..n).map(|_| rng.below(classes) as u32).collect();
            let (mut top1, mut top5) = (0, 0);
            for (row, &label) in logits.chunks(classes).zip(&labels) {
                let mut order: Vec<usize> = (0..classes).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                top1 += usize::from(order[0] == label as usize);
                top5 += usize::from(order.iter().take(5).any(|&c| c == label as usize));
            }
            running.update(2.0, &logits[..100 * classes], &labels[..100]);
            running.update(0.5, &logits[100 * classes..], &labels[100..]);
            assert_eq!(running.samples(), n);
            assert_eq!(running.top1(), top1 as f64 / n as f64);
            assert_eq!(running.top5(), top5 as f64 / n as f64);
            assert_eq!(running.loss(), 1.0);
        }
    }

    #[test]
    fn equal_logits_go_to_the_first_class_and_nan_is_never_right() {
        let mut running = Running::new(6);
        running.update(0.0, &[0.0; 6], &[0]);
        assert_eq!((running.top1(), running.top5()), (1.0, 1.0));
        running.update(0.0, &[0.0; 6], &[5]);
        assert_eq!((running.top1(), running.top5()), (0.5, 0.5));
        let mut running = Running::new(2);
        running.update(f64::NAN, &[f32::NAN, 1.0, f32::NAN, f32::NAN], &[1, 0]);
        assert_eq!(running.top1(), 0.0);
        assert!(running.loss().is_nan());
    }

    #[test]
    fn cross_entropy_is_minus_log_of_the_softmax() {
        let logits = [1.0f32, 2.0, 3.0, 1000.0, 0.0, -1000.0];
        let e = |x: f64| x.exp();
        let first = -(e(2.0) / (e(1.0) + e(2.0) + e(3.0))).ln();
        assert!((cross_entropy(&logits, &[1, 0]) - first / 2.0).abs() < 1e-12);
        assert!((cross_entropy(&logits[3..], &[2]) - 2000.0).abs() < 1e-9);
        assert_eq!(cross_entropy(&[], &[]), 0.0);
    }
}
