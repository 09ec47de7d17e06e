//! Which network a file of weights is of, by the names and shapes of its tensors.

use std::collections::BTreeMap;

use tallow_builder::Graph;
use tallow_builder::graph::Role;

use super::layout::Layout;
use crate::options::Options;
use crate::registry::architectures;
use crate::timm;

/// What PyTorch's batch normalisations count batches in, which old files have not.
const COUNTER: &str = "num_batches_tracked";

/// What a file's tensors fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The network of the zoo.
    pub network: &'static str,
    /// timm's networks with the same tensors; they differ in padding, eps or preprocessing alone.
    pub timm: Vec<&'static str>,
    /// Whose names the file has.
    pub layout: Layout,
    /// Classes, as the classifier's weight has them, where there is one.
    pub classes: Option<usize>,
    /// Tensors of the file.
    pub tensors: usize,
    /// Those that the network has by name.
    pub named: usize,
    /// Those that the network has by name and shape.
    pub alike: usize,
    /// Tensors that the network has.
    needed: usize,
}

impl Identity {
    /// Whether the file has all of the network's tensors and no more.
    pub fn fits(&self) -> bool {
        self.alike == self.needed && self.alike == self.tensors
    }

    /// Names and then shapes that the file and the network have not in common.
    fn distance(&self) -> [usize; 2] {
        [self.named, self.alike].map(|common| self.needed.max(self.tensors) - common)
    }
}

/// The network whose tensors are most like these (shapes by name, in any [`Layout`]), if at least half of the names are
/// alike.
pub fn identify(shapes: &BTreeMap<String, Vec<usize>>) -> Option<Identity> {
    let layout = Layout::of(shapes.keys().map(String::as_str));
    let head = layout.classifier(shapes.keys().map(String::as_str));
    let classes = head.and_then(|name| shapes[name].first().copied()).filter(|&classes| classes > 0);
    let candidates = architectures().iter().filter_map(|network| {
        let graph = network.build(&Options { classes, ..Options::default() }).ok()?;
        let found = compare(network.name, &graph, layout, classes, shapes);
        (found.named > found.distance()[0]).then_some(found)
    });
    let nearest = candidates.min_by_key(Identity::distance)?;
    Some(Identity { timm: timm::twins(nearest.network).collect(), ..nearest })
}

fn compare(
    network: &'static str,
    graph: &Graph,
    layout: Layout,
    classes: Option<usize>,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Identity {
    let counts = shapes.keys().any(|name| name.ends_with(COUNTER));
    let found = layout.rename(graph, shapes.clone());
    let mut needed = graph.parameters();
    needed.retain(|tensor| counts || tensor.role != Role::BatchesTracked);
    let named = needed.iter().filter(|tensor| found.contains_key(&tensor.name)).count();
    let alike = needed.iter().filter(|tensor| found.get(&tensor.name) == Some(&tensor.shape)).count();
    let (tensors, needed) = (found.len(), needed.len());
    Identity { network, timm: vec![], layout, classes, tensors, named, alike, needed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build;

    fn shapes(network: &str, classes: usize) -> BTreeMap<String, Vec<usize>> {
        let graph = build(network, &Options { classes: Some(classes), ..Options::default() }).unwrap();
        graph.parameters().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect()
    }

    #[test]
    fn a_network_is_known_by_its_tensors() {
        for (network, classes, timm) in [
            ("resnet50", 1000, vec!["timm/resnet50"]),
            ("resnet20", 10, vec![]),
            ("efficientnet_b3", 7, vec!["timm/efficientnet_b3", "timm/tf_efficientnet_b3"]),
            ("efficientnet_lite2", 12, vec!["timm/efficientnet_lite2", "timm/tf_efficientnet_lite2"]),
        ] {
            let found = identify(&shapes(network, classes)).unwrap();
            assert!(found.fits());
            assert_eq!((found.network, found.classes, found.timm), (network, Some(classes), timm));
            let mut old = shapes(network, classes);
            old.retain(|name, _| !name.ends_with(COUNTER));
            assert!(identify(&old).is_some_and(|found| found.fits() && found.network == network));
        }
    }

    #[test]
    fn what_is_nearly_a_network_is_told_apart_from_what_is_none() {
        let mut nearly = shapes("resnet34", 10);
        let all = nearly.len();
        nearly.remove("bn1.bias");
        nearly.insert("head.weight".into(), vec![3]);
        let found = identify(&nearly).unwrap();
        assert!(!found.fits());
        assert_eq!((found.network, found.tensors, found.alike), ("resnet34", all, all - 1));
        assert_eq!(identify(&[("fc.weight".into(), vec![2, 3])].into()), None);
        assert_eq!(identify(&BTreeMap::new()), None);
    }

    #[test]
    fn a_network_of_other_shapes_or_without_its_head_is_known_by_its_names() {
        // As wide_resnet50_2 has it.
        let mut wide = shapes("resnet50", 1000);
        let all = wide.len();
        for (name, shape) in &mut wide {
            if name.contains("conv2") {
                shape[0] *= 2;
                shape[1] *= 2;
            }
        }
        let found = identify(&wide).unwrap();
        assert_eq!((found.network, found.named, found.alike), ("resnet50", all, all - 16));
        let mut headless = shapes("resnet18", 10);
        headless.retain(|name, _| !name.starts_with("fc."));
        let found = identify(&headless).unwrap();
        assert_eq!((found.network, found.classes, found.fits()), ("resnet18", None, false));
    }
}
