//! Regularised evolution (Real, Aggarwal, Huang & Le 2019, "Regularized evolution for image classifier architecture
//! search", algorithm 1): a sample of the population competes, the best of it gets a mutated child, and the oldest of
//! the population dies. What competes is the objective of Tan et al. 2019 ([`crate::objective`]).
//!
//! Real et al. let a parent be chosen by whatever results had come in. Here a candidate sees exactly the results of
//! those that are [`Settings::lag`] or more before it, so that the search is the same however many train at once and
//! whichever is done first.

mod report;
mod space;

use serde::Serialize;
use serde_json::{Value, json};
use tallow_builder::Rng;
use tallow_models::{Stage, Table};
use tallow_trainer::network::NetworkConfig;

use crate::basis::{Basis, Candidate};
use crate::drive::Plan;
use crate::error::{Error, Result};
use crate::journal::Results;
use crate::objective::objective;

pub use report::{Report, Row};
pub use space::{Gene, Genome, Space};

/// First part of the key of a candidate's random numbers.
const STREAM: u64 = u64::from_be_bytes(*b"evolve  ");
/// Pixels that the skeleton's last map keeps at least, along a side.
const LEAST_MAP: usize = 4;
/// Mutations that are tried for a network that was not trained yet. Training is seeded: another would tell nothing new.
const ATTEMPTS: usize = 100;

/// What the evolution does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Candidates in all.
    pub candidates: usize,
    /// Candidates that are alive at a time.
    pub population: usize,
    /// Candidates that compete to be a parent.
    pub sample: usize,
    /// A candidate's parent is chosen among those at least so many before it.
    pub lag: usize,
    /// MACs of a network whose objective is its accuracy; by default the start's.
    pub target: Option<f64>,
    /// The exponent w of the objective.
    pub exponent: f64,
    /// Decides all choices.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let exponent = crate::objective::EXPONENT;
        Self { candidates: 50, population: 10, sample: 4, lag: 4, target: None, exponent, seed: 0 }
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        let Self { candidates, population, sample, lag, target, exponent, .. } = *self;
        let range = |name, value: usize, most: usize| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(Error::setting(name, format!("must lie in 1 to {most}, is {value}"))),
        };
        range("--candidates", candidates, 100_000)?;
        range("--population", population, candidates)?;
        range("--sample", sample, population)?;
        range("--lag", lag, population)?;
        if let Some(target) = target.filter(|target| !(*target > 0.0 && target.is_finite())) {
            return Err(Error::setting("--target", format!("must be a number of MACs above 0, is {target}")));
        }
        if !(-1.0..=0.0).contains(&exponent) {
            return Err(Error::setting("--exponent", format!("must lie in -1 to 0, is {exponent}")));
        }
        Ok(())
    }
}

/// A candidate's origin.
#[derive(Clone, Debug, PartialEq)]
struct Born {
    genome: Genome,
    parent: Option<usize>,
    candidate: Candidate,
}

/// An evolution. Its candidate 0 is the skeleton itself.
#[derive(Clone, Debug)]
pub struct Search {
    basis: Basis,
    settings: Settings,
    space: Space,
    size: u32,
    born: Vec<Born>,
}

impl Search {
    /// Prepares the search around the network that the basis names: an EfficientNet, with its own stages or with those
    /// of the settings file. Where images are small, its first strides become 1.
    ///
    /// # Errors
    /// Settings that make no sense, and a network without stages.
    pub fn new(basis: Basis, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let size = basis.size()?;
        let Some(own) = basis.architecture()?.table() else {
            let problem = format!(
                "{} has no stages of inverted residual blocks: name an efficientnet",
                basis.config.model
            );
            return Err(Error::setting("--model", problem));
        };
        // What is wrong with it is said of it, not of a neighbour in the space.
        basis.graph(&basis.config)?;
        let skeleton = match basis.config.network.table() {
            Some(mut table) => {
                let usual = own.stages[0].se;
                table.stages.iter_mut().for_each(|stage| stage.se = stage.se.or(usual));
                table
            }
            None => own.for_size(size as usize, LEAST_MAP),
        };
        let mut search = Self { basis, settings, space: Space::new(skeleton), size, born: vec![] };
        let start = search.space.start();
        search.bear(start, None)?;
        Ok(search)
    }

