//! timm's networks where they differ from the zoo's of the same name: in padding, eps, or how images are prepared.
//! Weights do not tell: a `tf_efficientnet_b0` has the tensors of an `efficientnet_b0`.

use tallow_input::Interpolation::{self, Bicubic, Bilinear};

use crate::efficientnet::{self as b, EfficientNet};
use crate::efficientnet_lite as l;
use crate::options::PaddingStyle::{Same, Symmetric};
use crate::registry::{Architecture, EFFICIENTNET, LITE, Pixels, RESNET, Spec, imagenet};
use crate::resnet::{self as r, ResNet};

/// What the names start with.
pub(crate) const PREFIX: &str = "timm/";

/// The networks, with the preprocessing of timm's default weights.
pub(crate) static ARCHITECTURES: [Architecture; 31] = [
    resnet("timm/resnet18", r::RESNET18),
    resnet("timm/resnet34", r::RESNET34),
    resnet("timm/resnet50", r::RESNET50),
    resnet("timm/resnet101", r::RESNET101),
    resnet("timm/resnet152", r::RESNET152),
    efficientnet("timm/efficientnet_b0", 224, b::B0),
    efficientnet("timm/efficientnet_b1", 256, b::B1),
    efficientnet("timm/efficientnet_b2", 256, b::B2),
    efficientnet("timm/efficientnet_b3", 288, b::B3),
    efficientnet("timm/efficientnet_b4", 320, b::B4),
    efficientnet("timm/efficientnet_b5", 456, b::B5),
    efficientnet("timm/efficientnet_b6", 528, b::B6),
    efficientnet("timm/efficientnet_b7", 600, b::B7),
    tf_efficientnet("timm/tf_efficientnet_b0", 224, 0.875, b::B0),
    tf_efficientnet("timm/tf_efficientnet_b1", 240, 0.882, b::B1),
    tf_efficientnet("timm/tf_efficientnet_b2", 260, 0.89, b::B2),
    tf_efficientnet("timm/tf_efficientnet_b3", 300, 0.904, b::B3),
    tf_efficientnet("timm/tf_efficientnet_b4", 380, 0.922, b::B4),
    tf_efficientnet("timm/tf_efficientnet_b5", 456, 0.934, b::B5),
    tf_efficientnet("timm/tf_efficientnet_b6", 528, 0.942, b::B6),
    tf_efficientnet("timm/tf_efficientnet_b7", 600, 0.949, b::B7),
    lite("timm/efficientnet_lite0", 224, 0.875, l::LITE0),
    lite("timm/efficientnet_lite1", 240, 0.882, l::LITE1),
    lite("timm/efficientnet_lite2", 260, 0.89, l::LITE2),
    lite("timm/efficientnet_lite3", 300, 0.904, l::LITE3),
    lite("timm/efficientnet_lite4", 380, 0.922, l::LITE4),
    tf_lite("timm/tf_efficientnet_lite0", 224, 0.875, Bicubic, l::LITE0),
    tf_lite("timm/tf_efficientnet_lite1", 240, 0.882, Bicubic, l::LITE1),
    tf_lite("timm/tf_efficientnet_lite2", 260, 0.89, Bicubic, l::LITE2),
    tf_lite("timm/tf_efficientnet_lite3", 300, 0.904, Bilinear, l::LITE3),
    tf_lite("timm/tf_efficientnet_lite4", 380, 0.92, Bilinear, l::LITE4),
];

/// Those with the tensors of the zoo's network of this name.
pub(crate) fn twins(network: &str) -> impl Iterator<Item = &'static str> {
    let is_twin = move |name: &&str| {
        name.strip_prefix(PREFIX).is_some_and(|name| name.strip_prefix("tf_").unwrap_or(name) == network)
    };
    ARCHITECTURES.iter().map(|architecture| architecture.name).filter(is_twin)
}

const fn resnet(name: &'static str, spec: ResNet) -> Architecture {
    architecture(name, 224, RESNET, Spec::ResNet(spec), imagenet(Bicubic, 0.95))
}

/// PyTorch's padding and eps, in all sizes.
const fn efficientnet(name: &'static str, native: usize, spec: EfficientNet) -> Architecture {
    let spec = Spec::EfficientNet(EfficientNet { eps: 1e-5, momentum: 0.1, ..spec });
    architecture(name, native, EFFICIENTNET, spec, imagenet(Bicubic, 0.875))
}

/// TensorFlow's padding and eps.
const fn tf_efficientnet(name: &'static str, native: usize, crop: f64, spec: EfficientNet) -> Architecture {
    let spec = Spec::EfficientNet(EfficientNet { eps: 1e-3, momentum: 0.01, padding: Same, ..spec });
    architecture(name, native, EFFICIENTNET, spec, imagenet(Bicubic, crop))
}

const fn lite(name: &'static str, native: usize, crop: f64, spec: EfficientNet) -> Architecture {
    let spec = Spec::EfficientNet(EfficientNet { eps: 1e-5, momentum: 0.1, padding: Symmetric, ..spec });
    architecture(name, native, LITE, spec, imagenet(Bicubic, crop))
}

const fn tf_lite(
    name: &'static str,
    native: usize,
    crop: f64,
    interpolation: Interpolation,
    spec: EfficientNet,
) -> Architecture {
    let pixels = Pixels { mean: [0.5; 3], std: [0.5; 3], interpolation, crop };
    architecture(name, native, LITE, Spec::EfficientNet(spec), pixels)
}

const fn architecture(
    name: &'static str,
    native: usize,
    source: &'static str,
    spec: Spec,
    pixels: Pixels,
) -> Architecture {
    Architecture { name, native, classes: 1000, source, spec, pixels }
}
