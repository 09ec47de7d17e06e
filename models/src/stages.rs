//! A network stage by stage, as the papers' tables have it: from its layers' names.

use serde::Serialize;
use tallow_builder::Graph;

/// What a stage is made of and costs for one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageCost {
    /// What its layers' names begin with, such as `features.3` or `layer2`.
    pub name: String,
    /// Blocks, or convolutions where there are no blocks.
    pub blocks: usize,
    /// Convolutions and matrix products, gates and shortcuts among them.
    pub layers: usize,
    /// Dimensions of its output: channels, rows and columns, or features.
    pub output: Vec<usize>,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates; FLOPs are twice as many.
    pub macs: u64,
}

/// The stages of a network of the zoo: stem, stages, head, classifier.
pub fn stages(graph: &Graph) -> Vec<StageCost> {
    let mut stages: Vec<StageCost> = vec![];
    let mut last_block = String::new();
    for layer in graph.costs() {
        let (stage, block) = place(&layer.name);
        let is_new = stages.last().is_none_or(|last| last.name != stage);
        let is_weighted = layer.macs > 0;
        if is_new && !is_weighted {
            continue; // A pool or an activation of its own, without parameters.
        }
        if is_new {
            let name = stage.to_owned();
            stages.push(StageCost { name, blocks: 0, layers: 0, output: vec![], parameters: 0, macs: 0 });
        }
        let current = stages.last_mut().expect("one was pushed if there was none");
        current.parameters += layer.parameters;
        current.macs += layer.macs;
        if is_weighted {
            if is_new || block != last_block {
                current.blocks += 1;
                last_block = block.to_owned();
            }
            current.layers += 1;
            current.output = layer.output;
        }
    }
    stages
}

/// The stage that a layer belongs to, and the block within it.
fn place(layer: &str) -> (&str, &str) {
    let parts = if layer.starts_with("features.") { 2 } else { 1 };
    let end = layer.match_indices('.').nth(parts - 1).map_or(layer.len(), |(at, _)| at);
    // torchvision's ResNets call the normalisation of their stem bn1.
    let stage = if layer == "bn1" { "conv1" } else { &layer[..end] };
    let block = layer[end..].trim_start_matches('.');
    (stage, block.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, build};

    #[test]
    fn stages_are_those_of_the_papers_tables() {
        let of = |network| stages(&build(network, &Options::default()).unwrap());
        let blocks = |stages: &[StageCost]| stages.iter().map(|stage| stage.blocks).collect::<Vec<_>>();
        let b0 = of("efficientnet_b0");
        assert_eq!(blocks(&b0), [1, 1, 2, 2, 3, 3, 4, 1, 1, 1]);
        assert_eq!((b0[3].name.as_str(), &b0[3].output[..]), ("features.3", &[40, 28, 28][..]));
        let resnet = of("resnet50");
        assert_eq!(blocks(&resnet), [1, 3, 4, 6, 3, 1]);
        assert_eq!(resnet[4].output, [2048, 7, 7]);
        assert_eq!(blocks(&of("plain_cnn")), [2, 2, 2, 1]);
        for network in ["efficientnet_b3", "efficientnet_lite0", "resnet18", "plain_cnn", "resnet110"] {
            let totals = build(network, &Options::default()).unwrap().totals();
            let sum = of(network)
                .iter()
                .map(|stage| (stage.parameters, stage.macs))
                .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
            assert_eq!(sum, (totals.parameters, totals.macs), "{network}");
        }
    }
}
