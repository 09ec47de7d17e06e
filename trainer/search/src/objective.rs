//! What a network is worth: accuracy, discounted by cost.

/// The exponent of Tan et al. 2019 ("MnasNet", section 3.1): networks of equal worth differ by 5 % in accuracy where one
/// costs twice as much, since 2^0.07 ≈ 1.05.
pub const EXPONENT: f64 = -0.07;

/// ACC(m)·(MACs(m)/T)^w (Tan & Le 2019, section 4, in MACs instead of FLOPs; being a ratio, it is the same in either).
pub fn objective(accuracy: f64, macs: u64, target: f64, exponent: f64) -> f64 {
    accuracy * (macs as f64 / target).powf(exponent)
}

/// The accuracy that a network of so many MACs needs for this objective.
pub fn accuracy_for(objective: f64, macs: f64, target: f64, exponent: f64) -> f64 {
    objective / (macs / target).powf(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objective_is_the_papers() {
        assert_eq!(objective(0.8, 400, 400.0, EXPONENT), 0.8);
        // Twice the cost has to bring 5 % more accuracy.
        let doubled = objective(0.8, 800, 400.0, EXPONENT);
        assert!((0.8 / doubled - 1.0497).abs() < 1e-4, "{doubled}");
        assert!((accuracy_for(doubled, 800.0, 400.0, EXPONENT) - 0.8).abs() < 1e-12);
        assert!(objective(0.0, 1, 400.0, EXPONENT) == 0.0);
    }
}
