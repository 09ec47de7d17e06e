//! The confusion matrix: how often each class was taken for each other.
//! Rows are true classes, columns predictions.
//! Precision, recall and F1 are read off it.

use serde::{Deserialize, Serialize};

use super::argmax;

/// Counts by true and predicted class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// All zero, for `classes` classes.
    ///
    /// # Panics
    /// If `classes` is 0.
    pub fn new(classes: usize) -> Self {
        assert!(classes > 0, "a confusion matrix needs at least one class");
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Adds a batch of logits (N, classes) with N labels.
    ///
    /// # Panics
    /// If the logits are not N rows of `classes`, or a label is not below `classes`.
    pub fn update(&mut self, logits: &[f32], labels: &[u32]) {
        assert_eq!(logits.len(), labels.len() * self.classes, "logits are (labels, classes)");
        for (row, &label) in logits.chunks_exact(self.classes).zip(labels) {
            self.record(label as usize, argmax(row));
        }
    }

    /// Adds one sample.
    ///
    /// # Panics
    /// If either is not below the number of classes.
    pub fn record(&mut self, truth: usize, prediction: usize) {
        assert!(truth < self.classes && prediction < self.classes, "class out of range");
        self.counts[truth * self.classes + prediction] += 1;
    }

    /// Every count, to sum over processes.
    pub(crate) fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.counts.iter_mut()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many samples of class `truth` were taken for `prediction`.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        self.row(truth)[prediction]
    }

    /// The predictions for class `truth`, by class.
    pub fn row(&self, truth: usize) -> &[u64] {
        &self.counts[truth * self.classes..(truth + 1) * self.classes]
    }

    /// Samples of class `truth`.
    pub fn truths(&self, truth: usize) -> u64 {
        self.row(truth).iter().sum()
    }

    /// Samples taken for `prediction`.
    pub fn predictions(&self, prediction: usize) -> u64 {
        (0..self.classes).map(|truth| self.count(truth, prediction)).sum()
    }

    /// All samples.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Share of samples on the diagonal, 0 to 1; NaN without samples.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        right as f64 / self.total() as f64
    }

    /// Share of the predictions of `class` that are right; NaN if there are none.
    pub fn precision(&self, class: usize) -> f64 {
        self.count(class, class) as f64 / self.predictions(class) as f64
    }

    /// Share of the samples of `class` that are found; NaN if there are none.
    pub fn recall(&self, class: usize) -> f64 {
        self.count(class, class) as f64 / self.truths(class) as f64
    }

    /// Harmonic mean of precision and recall; NaN if the class neither occurs nor is predicted.
    pub fn f1(&self, class: usize) -> f64 {
        let both = self.truths(class) + self.predictions(class);
        2.0 * self.count(class, class) as f64 / both as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates_of_a_worked_example() {
        let mut matrix = ConfusionMatrix::new(3);
        let logits =
            [[9.0f32, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 2.0], [5.0, f32::NAN, 1.0], [0.0, 0.5, 1.0]];
        matrix.update(logits.as_flattened(), &[0, 0, 1, 1, 1]);
        assert_eq!([matrix.row(0), matrix.row(1), matrix.row(2)], [[1, 1, 0], [1, 1, 1], [0, 0, 0]]);
        assert_eq!((matrix.total(), matrix.truths(1), matrix.predictions(0)), (5, 3, 2));
        assert_eq!(matrix.accuracy(), 0.4);
        assert_eq!((matrix.precision(0), matrix.recall(1)), (0.5, 1.0 / 3.0));
        assert_eq!(matrix.f1(1), 0.4);
        assert!(matrix.recall(2).is_nan() && matrix.f1(2) == 0.0);
    }
}
