//! The exponential moving average of a network's weights, which generalises better than the last step's.

use serde::{Deserialize, Serialize};
use tallow_builder::Weights;
use tallow_builder::graph::{Graph, Role};

use tallow_cuda::is_on_gpu;

use super::gpu;
use super::rule::combine2;
use crate::error::{Error, Result};

/// An average over all parameters and running moments: average = decay·average + (1 − decay)·new.
#[derive(Clone, Debug)]
pub struct Ema {
    decay: Decay,
    weights: Weights,
    names: Vec<(String, Role)>,
}

/// How slowly an average moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decay {
    /// Share of the old average that is kept, such as 0.9999.
    pub decay: f64,
    /// Whether early steps keep less: (1 + step)/(10 + step), as in TensorFlow, so that the start is forgotten soon.
    #[serde(default = "yes")]
    pub warm_up: bool,
}

fn yes() -> bool {
    true
}

impl Decay {
    /// Refuses a share outside [0, 1).
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn validate(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.decay) {
            return Ok(());
        }
        let remedy = "choose a number in [0, 1), such as 0.9999";
        Err(Error::Setting { name: "ema.decay", value: self.decay.to_string(), remedy })
    }

    /// The share kept at a step, counted from 1.
    fn at(&self, step: u64) -> f64 {
        let step = step as f64;
        if self.warm_up { self.decay.min((1.0 + step) / (10.0 + step)) } else { self.decay }
    }
}

impl Ema {
    /// Starts at `weights`, which may be a checkpoint's average.
    pub fn new(decay: Decay, graph: &Graph, weights: Weights) -> Self {
        let names = graph.parameters().into_iter().map(|p| (p.name, p.role)).collect();
        Self { decay, weights, names }
    }

    /// The average.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The average, for those who know better what some of it is.
    pub(crate) fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Moves the average after optimiser step number `step`, counted from 1. Tensors that `moves` refuses are frozen,
    /// and stay in the average as they are: rounding would make them drift.
    ///
    /// # Errors
    /// Where the device has no room.
    pub fn update(&mut self, weights: &Weights, step: u64, moves: impl Fn(&str) -> bool) -> Result<()> {
        let new = (1.0 - self.decay.at(step)) as f32;
        if let Some((_, tensor)) = weights.iter().next()
            && is_on_gpu(tensor)
        {
            return self.update_on_gpu(weights, new, moves);
        }
        for (name, role) in self.names.iter().filter(|(name, _)| moves(name)) {
            let current = weights.get(name);
            let moved = match role {
                Role::BatchesTracked => current.clone(),
                _ => combine2(self.weights.get(name), current, move |a, w| a + new * (w - a))?,
            };
            self.weights.set(name, moved);
        }
        Ok(())
    }

    fn update_on_gpu(&mut self, weights: &Weights, new: f32, moves: impl Fn(&str) -> bool) -> Result<()> {
        let (mut names, mut pairs) = (vec![], vec![]);
        for (name, role) in self.names.iter().filter(|(name, _)| moves(name)) {
            match role {
                Role::BatchesTracked => self.weights.set(name, weights.get(name).clone()),
                _ => {
                    names.push(name);
                    pairs.push((self.weights.get(name).contiguous()?, weights.get(name).contiguous()?));
                }
            }
        }
        let moved = gpu::lerp(&pairs, new)?;
        names.into_iter().zip(moved).for_each(|(name, moved)| self.weights.set(name, moved));
        Ok(())
    }
}
