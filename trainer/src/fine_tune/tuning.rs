//! What the settings mean for one network, parameter by parameter.

use std::collections::{BTreeMap, BTreeSet};

use tallow_builder::Graph;

use super::FineTune;
use super::stages::{Stage, stages};
use crate::error::{Error, Result};
use crate::pattern::matches;

/// When each parameter of a network is trained, and how fast.
#[derive(Clone, Debug)]
pub struct Tuning {
    parameters: BTreeMap<String, Treatment>,
    freeze_batch_norm: bool,
}

#[derive(Clone, Copy, Debug)]
struct Treatment {
    /// What the learning rate is multiplied by.
    factor: f64,
    /// The first epoch in which it is trained, from 0; none where it never is.
    from: Option<u64>,
    /// Numbers in it.
    size: usize,
}

impl Tuning {
    /// What `settings` mean for `graph`.
    ///
    /// # Errors
    /// For a pattern that fits nothing, and where nothing is left to train.
    pub fn new(settings: &FineTune, graph: &Graph) -> Result<Self> {
        let stages = stages(graph);
        let mut parameters = BTreeMap::new();
        let trainable = graph.parameters().into_iter().filter(|parameter| parameter.role.is_trainable());
        for parameter in trainable {
            let layer = &graph.node(parameter.node).name;
            let holds = |stage: &Stage| stage.layers.contains(layer);
            let depth = stages.iter().rev().position(holds).unwrap_or_default() as u64;
            let decay = settings.layer_decay.unwrap_or(1.0).powi(depth as i32);
            let size = parameter.shape.iter().product();
            let treatment = Treatment { factor: decay, from: Some(settings.first_epoch(depth)), size };
            parameters.insert(parameter.name, treatment);
        }
        let mut tuning = Self { parameters, freeze_batch_norm: settings.freeze_batch_norm };
        for pattern in &settings.freeze {
            tuning.apply("freeze", pattern, |treatment| treatment.from = None)?;
        }
        for rate in &settings.rates {
            tuning
                .apply("fine_tune.rates", &rate.pattern, |treatment| treatment.factor *= rate.multiplier)?;
        }
        if tuning.parameters.values().all(|treatment| treatment.from.is_none()) {
            let remedy = "leaves nothing to train: leave out a pattern, such as the one that holds the head";
            return Err(Error::Setting { name: "freeze", value: settings.freeze.join(", "), remedy });
        }
        if tuning.trained(0) == 0 {
            let remedy = "leaves nothing to train in the first epoch, which is the head's: leave out the pattern, or \
                          --head-epochs and --unfreeze-every";
            return Err(Error::Setting { name: "freeze", value: settings.freeze.join(", "), remedy });
        }
        Ok(tuning)
    }

    /// Numbers that are trained in an epoch, counted from 0.
    fn trained(&self, epoch: u64) -> usize {
        let trained = self.parameters.values().filter(|one| one.from.is_some_and(|from| from <= epoch));
        trained.map(|one| one.size).sum()
    }

    /// The epochs, counted from 0, in which more parameters join, with how many numbers are trained from then on.
    pub fn schedule(&self) -> Vec<(u64, usize)> {
        let epochs: BTreeSet<u64> = self.parameters.values().filter_map(|one| one.from).collect();
        epochs.into_iter().map(|epoch| (epoch, self.trained(epoch))).collect()
    }

    /// Whether a parameter is trained in an epoch, counted from 0.
    pub fn trains(&self, epoch: u64, parameter: &str) -> bool {
        let treatment = self.parameters.get(parameter);
        treatment.is_some_and(|treatment| treatment.from.is_some_and(|from| from <= epoch))
    }

    /// Whether a batch normalisation uses and keeps its running moments in an epoch: where its own parameters are
    /// frozen, or all moments are.
    pub fn freezes_moments(&self, epoch: u64, layer: &str) -> bool {
        let trains = |suffix| self.trains(epoch, &format!("{layer}.{suffix}"));
        self.freeze_batch_norm || !(trains("weight") || trains("bias"))
    }

    /// Whether a tensor may change in an epoch: a parameter that is trained, or moments that follow the batches.
    pub fn moves(&self, epoch: u64, tensor: &str) -> bool {
        if self.parameters.contains_key(tensor) {
            return self.trains(epoch, tensor);
        }
        tensor.rsplit_once('.').is_some_and(|(layer, _)| !self.freezes_moments(epoch, layer))
    }

    /// What the learning rate of a parameter is multiplied by.
    pub fn factor(&self, parameter: &str) -> f64 {
        self.parameters.get(parameter).map_or(1.0, |treatment| treatment.factor)
    }

    /// Changes the treatment of everything that a pattern names.
    fn apply(&mut self, setting: &'static str, pattern: &str, change: impl Fn(&mut Treatment)) -> Result<()> {
        let mut found = false;
        for (name, treatment) in &mut self.parameters {
            if with_surroundings(name).any(|name| matches(pattern, name)) {
                found = true;
                change(treatment);
            }
        }
        if found {
            return Ok(());
        }
        Err(Error::NoSuchLayers { setting, pattern: pattern.to_owned(), near: self.near(pattern) })
    }

    /// The names that begin most like a pattern, outer ones first.
    fn near(&self, pattern: &str) -> String {
        let names: BTreeSet<&str> = self.parameters.keys().flat_map(|name| with_surroundings(name)).collect();
        let alike = |name: &str| name.chars().zip(pattern.chars()).take_while(|(a, b)| a == b).count();
        let mut ranked: Vec<&str> = names.into_iter().collect();
        ranked.sort_by_key(|name| (std::cmp::Reverse(alike(name)), name.matches('.').count()));
        ranked.truncate(SHOWN);
        ranked.join(", ")
    }
}

/// Names that an error shows.
const SHOWN: usize = 6;

/// A parameter's name, its layer's, and those of all that the layer is in: `a.b.weight`, `a`, `a.b`.
fn with_surroundings(name: &str) -> impl Iterator<Item = &str> {
    std::iter::once(name).chain(name.match_indices('.').map(|(end, _)| &name[..end]))
}

impl FineTune {
    /// The first epoch, from 0, in which a stage is trained that lies `depth` stages below the head.
    fn first_epoch(&self, depth: u64) -> u64 {
        // The head is first alone for as long as is said, or else as each stage after it.
        let alone = if self.head_epochs > 0 { self.head_epochs } else { self.unfreeze_every };
        match depth {
            0 => 0,
            _ => (depth - 1).saturating_mul(self.unfreeze_every).saturating_add(alone),
        }
    }
}
