//! Networks by name.

use tallow_builder::Graph;
use tallow_input::{Interpolation, Preprocess};

use crate::efficientnet::{self as b, EfficientNet};
use crate::efficientnet_lite as l;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::plain_cnn::PlainCnn;
use crate::resnet::{self as r, ResNet};
use crate::table::Table;
use crate::timm;
use Interpolation::{Bicubic, Bilinear};

/// A network of the zoo: a name for a spec, and what its published weights expect.
#[derive(Clone, Debug)]
pub struct Architecture {
    /// Its name, such as `resnet50`.
    pub name: &'static str,
    /// Side of the square images it was designed for, pixels.
    pub native: usize,
    /// Classes of the data set it was published with: 1000 for ImageNet, 10 for CIFAR-10.
    pub classes: usize,
    /// Where it is described.
    pub source: &'static str,
    pub(crate) spec: Spec,
    pub(crate) pixels: Pixels,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Spec {
    PlainCnn,
    ResNet(ResNet),
    EfficientNet(EfficientNet),
}

/// Networks of one design, which are trained alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Convolutions in a row.
    PlainCnn,
    /// Residual networks (He et al. 2015).
    ResNet,
    /// EfficientNet and its Lite form (Tan & Le 2019).
    EfficientNet,
}

/// How the published weights' authors prepare an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels {
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub interpolation: Interpolation,
    /// Side of the crop over the short side that the image is resized to.
    pub crop: f64,
}

/// ImageNet's mean and standard deviation, as torchvision has them.
pub(crate) const fn imagenet(interpolation: Interpolation, crop: f64) -> Pixels {
    Pixels { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], interpolation, crop }
}

pub(crate) const RESNET: &str = "He et al. 2015, table 1";
const RESNET_CIFAR: &str = "He et al. 2015, section 4.2";
pub(crate) const EFFICIENTNET: &str = "Tan & Le 2019, table 1, compound scaling";
pub(crate) const LITE: &str = "EfficientNet-Lite, Google 2020";

static ARCHITECTURES: [Architecture; 29] = [
    Architecture {
        name: "plain_cnn",
        native: 32,
        classes: 10,
        source: "after Simonyan & Zisserman 2014",
        spec: Spec::PlainCnn,
        pixels: imagenet(Bilinear, 1.0),
    },
    resnet("resnet18", r::RESNET18),
    resnet("resnet34", r::RESNET34),
    resnet("resnet50", r::RESNET50),
    resnet("resnet101", r::RESNET101),
    resnet("resnet152", r::RESNET152),
    small_resnet("resnet18_cifar", r::RESNET18.with_cifar_stem()),
    small_resnet("resnet34_cifar", r::RESNET34.with_cifar_stem()),
    small_resnet("resnet50_cifar", r::RESNET50.with_cifar_stem()),
    small_resnet("resnet101_cifar", r::RESNET101.with_cifar_stem()),
    small_resnet("resnet152_cifar", r::RESNET152.with_cifar_stem()),
    small_resnet("resnet20", r::RESNET20),
    small_resnet("resnet32", r::RESNET32),
    small_resnet("resnet44", r::RESNET44),
    small_resnet("resnet56", r::RESNET56),
    small_resnet("resnet110", r::RESNET110),
    efficientnet("efficientnet_b0", 224, 224.0 / 256.0, b::B0),
    efficientnet("efficientnet_b1", 240, 240.0 / 256.0, b::B1),
    efficientnet("efficientnet_b2", 260, 1.0, b::B2),
    efficientnet("efficientnet_b3", 300, 300.0 / 320.0, b::B3),
    efficientnet("efficientnet_b4", 380, 380.0 / 384.0, b::B4),
    efficientnet("efficientnet_b5", 456, 1.0, b::B5),
    efficientnet("efficientnet_b6", 528, 1.0, b::B6),
    efficientnet("efficientnet_b7", 600, 1.0, b::B7),
    lite("efficientnet_lite0", 224, l::LITE0),
    lite("efficientnet_lite1", 240, l::LITE1),
    lite("efficientnet_lite2", 260, l::LITE2),
    lite("efficientnet_lite3", 280, l::LITE3),
    lite("efficientnet_lite4", 300, l::LITE4),
];

const fn resnet(name: &'static str, spec: ResNet) -> Architecture {
    let pixels = imagenet(Bilinear, 224.0 / 256.0);
    Architecture { name, native: 224, classes: 1000, source: RESNET, spec: Spec::ResNet(spec), pixels }
}

const fn small_resnet(name: &'static str, spec: ResNet) -> Architecture {
    let pixels = imagenet(Bilinear, 1.0);
    Architecture { name, native: 32, classes: 10, source: RESNET_CIFAR, spec: Spec::ResNet(spec), pixels }
}

const fn efficientnet(name: &'static str, native: usize, crop: f64, spec: EfficientNet) -> Architecture {
    let (spec, pixels) = (Spec::EfficientNet(spec), imagenet(Bicubic, crop));
    Architecture { name, native, classes: 1000, source: EFFICIENTNET, spec, pixels }
}

/// (x − 127) / 128 on bytes, and TensorFlow's crop, which leaves 32 pixels of the resized side.
const fn lite(name: &'static str, native: usize, spec: EfficientNet) -> Architecture {
    let crop = native as f64 / (native + 32) as f64;
    let pixels = Pixels { mean: [127.0 / 255.0; 3], std: [128.0 / 255.0; 3], interpolation: Bicubic, crop };
    Architecture { name, native, classes: 1000, source: LITE, spec: Spec::EfficientNet(spec), pixels }
}

