//! How a network is trained where nothing else is said: an optimiser for each family, and a learning rate for each
//! optimiser. A run's settings keep what was used.
//!
//! | | optimiser | learning rate | source |
//! |---|---|---|---|
//! | plain CNN, ResNet | SGD, Nesterov 0.9, penalty 5e-4 | 0.05 | He et al. 2015, section 4.2, with the rate for smaller batches (Goyal et al. 2017, section 2.1) |
//! | EfficientNet, Lite | RMSprop 0.9, momentum 0.9, eps 1e-3, penalty 1e-5 | 0.256 for 4096 images | Tan & Le 2019, section 5.2 |
//! | fine-tuning | AdamW 0.9, 0.999, penalty 0.01; layer decay 0.75 | 1e-3 in the head | Bao et al. 2022 ("BEiT"), appendix; Loshchilov & Hutter 2019 |
//!
//! Fine-tuning with SGD starts at 0.01 (Kornblith et al. 2019, "Do better ImageNet models transfer better?", section
//! 3.3), with RMSprop at a tenth of the rate from scratch. The warm-up and the cosine are the same for all.

use tallow_models::Family;

use crate::fine_tune::LAYER_DECAY;
use crate::optim::OptimizerKind;

/// SGD as ResNets are trained.
pub const SGD: OptimizerKind = OptimizerKind::Sgd { momentum: 0.9, nesterov: true, weight_decay: 5e-4 };
/// RMSprop as EfficientNets are trained.
pub const RMSPROP: OptimizerKind =
    OptimizerKind::RmsProp { decay: 0.9, momentum: 0.9, eps: 1e-3, weight_decay: 1e-5 };
/// AdamW with its usual constants.
pub const ADAMW: OptimizerKind =
    OptimizerKind::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

/// Whether a run begins with random weights or with learned ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Random weights.
    Scratch,
    /// Weights that were learned before.
    Weights,
}

/// The optimiser of a family.
pub fn optimizer(family: Family, start: Start) -> OptimizerKind {
    match (start, family) {
        (Start::Weights, _) => ADAMW,
        (Start::Scratch, Family::PlainCnn | Family::ResNet) => SGD,
        (Start::Scratch, Family::EfficientNet) => RMSPROP,
    }
}

/// The learning rate that goes with an optimiser, for steps of so many images.
pub fn learning_rate(optimizer: &OptimizerKind, start: Start, images: usize) -> f64 {
    match (optimizer, start) {
        (OptimizerKind::Sgd { .. }, Start::Scratch) => 0.05,
        (OptimizerKind::Sgd { .. }, Start::Weights) => 0.01,
        (OptimizerKind::RmsProp { .. }, Start::Scratch) => 0.256 * images as f64 / 4096.0,
        (OptimizerKind::RmsProp { .. }, Start::Weights) => 0.0256 * images as f64 / 4096.0,
        // Kingma & Ba 2015, algorithm 1.
        (OptimizerKind::AdamW { .. }, _) => 1e-3,
    }
}

/// By what the rate is multiplied from a stage to the one below it.
pub fn layer_decay(start: Start) -> f64 {
    match start {
        Start::Scratch => 1.0,
        Start::Weights => LAYER_DECAY,
    }
}
