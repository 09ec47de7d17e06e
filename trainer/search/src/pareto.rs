//! The Pareto front of cost and accuracy.

/// Of each of `points` (cost, accuracy): whether none is at least as good in both and better in one.
pub fn front(points: &[(u64, f64)]) -> Vec<bool> {
    let beats = |a: &(u64, f64), b: &(u64, f64)| a.0 <= b.0 && a.1 >= b.1 && a != b;
    points.iter().map(|point| !points.iter().any(|other| beats(other, point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_none_beats() {
        let points = [(10, 0.5), (20, 0.7), (20, 0.6), (30, 0.7), (40, 0.9), (10, 0.5)];
        assert_eq!(front(&points), [true, true, false, false, true, true]);
        assert!(front(&[]).is_empty());
    }
}
