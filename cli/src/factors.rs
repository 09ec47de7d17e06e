//! Wider and deeper: the flags that every command takes which builds a network of the zoo. Larger is --size.

use tallow_models::Scaling;

/// Factors on a network's own size.
#[derive(Clone, Copy, Default, PartialEq, clap::Args)]
pub struct Factors {
    /// Multiply the network's channels by this; they are rounded to multiples of 8
    #[arg(long, value_name = "FACTOR")]
    pub widen: Option<f64>,
    /// Multiply the repeats of the network's stages by this; they are rounded up
    #[arg(long, value_name = "FACTOR")]
    pub deepen: Option<f64>,
}

impl Factors {
    /// Whether either was given.
    pub fn is_some(self) -> bool {
        self.widen.is_some() || self.deepen.is_some()
    }

    pub fn scaling(self) -> Scaling {
        Scaling { width: self.widen.unwrap_or(1.0), depth: self.deepen.unwrap_or(1.0) }
    }
}
