//! EfficientNet-Lite (Google 2020, the `lite` folder of the paper's code): for accelerators of whole numbers.
//! No squeeze-and-excitation, ReLU6, stem, head and outer stages not scaled; padding and eps are TensorFlow's, which
//! is where its weights come from.

use tallow_builder::graph::Activation;

use crate::efficientnet::EfficientNet;
use crate::options::PaddingStyle;
use crate::scaling::Scaling;

// Width, depth and dropout of the code's table.
pub(crate) const LITE0: EfficientNet = variant(1.0, 1.0, 0.2);
pub(crate) const LITE1: EfficientNet = variant(1.0, 1.1, 0.2);
pub(crate) const LITE2: EfficientNet = variant(1.1, 1.2, 0.3);
pub(crate) const LITE3: EfficientNet = variant(1.2, 1.4, 0.3);
pub(crate) const LITE4: EfficientNet = variant(1.4, 1.8, 0.3);

const fn variant(width: f64, depth: f64, dropout: f64) -> EfficientNet {
    EfficientNet {
        scaling: Scaling { width, depth },
        dropout,
        stochastic_depth: 0.2,
        eps: 1e-3,
        momentum: 0.01,
        activation: Activation::Relu6,
        squeeze: 0.0,
        scale_ends: false,
        padding: PaddingStyle::Same,
    }
}
