//! A network's stages, read off its layers' names: stem, layer1 … layer4 or features.1 …, head.

use tallow_builder::Graph;

/// Layers that are trained alike, from the input to the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stage {
    /// What its layers' names begin with; the stem has its first layer's name, the head the classifier's.
    pub name: String,
    /// The layers that have parameters.
    pub layers: Vec<String>,
}

/// The stages from the stem to the head, which is the classifier alone. Layers are of one stage where their names begin
/// with the same numbered part (`layer1`, `features.3`); those between the input and the first such part are the stem.
pub(super) fn stages(graph: &Graph) -> Vec<Stage> {
    let classifier = graph.classifier();
    let mut stages: Vec<Stage> = vec![];
    // Whether the last stage is one of layers that stand alone, as a ResNet's conv1 and bn1.
    let mut alone = false;
    for (id, node) in graph.iter().filter(|(id, _)| !graph.layer_parameters(*id).is_empty()) {
        let is_head = classifier == Some(id);
        let name = if is_head { node.name.as_str() } else { stage_name(&node.name) };
        let stands_alone = !is_head && name == node.name;
        match stages.last_mut() {
            Some(stage) if stage.name == name || (alone && stands_alone) => {
                stage.layers.push(node.name.clone());
            }
            _ => stages.push(Stage { name: name.to_owned(), layers: vec![node.name.clone()] }),
        }
        alone = stands_alone;
    }
    stages
}

/// A layer's name up to the first part that has a number in it.
fn stage_name(layer: &str) -> &str {
    let mut end = 0;
    for part in layer.split('.') {
        end += part.len();
        if part.contains(|c: char| c.is_ascii_digit()) {
            return &layer[..end];
        }
        end += 1;
    }
    layer
}

#[cfg(test)]
mod tests {
    use tallow_models::{Options, build};

    use super::*;

    fn names(network: &str) -> Vec<String> {
        let graph = build(network, &Options::default()).unwrap();
        let found = stages(&graph);
        let layers: usize = found.iter().map(|stage| stage.layers.len()).sum();
        let all = graph.iter().filter(|(id, _)| !graph.layer_parameters(*id).is_empty()).count();
        assert_eq!(layers, all, "{network}");
        found.into_iter().map(|stage| stage.name).collect()
    }

    #[test]
    fn stages_are_those_of_the_papers_tables() {
        let resnet = ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"];
        for network in ["resnet18", "resnet50", "timm/resnet50", "resnet18_cifar"] {
            assert_eq!(names(network), resnet, "{network}");
        }
        assert_eq!(names("resnet20"), ["conv1", "layer1", "layer2", "layer3", "fc"]);
        assert_eq!(names("plain_cnn"), ["stage1", "stage2", "stage3", "fc"]);
        let features = (0..9).map(|i| format!("features.{i}")).chain(["classifier.1".into()]);
        let features: Vec<String> = features.collect();
        for network in ["efficientnet_b0", "efficientnet_lite0", "timm/tf_efficientnet_b0"] {
            assert_eq!(names(network), features, "{network}");
        }
    }
}
