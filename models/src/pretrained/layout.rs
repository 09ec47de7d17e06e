//! What other libraries call the layers of the zoo's networks. Shapes are the same everywhere: only names differ.

use std::collections::BTreeMap;

use tallow_builder::Graph;

/// Whose names a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// torchvision's, which are the zoo's own; timm's ResNets have them, too.
    Torchvision,
    /// timm's EfficientNets: `conv_stem`, `blocks.1.0.conv_dw`.
    Timm,
    /// The package efficientnet-pytorch's and its Lite sister's: `_conv_stem`, `_blocks.1._depthwise_conv`.
    EfficientNetPytorch,
}

/// Layers of an inverted residual block, in the order in which the image passes them: convolution and batch
/// normalisation of each, and the two convolutions of squeeze-and-excitation.
struct BlockNames {
    expand: [&'static str; 2],
    depthwise: [&'static str; 2],
    squeeze: [&'static str; 2],
    project: [&'static str; 2],
}

/// timm's block with an expansion (`InvertedResidual`) and without (`DepthwiseSeparableConv`).
const TIMM: BlockNames = BlockNames {
    expand: ["conv_pw", "bn1"],
    depthwise: ["conv_dw", "bn2"],
    squeeze: ["se.conv_reduce", "se.conv_expand"],
    project: ["conv_pwl", "bn3"],
};
const TIMM_WITHOUT_EXPANSION: BlockNames =
    BlockNames { depthwise: ["conv_dw", "bn1"], project: ["conv_pw", "bn2"], ..TIMM };

const EFFICIENTNET_PYTORCH: BlockNames = BlockNames {
    expand: ["_expand_conv", "_bn0"],
    depthwise: ["_depthwise_conv", "_bn1"],
    squeeze: ["_se_reduce", "_se_expand"],
    project: ["_project_conv", "_bn2"],
};

/// Stem, head (convolution and batch normalisation each) and classifier.
const TIMM_ENDS: [&str; 5] = ["conv_stem", "bn1", "conv_head", "bn2", "classifier"];
const EFFICIENTNET_PYTORCH_ENDS: [&str; 5] = ["_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"];

impl Layout {
    /// The layout of a file with these tensors.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let known = |name: &str| match name.split('.').next() {
            Some("conv_stem") => Some(Self::Timm),
            Some("_conv_stem") => Some(Self::EfficientNetPytorch),
            _ => None,
        };
        names.into_iter().find_map(known).unwrap_or(Self::Torchvision)
    }

    /// The name of the classifier's weight in files of this layout, among `names`.
    pub(crate) fn classifier<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let usual: &[&str] = match self {
            Self::Torchvision => &["fc.weight", "classifier.1.weight", "classifier.weight"],
            Self::Timm => &["classifier.weight"],
            Self::EfficientNetPytorch => &["_fc.weight"],
        };
        names.into_iter().find(|name| usual.contains(name))
    }

    /// Gives a file's tensors the names they have in `graph`. Those with no counterpart keep their own.
    pub fn rename<T>(self, graph: &Graph, tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
        let layers = self.layers(graph);
        let renamed = |name: String| {
            let ours = name
                .rsplit_once('.')
                .and_then(|(layer, tensor)| layers.get(layer).map(|layer| format!("{layer}.{tensor}")));
            ours.unwrap_or(name)
        };
        tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect()
    }

    /// Our layers by this layout's names; empty where the names are the same.
    fn layers(self, graph: &Graph) -> BTreeMap<String, String> {
        let mut layers = BTreeMap::new();
        let network = InvertedResiduals::of(graph);
        let ends = match self {
            Self::Torchvision => return layers,
            Self::Timm => TIMM_ENDS,
            Self::EfficientNetPytorch => EFFICIENTNET_PYTORCH_ENDS,
        };
        for (theirs, ours) in ends.into_iter().zip(network.ends()) {
            layers.insert(theirs.to_owned(), ours);
        }
        for (nth, block) in network.blocks.iter().enumerate() {
            let (at, names) = match self {
                Self::EfficientNetPytorch => (format!("_blocks.{nth}"), EFFICIENTNET_PYTORCH),
                _ if block.expands() => (format!("blocks.{}.{}", block.stage - 1, block.repeat), TIMM),
                _ => (format!("blocks.{}.{}", block.stage - 1, block.repeat), TIMM_WITHOUT_EXPANSION),
            };
            for (theirs, ours) in block.layers(&names) {
                layers.insert(format!("{at}.{theirs}"), ours);
            }
        }
        layers
    }
}

/// What the names of an EfficientNet's layers say about its blocks.
struct InvertedResiduals {
    blocks: Vec<Block>,
    /// Number of `features`.
    features: usize,
}

struct Block {
    /// 1 for the first, as in `features.1`.
    stage: usize,
    repeat: usize,
    /// Numbers of the parts that are a convolution with its batch normalisation.
    convolutions: Vec<usize>,
    squeeze: Option<usize>,
}

impl InvertedResiduals {
    /// Reads names such as `features.2.0.block.1.0`; other networks have no blocks.
    fn of(graph: &Graph) -> Self {
        let mut network = Self { blocks: vec![], features: 0 };
        for node in graph.nodes() {
            let parts: Vec<&str> = node.name.split('.').collect();
            let ["features", stage, rest @ ..] = parts.as_slice() else { continue };
            let Ok(stage) = stage.parse::<usize>() else { continue };
            network.features = network.features.max(stage + 1);
            let [repeat, "block", part, layer] = rest else { continue };
            let (Ok(repeat), Ok(part)) = (repeat.parse(), part.parse()) else { continue };
            if network.blocks.last().is_none_or(|block| (block.stage, block.repeat) != (stage, repeat)) {
                network.blocks.push(Block { stage, repeat, convolutions: vec![], squeeze: None });
            }
            let block = network.blocks.last_mut().expect("one was pushed");
            match *layer {
                "0" => block.convolutions.push(part),
                "fc1" => block.squeeze = Some(part),
                _ => {}
            }
        }
        network
    }

