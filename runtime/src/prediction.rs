//! Scores to named classes: softmax and the k most probable.
//! Softmax is computed here, in f64, so that a probability does not depend on the engine.

use serde::Serialize;

/// One class that a network sees in an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The class's name.
    pub label: String,
    /// Its index in the network's output.
    pub index: usize,
    /// Its probability, 0 to 1.
    pub probability: f32,
    /// The network's score before softmax; `None` for a network that gives probabilities.
    pub logit: Option<f32>,
}

/// Softmax of one row of logits.
pub(crate) fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|v| f64::from(v - max).exp()).collect();
    let total: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| (e / total) as f32).collect()
}

/// The indices of the k largest values, largest first; of equal ones the first comes first.
pub(crate) fn top_k(values: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(k);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_large_logits_neither_overflows_nor_vanishes() {
        assert_eq!(softmax(&[1e30, 1e30]), [0.5, 0.5]);
        assert_eq!(softmax(&[-1000.0, 0.0, f32::NEG_INFINITY]), [0.0, 1.0, 0.0]);
        let p = softmax(&[1.0, 2.0, 3.0]); // by hand: e^-2, e^-1, 1 over their sum
        for (p, exact) in p.iter().zip([0.090_030_57, 0.244_728_47, 0.665_240_96]) {
            assert!((p - exact).abs() < 1e-7);
        }
    }

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(top_k(&[0.2, 0.5, 0.2, 0.5], 3), [1, 3, 0]);
        assert_eq!(top_k(&[0.1], 5), [0]);
    }
}
