//! Compound scaling (Tan & Le 2019, section 3.3): depth, width and resolution grow together, by one number φ.
//!
//! Costs are multiply-accumulates (MACs); FLOPs are twice as many. The law is about ratios, so that it is the same in
//! either.

use serde::Serialize;
use tallow_builder::Graph;

use crate::error::Result;
use crate::options::Options;
use crate::registry::Architecture;
use crate::scaling::Scaling;
use crate::stages::{StageCost, stages};

/// Equation 3: depth d = α^φ, width w = β^φ, resolution r = γ^φ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compound {
    /// Factor on the layers, at φ = 1.
    pub alpha: f64,
    /// Factor on the channels, at φ = 1.
    pub beta: f64,
    /// Factor on the side of the images, at φ = 1.
    pub gamma: f64,
}

impl Compound {
    /// What the paper's grid search found best for B0 (section 4).
    pub const PAPER: Self = Self { alpha: 1.2, beta: 1.1, gamma: 1.15 };

    /// α·β²·γ²: by how much the MACs of convolutions grow with each φ, which the paper wants to be about 2.
    pub fn growth(self) -> f64 {
        self.alpha * self.beta.powi(2) * self.gamma.powi(2)
    }

    /// How much wider and deeper a network is at φ.
    pub fn scaling(self, phi: f64) -> Scaling {
        Scaling { width: self.beta.powf(phi), depth: self.alpha.powf(phi) }
    }

    /// The side of images at φ, before it is rounded.
    pub fn resolution(self, base: usize, phi: f64) -> f64 {
        base as f64 * self.gamma.powf(phi)
    }

    /// The side of images at φ as the nearest multiple of so many pixels, at least one of them. φ = 0 is the base.
    pub fn rounded_resolution(self, base: usize, phi: f64, multiple: usize) -> usize {
        let exact = self.resolution(base, phi);
        if exact == base as f64 {
            return base;
        }
        let steps = (exact / multiple as f64).round().max(1.0);
        steps as usize * multiple
    }

    /// The φ that each of a network's own three factors stands for: by depth, width and resolution.
    pub fn phi_of(self, published: &Published) -> [f64; 3] {
        let resolution = published.resolution as f64 / PUBLISHED[0].resolution as f64;
        [
            published.depth.ln() / self.alpha.ln(),
            published.width.ln() / self.beta.ln(),
            resolution.ln() / self.gamma.ln(),
        ]
    }
}

/// A network at one φ: its size and cost, beside what the law says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scaled {
    /// The compound coefficient.
    pub phi: f64,
    /// Factor on the repeats of the zoo's network, before they are rounded up.
    pub depth: f64,
    /// Factor on the channels of the zoo's network, before they are rounded to multiples of 8.
    pub width: f64,
    /// Side of the images, pixels.
    pub resolution: usize,
    /// The same before it was rounded.
    pub exact_resolution: f64,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates for one image; FLOPs are twice as many.
    pub macs: u64,
    /// Those over the network's at φ = 0.
    pub macs_ratio: f64,
    /// (α·β²·γ²)^φ: the ratio if nothing were rounded and all cost lay in convolutions.
    pub predicted_ratio: f64,
    /// 2^φ: the ratio that the paper aims at.
    pub law: f64,
    /// Stem, stages, head and classifier.
    pub stages: Vec<StageCost>,
}

impl Compound {
    /// The network at φ. `options` say what it is at φ = 0.
    ///
    /// # Errors
    /// Where the zoo cannot build it.
    pub fn build(
        &self,
        network: &Architecture,
        options: &Options,
        phi: f64,
        multiple: usize,
    ) -> Result<Graph> {
        let base = options.width.unwrap_or(network.native);
        let side = Some(self.rounded_resolution(base, phi, multiple));
        let scaling = options.scaling.times(self.scaling(phi));
        network.build(&Options { width: side, height: side, scaling, ..options.clone() })
    }

    /// The network's size and cost at φ.
    ///
    /// # Errors
    /// As [`Compound::build`].
    pub fn scaled(
        &self,
        network: &Architecture,
        options: &Options,
        phi: f64,
        multiple: usize,
    ) -> Result<Scaled> {
        let graph = self.build(network, options, phi, multiple)?;
        let base = self.build(network, options, 0.0, multiple)?.totals();
        let totals = graph.totals();
        let Scaling { width, depth } = options.scaling.times(self.scaling(phi));
        Ok(Scaled {
            phi,
            depth,
            width,
            resolution: graph.input_shape().dims()[2],
            exact_resolution: self.resolution(options.width.unwrap_or(network.native), phi),
            parameters: totals.parameters,
            macs: totals.macs,
            macs_ratio: totals.macs as f64 / base.macs as f64,
            predicted_ratio: self.growth().powf(phi),
            law: 2f64.powf(phi),
            stages: stages(&graph),
        })
    }
}

/// A network of the paper, which has coefficients of its own: rounded, and no longer those of one φ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Published {
    /// The network.
    pub name: &'static str,
    /// Factor on the channels.
    pub width: f64,
    /// Factor on the layers.
    pub depth: f64,
    /// Side of the images, pixels.
    pub resolution: usize,
}

const fn published(name: &'static str, width: f64, depth: f64, resolution: usize) -> Published {
    Published { name, width, depth, resolution }
}

/// The table of the paper's code (`efficientnet_builder.py`).
pub const PUBLISHED: [Published; 8] = [
    published("efficientnet_b0", 1.0, 1.0, 224),
    published("efficientnet_b1", 1.0, 1.1, 240),
    published("efficientnet_b2", 1.1, 1.2, 260),
    published("efficientnet_b3", 1.2, 1.4, 300),
    published("efficientnet_b4", 1.4, 1.8, 380),
    published("efficientnet_b5", 1.6, 2.2, 456),
    published("efficientnet_b6", 1.8, 2.6, 528),
    published("efficientnet_b7", 2.0, 3.1, 600),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_coefficients_nearly_double_the_cost() {
        assert!((Compound::PAPER.growth() - 1.92027).abs() < 1e-9);
        let six = Compound::PAPER.scaling(6.0);
        assert!((six.depth - 2.985_984).abs() < 1e-9 && (six.width - 1.771_561).abs() < 1e-9);
    }

    #[test]
    fn resolutions_round_to_the_nearest_multiple() {
        let at = |phi, multiple| Compound::PAPER.rounded_resolution(224, phi, multiple);
        assert_eq!([0.0, 1.0, 2.0, 3.0].map(|phi| at(phi, 1)), [224, 258, 296, 341]);
        assert_eq!([0.0, 1.0, 2.0, 3.0].map(|phi| at(phi, 8)), [224, 256, 296, 344]);
        assert_eq!(Compound::PAPER.rounded_resolution(4, -9.0, 8), 8);
        assert_eq!(Compound::PAPER.rounded_resolution(28, 0.0, 8), 28);
    }

    #[test]
    fn published_coefficients_are_of_no_single_phi() {
        let [depth, width, resolution] = Compound::PAPER.phi_of(&PUBLISHED[7]);
        assert!((depth - 6.2057).abs() < 1e-3 && (width - 7.2725).abs() < 1e-3);
        assert!((resolution - 7.0499).abs() < 1e-3, "{resolution}");
    }
}
