//! The grid of coefficients: all α, β, γ ≥ 1 on a lattice with α·β²·γ² ≈ 2 (Tan & Le 2019, equation 3).

use serde::{Deserialize, Serialize};
use tallow_models::Compound;

use crate::error::{Error, Result};

/// What α·β²·γ² is to be about.
pub const GROWTH: f64 = 2.0;
/// More candidates than anybody trains.
const MOST: usize = 10_000;

/// The lattice and what is taken of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Distance of neighbours along each axis; all begin at 1.
    pub step: f64,
    /// How far α·β²·γ² may be from 2.
    pub tolerance: f64,
}

impl Grid {
    /// The coefficients, by α, then β, then γ.
    ///
    /// # Errors
    /// Where step or tolerance make no sense, or leave none or too many.
    pub fn coefficients(&self) -> Result<Vec<Compound>> {
        let Self { step, tolerance } = *self;
        if !(0.005..=1.0).contains(&step) {
            return Err(Error::setting("--step", format!("must lie in 0.005 to 1, is {step}")));
        }
        if !(0.0..1.0).contains(&tolerance) {
            return Err(Error::setting("--tolerance", format!("must lie in [0, 1), is {tolerance}")));
        }
        let most = GROWTH + tolerance;
        // Sums of steps are off in their last digits, which would show in tables and names.
        let axis = |most: f64| {
            let values = (0..).map(move |n| ((1.0 + f64::from(n) * step) * 1e6).round() / 1e6);
            values.take_while(move |value| *value <= most + 1e-9)
        };
        let mut found = vec![];
        for alpha in axis(most) {
            for beta in axis(most.sqrt()) {
                for gamma in axis(most.sqrt()) {
                    let point = Compound { alpha, beta, gamma };
                    if (point.growth() - GROWTH).abs() <= tolerance + 1e-9 {
                        found.push(point);
                    }
                }
            }
        }
        match found.len() {
            0 => Err(Error::setting(
                "--tolerance",
                format!(
                    "{tolerance} leaves no α, β, γ with step {step} whose α·β²·γ² is near 2: widen it, or lessen --step"
                ),
            )),
            1..=MOST => Ok(found),
            n => Err(Error::setting("--step", format!("{step} gives {n} candidates: choose a larger one"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_all_that_nearly_double_and_nothing_else() {
        let grid = Grid { step: 0.1, tolerance: 0.1 }.coefficients().unwrap();
        let shown: Vec<_> = grid.iter().map(|c| (c.alpha, c.beta, c.gamma)).collect();
        assert_eq!(
            shown,
            [
                (1.0, 1.0, 1.4),
                (1.0, 1.1, 1.3),
                (1.0, 1.2, 1.2),
                (1.0, 1.3, 1.1),
                (1.0, 1.4, 1.0),
                (1.1, 1.1, 1.2),
                (1.1, 1.2, 1.1),
                (1.2, 1.0, 1.3),
                (1.2, 1.1, 1.2),
                (1.2, 1.2, 1.1),
                (1.2, 1.3, 1.0),
                (1.3, 1.1, 1.1),
                (1.4, 1.0, 1.2),
                (1.4, 1.1, 1.1),
                (1.4, 1.2, 1.0),
                (1.6, 1.0, 1.1),
                (1.6, 1.1, 1.0),
                (1.7, 1.0, 1.1),
                (1.7, 1.1, 1.0),
                (1.9, 1.0, 1.0),
                (2.0, 1.0, 1.0),
                (2.1, 1.0, 1.0),
            ]
        );
        let fine = Grid { step: 0.05, tolerance: 0.1 }.coefficients().unwrap();
        assert!(fine.contains(&Compound::PAPER));
        assert!(fine.iter().all(|c| c.alpha >= 1.0 && c.beta >= 1.0 && c.gamma >= 1.0));
    }

    #[test]
    fn a_grid_without_candidates_says_what_to_change() {
        let error = Grid { step: 0.3, tolerance: 0.001 }.coefficients().unwrap_err().to_string();
        assert!(error.contains("--tolerance 0.001 leaves no") && error.contains("lessen --step"), "{error}");
        assert!(Grid { step: 0.0, tolerance: 0.1 }.coefficients().is_err());
        assert!(Grid { step: 0.005, tolerance: 0.9 }.coefficients().is_err());
    }
}