    /// In the order of [`TIMM_ENDS`].
    fn ends(&self) -> [String; 5] {
        let head = self.features.saturating_sub(1);
        [
            "features.0.0".into(),
            "features.0.1".into(),
            format!("features.{head}.0"),
            format!("features.{head}.1"),
            "classifier.1".into(),
        ]
    }
}

impl Block {
    fn expands(&self) -> bool {
        self.convolutions.len() > 2
    }

    /// Pairs of another library's name within the block and ours.
    fn layers(&self, names: &BlockNames) -> Vec<(&'static str, String)> {
        let at = format!("features.{}.{}.block", self.stage, self.repeat);
        let theirs = [names.expand, names.depthwise, names.project];
        let skipped = theirs.len().saturating_sub(self.convolutions.len());
        let mut layers = vec![];
        for ([conv, bn], part) in theirs.into_iter().skip(skipped).zip(&self.convolutions) {
            layers.extend([(conv, format!("{at}.{part}.0")), (bn, format!("{at}.{part}.1"))]);
        }
        if let Some(part) = self.squeeze {
            let [reduce, expand] = names.squeeze;
            layers.extend([(reduce, format!("{at}.{part}.fc1")), (expand, format!("{at}.{part}.fc2"))]);
        }
        layers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, build};

    fn names(network: &str, layout: Layout) -> BTreeMap<String, String> {
        layout.layers(&build(network, &Options::default()).unwrap())
    }

    #[test]
    fn blocks_with_and_without_expansion_have_their_own_names() {
        let timm = names("efficientnet_b0", Layout::Timm);
        for (theirs, ours) in [
            ("conv_stem", "features.0.0"),
            ("blocks.0.0.conv_dw", "features.1.0.block.0.0"),
            ("blocks.0.0.bn1", "features.1.0.block.0.1"),
            ("blocks.0.0.se.conv_reduce", "features.1.0.block.1.fc1"),
            ("blocks.0.0.conv_pw", "features.1.0.block.2.0"),
            ("blocks.1.1.conv_pw", "features.2.1.block.0.0"),
            ("blocks.1.1.bn3", "features.2.1.block.3.1"),
            ("bn2", "features.8.1"),
            ("classifier", "classifier.1"),
        ] {
            assert_eq!(timm[theirs], ours);
        }
        let lite = names("efficientnet_lite0", Layout::EfficientNetPytorch);
        assert_eq!(lite["_blocks.0._depthwise_conv"], "features.1.0.block.0.0");
        assert_eq!(lite["_blocks.15._project_conv"], "features.7.0.block.2.0");
        assert!(!lite.contains_key("_blocks.0._expand_conv"));
    }

    #[test]
    fn every_tensor_of_every_efficientnet_has_a_name_in_every_layout() {
        for network in crate::names().filter(|name| name.starts_with("efficientnet")) {
            let graph = build(network, &Options::default()).unwrap();
            let tensors = graph.parameters().len();
            for layout in [Layout::Timm, Layout::EfficientNetPytorch] {
                let layers = layout.layers(&graph);
                let known: std::collections::BTreeSet<_> = layers.values().collect();
                let named = graph.parameters().into_iter().filter(|tensor| {
                    tensor.name.rsplit_once('.').is_some_and(|(layer, _)| known.contains(&layer.to_owned()))
                });
                assert_eq!(named.count(), tensors, "{network} {layout:?}");
            }
        }
    }
}
