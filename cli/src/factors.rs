//! Wider and deeper: the flags that every command takes which builds a network of the zoo. Larger is --size.

use tallow_models::Scaling;

/// Factors on a network's own size.
#[derive(Clone, Copy, Default, PartialEq, clap::Args)]
pub struct Factors {
    /// Multiply the network's channels by this; they are rounded to multiples of 8
    #[arg(long, value_name = "FACTOR", visible_alias = "widen")]
    pub width: Option<f64>,
    /// Multiply the repeats of the network's stages by this; they are rounded up
    #[arg(long, value_name = "FACTOR", visible_alias = "deepen")]
    pub depth: Option<f64>,
}

impl Factors {
    /// Whether either was given.
    pub fn is_some(self) -> bool {
        self.width.is_some() || self.depth.is_some()
    }

    /// The factors, on what a network is scaled by in any case.
    pub fn over(self, base: Scaling) -> Scaling {
        Scaling { width: self.width.unwrap_or(base.width), depth: self.depth.unwrap_or(base.depth) }
    }
}
