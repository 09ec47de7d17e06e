//! The grid search for compound scaling's coefficients (Tan & Le 2019, section 3.3, step 1): fix φ = 1, assume twice the
//! resources, and train a network for each α, β, γ of a grid. Coefficients that round to the same network share one.

mod grid;
mod report;

use serde::Serialize;
use serde_json::{Value, json};
use tallow_models::Compound;
use tallow_trainer::network::NetworkConfig;

use crate::basis::{Basis, Candidate};
use crate::drive::Plan;
use crate::error::{Error, Result};
use crate::journal::Results;

pub use grid::{GROWTH, Grid};
pub use report::{Report, Row};

/// What the grid search does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The compound coefficient at which candidates are compared; the paper's is 1.
    pub phi: f64,
    /// Which coefficients are tried.
    pub grid: Grid,
    /// Resolutions are rounded to multiples of this.
    pub multiple: usize,
}

/// Coefficients, and the candidate that they come to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    coefficients: Compound,
    candidate: usize,
}

/// A grid search. Its candidate 0 is the network at φ = 0, to compare with.
#[derive(Clone, Debug)]
pub struct Search {
    basis: Basis,
    settings: Settings,
    points: Vec<Point>,
    candidates: Vec<Candidate>,
}

impl Search {
    /// Makes the candidates.
    ///
    /// # Errors
    /// Settings that make no sense, and networks that cannot be built.
    pub fn new(basis: Basis, settings: Settings) -> Result<Self> {
        let phi = settings.phi;
        if !(phi > 0.0 && phi <= 8.0) {
            return Err(Error::setting("--phi", format!("must lie above 0 and at most 8, is {phi}")));
        }
        if !(1..=256).contains(&settings.multiple) {
            return Err(Error::setting(
                "--multiple",
                format!("must lie in 1 to 256, is {}", settings.multiple),
            ));
        }
        let size = basis.size()?;
        let network = basis.config.network.clone();
        let mut candidates = vec![basis.candidate(0, network.clone(), size)?];
        let mut graphs = vec![basis.graph(&candidates[0].config)?];
        let mut points = vec![];
        for coefficients in settings.grid.coefficients()? {
            let scaling = network.scaling().times(coefficients.scaling(phi));
            let side = coefficients.rounded_resolution(size as usize, phi, settings.multiple);
            let network = NetworkConfig { widen: scaling.width, deepen: scaling.depth, ..network.clone() };
            let candidate = basis.candidate(candidates.len(), network, side as u32)?;
            let graph = basis.graph(&candidate.config)?;
            // Names tell the factors, so it is the layers that are compared.
            let same = graphs.iter().position(|known| {
                known.input_shape() == graph.input_shape() && known.nodes() == graph.nodes()
            });
            points.push(Point { coefficients, candidate: same.unwrap_or(candidate.index) });
            if same.is_none() {
                candidates.push(candidate);
                graphs.push(graph);
            }
        }
        Ok(Self { basis, settings, points, candidates })
    }

    /// All that decides the candidates and their training.
    pub fn header(&self) -> Value {
        // How many threads prepare images decides nothing.
        let config = tallow_trainer::Config { workers: 0, ..self.basis.config.clone() };
        json!({ "format": 1, "kind": "scaling", "settings": self.settings, "config": config, "data": self.basis.data })
    }

    /// What is known so far, in the grid's order.
    pub fn report(&self, results: &Results) -> Report {
        Report::new(self, results)
    }

    /// Images that an accuracy is measured on.
    pub fn validation_images(&self) -> usize {
        self.basis.validation_images
    }
}

impl Plan for Search {
    fn len(&self) -> usize {
        self.candidates.len()
    }

    fn candidate(&mut self, index: usize, _results: &Results) -> Result<Option<Candidate>> {
        Ok(self.candidates.get(index).cloned())
    }
}

#[cfg(test)]
mod tests {
    use tallow_trainer::Config;
    use tallow_trainer::config::InputConfig;

    use super::*;
    use crate::journal::Measured;

    fn search(step: f64) -> Search {
        let config = Config {
            model: "efficientnet_b0".into(),
            input: InputConfig { size: Some(32), ..InputConfig::default() },
            network: NetworkConfig { widen: 0.25, ..NetworkConfig::default() },
            ..Config::default()
        };
        let grid = Grid { step, tolerance: 0.1 };
        Search::new(Basis::open(config).unwrap(), Settings { phi: 1.0, grid, multiple: 1 }).unwrap()
    }

    #[test]
    fn coefficients_that_round_to_one_network_share_it() {
        let search = search(0.1);
        assert_eq!(search.points.len(), 22);
        assert!(search.candidates.len() < 23, "{}", search.candidates.len());
        for point in &search.points {
            let candidate = &search.candidates[point.candidate];
            assert_eq!(candidate.index, point.candidate);
            let side = (32.0 * point.coefficients.gamma).round() as u32;
            assert_eq!(candidate.config.input.size, Some(side));
        }
    }

    #[test]
    fn the_winner_is_the_most_accurate_then_the_cheapest() {
        let search = search(0.1);
        let result = |candidate: &Candidate, top1| Measured {
            candidate: candidate.index,
            parameters: candidate.parameters,
            macs: candidate.macs,
            top1,
            epoch: 1,
            seconds: 1.0,
            diverged: None,
        };
        let mut results: Results = search.candidates.iter().map(|c| (c.index, result(c, 0.5))).collect();
        // The start wins nothing, however accurate.
        results.insert(0, result(&search.candidates[0], 0.99));
        let cheapest = search.candidates[1..].iter().min_by_key(|c| c.macs).unwrap().index;
        assert_eq!(search.report(&results).best.as_ref().map(|best| best.candidate), Some(cheapest));
        results.insert(2, result(&search.candidates[2], 0.6));
        let report = search.report(&results);
        assert_eq!(report.best.as_ref().map(|best| best.candidate), Some(2));
        let config = report.best_config.unwrap();
        assert_eq!((config.epochs, config.network.widen), (30, search.candidates[2].config.network.widen));
        assert!(search.report(&Results::new()).best.is_none());
    }
}
