//! What may differ between two networks of one name.

use tallow_builder::Graph;
use tallow_builder::graph::BatchNorm;

use crate::error::{Built, Error, Result};

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
}

impl Settings {
    /// For square images of `size` pixels, without dropout and stochastic depth.
    pub fn new(classes: usize, size: usize, padding: PaddingStyle, batch_norm: BatchNorm) -> Self {
        let (dropout, stochastic_depth) = (0.0, 0.0);
        Self { classes, width: size, height: size, dropout, stochastic_depth, padding, batch_norm }
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
        Ok(self)
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
