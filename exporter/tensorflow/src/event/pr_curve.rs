//! Counts of right and wrong decisions at every threshold of a probability.

/// Thresholds of a curve, evenly from 0 to 1: the default of TensorBoard's plugin.
pub const THRESHOLDS: usize = 201;

/// For one question with a yes or no: how often which probability was given, by the true answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdCounts {
    positives: Vec<u64>,
    negatives: Vec<u64>,
}

impl Default for ThresholdCounts {
    fn default() -> Self {
        Self { positives: vec![0; THRESHOLDS], negatives: vec![0; THRESHOLDS] }
    }
}

impl ThresholdCounts {
    /// Counts an answer: the probability given for yes, 0 to 1 (NaN counts as 0), and whether yes is true.
    pub fn add(&mut self, probability: f32, truth: bool) {
        let bucket = (probability * (THRESHOLDS - 1) as f32) as usize;
        let side = if truth { &mut self.positives } else { &mut self.negatives };
        side[bucket.min(THRESHOLDS - 1)] += 1;
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in
            [(&mut self.positives, &other.positives), (&mut self.negatives, &other.negatives)]
        {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
        }
    }

    /// Every count, to sum over processes.
    pub fn counts_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        self.positives.iter_mut().chain(&mut self.negatives)
    }

    /// True positives, false positives, true negatives, false negatives, precision and recall at each threshold, where
    /// yes is said from the threshold on. Without any yes, precision is 0, as in TensorBoard.
    pub fn rows(&self) -> [Vec<f32>; 6] {
        let said = |side: &[u64]| -> Vec<f64> {
            let mut sum = 0;
            let mut sums: Vec<f64> = side
                .iter()
                .rev()
                .map(|count| {
                    sum += count;
                    sum as f64
                })
                .collect();
            sums.reverse();
            sums
        };
        let (tp, fp) = (said(&self.positives), said(&self.negatives));
        let (yes, no) = (tp[0], fp[0]);
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let row = |value: &dyn Fn(usize) -> f64| (0..THRESHOLDS).map(|i| value(i) as f32).collect();
        [
            row(&|i| tp[i]),
            row(&|i| fp[i]),
            row(&|i| no - fp[i]),
            row(&|i| yes - tp[i]),
            row(&|i| share(tp[i], tp[i] + fp[i])),
            row(&|i| share(tp[i], yes)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        let mut counts = ThresholdCounts::default();
        for (probability, truth) in [(0.9, true), (0.6, false), (0.6, true), (0.1, false), (f32::NAN, true)] {
            counts.add(probability, truth);
        }
        let mut twice = counts.clone();
        twice.merge(&counts);
        assert_eq!(twice.rows()[0][0], 6.0);
        let at = |threshold: usize| counts.rows().map(|row| row[threshold]);
        assert_eq!(at(0), [3.0, 2.0, 0.0, 0.0, 0.6, 1.0]);
        assert_eq!(at(100), [2.0, 1.0, 1.0, 1.0, 2.0 / 3.0, 2.0 / 3.0]);
        assert_eq!(at(200), [0.0, 0.0, 2.0, 3.0, 0.0, 0.0]);
    }
}
