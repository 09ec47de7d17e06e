//! The network that a run's settings ask for.

use serde::{Deserialize, Serialize};
use tallow_builder::Graph;
use tallow_input::Preprocess;
use tallow_models::{Options, Scaling, Stage, Table};

use crate::config::Config;
use crate::error::{Error, Result};

/// What is different from the zoo's network: wider, deeper, or another table of stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Factor on all channels, which are then rounded to multiples of 8.
    pub widen: f64,
    /// Factor on the repeats of every stage, which are then rounded up.
    pub deepen: f64,
    /// Channels before the stages, where these are one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem: Option<usize>,
    /// Stride before the stages, where these are one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stem_stride: Option<usize>,
    /// Channels after the stages, where these are one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<usize>,
    /// Stages of inverted residual blocks in place of an EfficientNet's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { widen: 1.0, deepen: 1.0, stem: None, stem_stride: None, head: None, stages: vec![] }
    }
}

impl From<Table> for NetworkConfig {
    fn from(Table { stem, stem_stride, head, stages }: Table) -> Self {
        let ends = (Some(stem), Some(stem_stride), Some(head));
        Self { stem: ends.0, stem_stride: ends.1, head: ends.2, stages, ..Self::default() }
    }
}

impl NetworkConfig {
    /// Whether the network is the zoo's.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The stages, if they are one's own.
    pub fn table(&self) -> Option<Table> {
        let usual = Table::default();
        let table = Table {
            stem: self.stem.unwrap_or(usual.stem),
            stem_stride: self.stem_stride.unwrap_or(usual.stem_stride),
            head: self.head.unwrap_or(usual.head),
            stages: self.stages.clone(),
        };
        (!self.stages.is_empty()).then_some(table)
    }

    /// The factors.
    pub fn scaling(&self) -> Scaling {
        Scaling { width: self.widen, depth: self.deepen }
    }

    /// Refuses what would have no effect; the zoo judges the rest.
    pub(crate) fn validate(&self) -> Result<()> {
        let ends = [("stem", self.stem), ("stem_stride", self.stem_stride), ("head", self.head)];
        match ends.into_iter().find_map(|(name, value)| value.map(|value| (name, value))) {
            Some((name, value)) if self.stages.is_empty() => {
                let remedy = "is for [[network.stages]] of one's own, and there are none; --width scales the whole network";
                Err(Error::Setting { name, value: value.to_string(), remedy })
            }
            _ => Ok(()),
        }
    }
}

/// What the settings want of the zoo, for images as `preprocess` makes them; `None` classes are the network's own.
pub fn options(config: &Config, preprocess: &Preprocess, classes: Option<usize>) -> Options {
    Options {
        classes,
        width: Some(preprocess.width as usize),
        height: Some(preprocess.height as usize),
        dropout: config.dropout,
        stochastic_depth: config.stochastic_depth,
        scaling: config.network.scaling(),
        table: config.network.table(),
        ..Options::default()
    }
}

/// Builds the network for images as `preprocess` makes them.
///
/// # Errors
/// Where the zoo cannot build it, and for images smaller than its first window.
pub fn build(config: &Config, preprocess: &Preprocess, classes: usize) -> Result<Graph> {
    let graph = tallow_models::build(&config.model, &options(config, preprocess, Some(classes)))?;
    // Padding lets a window run over a smaller image, but most of what it sees then is the padding.
    let (width, height) = (preprocess.width as usize, preprocess.height as usize);
    let first = graph.costs().into_iter().find_map(|layer| Some((layer.name, layer.kernel?)));
    match first {
        Some((layer, [kh, kw])) if height < kh || width < kw => Err(Error::SmallImages {
            size: format!("{width}×{height}"),
            network: config.model.clone(),
            layer,
            kernel: format!("{kw}×{kh}"),
        }),
        _ => Ok(graph),
    }
}