impl Architecture {
    /// The network as a layer graph.
    ///
    /// # Errors
    /// Where an option is out of range, or the image is too small for the network.
    pub fn build(&self, options: &Options) -> Result<Graph> {
        let options = Options {
            classes: options.classes.or(Some(self.classes)),
            width: options.width.or(Some(self.native)),
            height: options.height.or(Some(self.native)),
            ..options.clone()
        };
        if options.table.is_some() && self.table().is_none() {
            return Err(Error::Option {
                network: self.name.to_owned(),
                option: "stages",
                problem: "are an EfficientNet's: name one as the model, such as efficientnet_b0".into(),
            });
        }
        match &self.spec {
            Spec::PlainCnn => PlainCnn::default().build(self.name, &options),
            Spec::ResNet(spec) => spec.build(self.name, &options),
            Spec::EfficientNet(spec) => spec.build(self.name, &options),
        }
    }

    /// The table of stages, if the network is an EfficientNet and so takes others, too; before it is scaled.
    pub fn table(&self) -> Option<Table> {
        let Spec::EfficientNet(spec) = self.spec else { return None };
        let mut table = Table::default();
        table.stages.iter_mut().for_each(|stage| stage.se = Some(spec.squeeze));
        Some(table)
    }

    /// The family it belongs to.
    pub fn family(&self) -> Family {
        match self.spec {
            Spec::PlainCnn => Family::PlainCnn,
            Spec::ResNet(_) => Family::ResNet,
            Spec::EfficientNet(_) => Family::EfficientNet,
        }
    }

    /// How an image becomes an input of `width`×`height` pixels: resize filter, crop, mean and standard deviation of the
    /// weights that the network's authors, or torchvision (`IMAGENET1K_V1`), publish.
    pub fn preprocess(&self, width: u32, height: u32) -> Preprocess {
        let Pixels { mean, std, interpolation, crop } = self.pixels;
        Preprocess { width, height, mean, std, interpolation, crop_fraction: crop }
    }
}

/// Every network, family by family.
pub fn architectures() -> &'static [Architecture] {
    &ARCHITECTURES
}

/// timm's networks, called `timm/resnet50` and so on: those of the zoo, with timm's padding, eps and preprocessing.
pub fn timm_architectures() -> &'static [Architecture] {
    &timm::ARCHITECTURES
}

/// Every network's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|architecture| architecture.name)
}

/// The network with this name. `timm/resnet50` is timm's network of that name, which may differ from the zoo's in
/// padding, eps and preprocessing; the prefix may be left out where the zoo has no network of the name, as of
/// `tf_efficientnet_b0`.
///
/// # Errors
/// [`Error::UnknownNetwork`], with the nearest names.
pub fn find(name: &str) -> Result<&'static Architecture> {
    let without_prefix =
        |architecture: &&Architecture| architecture.name.strip_prefix(timm::PREFIX) == Some(name);
    ARCHITECTURES
        .iter()
        .chain(&timm::ARCHITECTURES)
        .find(|architecture| architecture.name == name)
        .or_else(|| timm::ARCHITECTURES.iter().find(without_prefix))
        .ok_or_else(|| Error::UnknownNetwork { name: name.to_owned(), nearest: nearest(name) })
}

/// The network with this name as a layer graph.
///
/// ```
/// use tallow_models::{Options, build};
///
/// let graph = build("resnet18", &Options::new(10, 64))?;
/// assert_eq!(graph.totals().parameters, 11_181_642);
/// assert!(build("resnet19", &Options::default()).unwrap_err().to_string().contains("did you mean `resnet18`"));
/// # Ok::<(), tallow_models::Error>(())
/// ```
///
/// # Errors
/// [`Error::UnknownNetwork`], and those of [`Architecture::build`].
pub fn build(name: &str, options: &Options) -> Result<Graph> {
    find(name)?.build(options)
}

/// The names that take the fewest edits to reach, at most three.
fn nearest(name: &str) -> Vec<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    // timm's networks are suggested to those who name one of timm's.
    let of_timm = name.starts_with(timm::PREFIX) || name.starts_with("tf_");
    let timm = timm::ARCHITECTURES.iter().map(|network| network.name).filter(|_| of_timm);
    let distance = |known: &str| {
        let short = known.strip_prefix(timm::PREFIX).unwrap_or(known);
        edit_distance(&name, known).min(edit_distance(&name, short))
    };
    let mut ranked: Vec<(usize, &str)> = names().chain(timm).map(|known| (distance(known), known)).collect();
    ranked.sort();
    ranked.into_iter().take(3).map(|(_, known)| known).collect()
}

/// Insertions, deletions and substitutions between two words (Levenshtein 1966).
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_gets_the_nearest_known_ones() {
        let first = |name| nearest(name)[0];
        assert_eq!(first("resnet-18"), "resnet18");
        assert_eq!(first("ResNet51"), "resnet50");
        assert_eq!(first("efficientnet-b0"), "efficientnet_b0");
        assert_eq!(first("efficientnet_lite_4"), "efficientnet_lite4");
        assert_eq!(first("plaincnn"), "plain_cnn");
        assert_eq!(first("timm/efficientnet_b9"), "timm/efficientnet_b0");
        assert_eq!(first("tf_efficientnet_b9"), "timm/tf_efficientnet_b0");
        let message = find("resnet19").unwrap_err().to_string();
        assert_eq!(
            message,
            "no network is called `resnet19`; did you mean `resnet18`, `resnet101` or `resnet110`?"
        );
    }

    #[test]
    fn edits_are_levenshteins() {
        for (a, b, n) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "", 2)] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (n, n), "{a} {b}");
        }
    }
}
