//! What may differ between two networks of one name.

use tallow_builder::Graph;
use tallow_builder::graph::BatchNorm;

use crate::error::{Built, Error, Result};
use crate::scaling::Scaling;
use crate::table::Table;

/// How a network is to be built. What is `None` is as the network's authors have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Length of the output; by default that of the data set the network was published with.
    pub classes: Option<usize>,
    /// Columns of the input, pixels; by default the network's native resolution.
    pub width: Option<usize>,
    /// Rows of the input, pixels; by default the network's native resolution.
    pub height: Option<usize>,
    /// Probability to drop a feature before the last layer, in [0, 1).
    pub dropout: Option<f64>,
    /// Probability to drop the deepest residual branch, in [0, 1); it grows linearly from the first.
    pub stochastic_depth: Option<f64>,
    /// How convolutions and pools pad.
    pub padding: Option<PaddingStyle>,
    /// The eps of every batch normalisation, above 0.
    pub batch_norm_eps: Option<f64>,
    /// How much wider and deeper than what the network's authors have.
    pub scaling: Scaling,
    /// A table of stages of one's own, of an EfficientNet; it is scaled as the network's own would be.
    pub table: Option<Table>,
}

impl Options {
    /// For square images of `size` pixels and so many classes.
    pub fn new(classes: usize, size: usize) -> Self {
        Self { classes: Some(classes), width: Some(size), height: Some(size), ..Self::default() }
    }
}

/// How a network's padded windows are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingStyle {
    /// ⌊kernel / 2⌋ pixels on every side, as PyTorch's networks do.
    Symmetric,
    /// TensorFlow's SAME: no more than needed, an odd pixel right and at the bottom. Weights trained in TensorFlow
    /// need it: with a stride, the windows lie elsewhere.
    Same,
}

/// Beyond any data set there is; keeps sizes within what a machine can count.
const MAX_CLASSES: usize = 10_000_000;

/// Options with every default filled in.
pub(crate) struct Settings {
    pub classes: usize,
    pub width: usize,
    pub height: usize,
    pub dropout: f64,
    pub stochastic_depth: f64,
    pub padding: PaddingStyle,
    pub batch_norm: BatchNorm,
    pub scaling: Scaling,
    pub table: Option<Table>,
}

impl Settings {
    /// For square images of `size` pixels, without dropout and stochastic depth.
    pub fn new(classes: usize, size: usize, padding: PaddingStyle, batch_norm: BatchNorm) -> Self {
        Self {
            classes,
            width: size,
            height: size,
            dropout: 0.0,
            stochastic_depth: 0.0,
            padding,
            batch_norm,
            scaling: Scaling::NONE,
            table: None,
        }
    }

    /// Overrides with what `options` say.
    pub fn with(mut self, network: &str, options: &Options) -> Result<Self> {
        fn take<T: Copy>(target: &mut T, value: Option<T>) {
            *target = value.unwrap_or(*target);
        }
        take(&mut self.classes, options.classes);
        take(&mut self.width, options.width);
        take(&mut self.height, options.height);
        take(&mut self.dropout, options.dropout);
        take(&mut self.stochastic_depth, options.stochastic_depth);
        take(&mut self.padding, options.padding);
        take(&mut self.batch_norm.eps, options.batch_norm_eps);
        self.scaling = options.scaling;
        self.table.clone_from(&options.table);

        let wrong = |option, problem: String| Error::Option { network: network.to_owned(), option, problem };
        let side = tallow_input::MAX_SIDE as usize;
        let limits = [
            ("classes", self.classes, MAX_CLASSES),
            ("width", self.width, side),
            ("height", self.height, side),
        ];
        for (option, value, limit) in limits {
            if !(1..=limit).contains(&value) {
                return Err(wrong(option, format!("must lie in 1 to {limit}, is {value}")));
            }
        }
        for (option, p) in [("dropout", self.dropout), ("stochastic depth", self.stochastic_depth)] {
            if !(0.0..1.0).contains(&p) {
                return Err(wrong(option, format!("must lie in [0, 1), is {p}")));
            }
        }
        let eps = self.batch_norm.eps;
        if !(eps.is_finite() && eps > 0.0) {
            return Err(wrong("batch norm eps", format!("must be above 0, is {eps}")));
        }
        if let Some((option, problem)) = self.scaling.problem() {
            return Err(wrong(option, problem));
        }
        if let Some(problem) = self.table.as_ref().and_then(Table::problem) {
            return Err(wrong("stages", problem));
        }
        Ok(self)
    }

    /// What the graph is called: the network's name, and what was done to it. `resnet18_w1.5` is no `resnet18`.
    pub fn graph_name(&self, network: &str) -> String {
        let mut name = network.to_owned();
        if self.table.is_some() {
            name += "_stages";
        }
        for (letter, factor) in [("w", self.scaling.width), ("d", self.scaling.depth)] {
            if factor != 1.0 {
                // As short as three places allow: 1.4641 is 1.464, 1.5 stays.
                name += &format!("_{letter}{}", (factor * 1e3).round() / 1e3);
            }
        }
        name
    }

    /// Runs a family's construction and says for which network and size it failed.
    pub fn build(&self, network: &str, graph: impl FnOnce(&Self) -> Built<Graph>) -> Result<Graph> {
        graph(self).map_err(|source| Error::Graph {
            network: network.to_owned(),
            width: self.width,
            height: self.height,
            source,
        })
    }
}
