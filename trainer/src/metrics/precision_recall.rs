//! Precision and recall of each class at every threshold of its probability, one class against the rest.

use tallow_tensorflow::event::ThresholdCounts;

/// Up to here each class has a curve of its own.
const MOST_CLASSES: usize = 50;

/// Decisions of all classes, and of each if they are few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrecisionRecall {
    classes: Vec<ThresholdCounts>,
    all: ThresholdCounts,
}

impl PrecisionRecall {
    /// Nothing seen yet, for `classes` classes.
    pub fn new(classes: usize) -> Self {
        let single = if classes <= MOST_CLASSES { classes } else { 0 };
        Self { classes: vec![ThresholdCounts::default(); single], all: ThresholdCounts::default() }
    }

    /// Adds a batch of logits (N, classes) with N labels.
    pub fn update(&mut self, logits: &[f32], labels: &[u32]) {
        let width = logits.len() / labels.len().max(1);
        for (row, &label) in logits.chunks_exact(width.max(1)).zip(labels) {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = row.iter().map(|logit| (logit - max).exp()).sum();
            for (class, logit) in row.iter().enumerate() {
                let (probability, truth) = ((logit - max).exp() / sum, class == label as usize);
                self.all.add(probability, truth);
                if let Some(counts) = self.classes.get_mut(class) {
                    counts.add(probability, truth);
                }
            }
        }
    }

    /// Every count, to sum over processes.
    pub(crate) fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        std::iter::once(&mut self.all).chain(&mut self.classes).flat_map(ThresholdCounts::counts_mut)
    }

    /// All decisions together: the micro-average.
    pub fn all(&self) -> &ThresholdCounts {
        &self.all
    }

    /// Each class's decisions; empty for more than 50 classes.
    pub fn classes(&self) -> &[ThresholdCounts] {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_micro_average_is_the_sum_of_the_classes() {
        let mut found = PrecisionRecall::new(3);
        found.update(&[5.0, 0.0, 0.0, 0.0, 1.0, 1.0, f32::NAN, 0.0, 0.0], &[0, 2, 1]);
        let at = |counts: &ThresholdCounts, row: usize, threshold: usize| counts.rows()[row][threshold];
        for row in 0..4 {
            for threshold in [0, 50, 100, 200] {
                let sum: f32 = found.classes().iter().map(|counts| at(counts, row, threshold)).sum();
                assert_eq!(at(found.all(), row, threshold), sum);
            }
        }
        // At one half, only the first image's class is said, and that is right.
        assert_eq!((at(found.all(), 0, 100), at(found.all(), 1, 100)), (1.0, 0.0));
        assert!(PrecisionRecall::new(51).classes().is_empty());
    }
}