    /// All that decides the candidates and their training.
    pub fn header(&self) -> Value {
        // How many threads prepare images decides nothing.
        let config = tallow_trainer::Config { workers: 0, ..self.basis.config.clone() };
        let mut header = json!({
            "format": 1, "kind": "architecture", "settings": self.settings, "config": config, "data": self.basis.data
        });
        // A candidate depends on those before it alone: more of them go on with the same search.
        if let Some(settings) = header["settings"].as_object_mut() {
            settings.remove("candidates");
        }
        header
    }

    /// MACs of a network whose objective is its accuracy.
    pub fn target(&self) -> f64 {
        self.settings.target.unwrap_or(self.born[0].candidate.macs as f64)
    }

    /// What is known so far, in the candidates' order.
    pub fn report(&self, results: &Results) -> Report {
        Report::new(self, results)
    }

    /// Images that an accuracy is measured on.
    pub fn validation_images(&self) -> usize {
        self.basis.validation_images
    }

    /// The objective of a candidate whose result is there.
    fn worth(&self, index: usize, results: &Results) -> Option<f64> {
        let found = results.get(&index)?;
        Some(objective(found.top1, found.macs, self.target(), self.settings.exponent))
    }

    fn bear(&mut self, genome: Genome, parent: Option<usize>) -> Result<()> {
        let Self { basis, space, size, .. } = self;
        let NetworkConfig { widen, deepen, .. } = basis.config.network;
        let network = NetworkConfig { widen, deepen, ..space.table(&genome).into() };
        let candidate = basis.candidate(self.born.len(), network, *size)?;
        self.born.push(Born { genome, parent, candidate });
        Ok(())
    }

    /// The next candidate's choices and parent; `None` until the results are there that decide it.
    fn next(&self, results: &Results) -> Option<(Genome, Option<usize>)> {
        let Settings { population, sample, lag, seed, .. } = self.settings;
        let index = self.born.len();
        let mut rng = Rng::stream(seed, &[STREAM, index as u64]);
        if index < population {
            return Some((self.fresh(|rng| self.space.random(rng), &mut rng), None));
        }
        // The population as it was when candidate `known` was born.
        let known = (index + 1 - lag).max(population);
        let alive: Vec<(usize, f64)> =
            (known - population..known).map(|i| Some((i, self.worth(i, results)?))).collect::<Option<_>>()?;
        // With replacement, as in algorithm 1; of equal ones the older.
        let drawn = (0..sample).map(|_| alive[rng.below(population)]);
        let parent = drawn.reduce(|best, other| {
            let is_better = other.1 > best.1 || (other.1 == best.1 && other.0 < best.0);
            if is_better { other } else { best }
        });
        let (parent, _) = parent.expect("a sample has at least one");
        let genome = &self.born[parent].genome;
        Some((self.fresh(|rng| self.space.mutate(genome, rng), &mut rng), Some(parent)))
    }

    /// Choices that come to no network that was there before; where all attempts do, the last.
    fn fresh(&self, make: impl Fn(&mut Rng) -> Genome, rng: &mut Rng) -> Genome {
        let scaling = self.basis.config.network.scaling();
        // Compared as they are built: rounding makes many a choice the same.
        let built = |table: Table| {
            let stages = table.stages.into_iter();
            let scale = |stage: Stage| Stage {
                channels: scaling.channels(stage.channels),
                repeats: scaling.repeats(stage.repeats),
                ..stage
            };
            stages.map(scale).collect::<Vec<_>>()
        };
        let known: Vec<_> = self.born.iter().map(|born| built(self.space.table(&born.genome))).collect();
        let mut genome = make(rng);
        for _ in 1..ATTEMPTS {
            if !known.contains(&built(self.space.table(&genome))) {
                break;
            }
            genome = make(rng);
        }
        genome
    }
}

impl Plan for Search {
    fn len(&self) -> usize {
        self.settings.candidates
    }

    fn candidate(&mut self, index: usize, results: &Results) -> Result<Option<Candidate>> {
        while self.born.len() <= index {
            let Some((genome, parent)) = self.next(results) else { return Ok(None) };
            self.bear(genome, parent)?;
        }
        Ok(Some(self.born[index].candidate.clone()))
    }
}

#[cfg(test)]
mod tests;
