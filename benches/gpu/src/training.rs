//! The networks that are measured, and a training of one on noise.

use anyhow::Result;
use candle_core::Device;
use tallow_builder::Graph;
use tallow_cuda::Precision;
use tallow_models::Options;
use tallow_trainer::synthetic::Synthetic;

use crate::target::Target;

/// A network as it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub name: &'static str,
    pub classes: usize,
    pub size: usize,
    /// In `--quick`.
    pub quick_size: usize,
}

/// The networks that are measured by default.
pub const SETUPS: [Setup; 3] = [
    Setup { name: "resnet50", classes: 1000, size: 224, quick_size: 32 },
    Setup { name: "efficientnet_b0", classes: 1000, size: 224, quick_size: 32 },
    Setup { name: "resnet18_cifar", classes: 10, size: 32, quick_size: 16 },
];

impl Setup {
    pub fn size(&self, quick: bool) -> usize {
        if quick { self.quick_size } else { self.size }
    }

    pub fn graph(&self, quick: bool) -> Result<Graph> {
        Ok(tallow_models::build(self.name, &Options::new(self.classes, self.size(quick)))?)
    }
}

/// A network that trains, by the kernels of its target.
pub struct Training {
    target: Target,
    training: Synthetic,
}

impl Training {
    pub fn new(
        graph: &Graph,
        batch: usize,
        precision: Precision,
        target: Target,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self { target, training: Synthetic::new(graph, batch, precision, device)? })
    }

    /// One step. On a GPU it has hardly begun when this returns.
    pub fn step(&mut self) -> Result<()> {
        Ok(self.target.on(|| self.training.step())?)
    }

    /// Whether the steps so far have left finite weights.
    pub fn is_sound(&self) -> Result<bool> {
        Ok(self.training.is_sound()?)
    }
}
