//! Which network a file of weights is of, by the names and shapes of its tensors.

use std::collections::BTreeMap;

use super::layout::Layout;
use crate::options::Options;
use crate::registry::architectures;

/// What a file's tensors fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The network of the zoo. Networks that differ in padding or eps alone have the same tensors; this is the first.
    pub network: &'static str,
    /// Classes, as the classifier's weight has them.
    pub classes: usize,
    /// Tensors that are missing, left over or wrongly shaped; 0 for a network that fits.
    pub differing: usize,
}

/// The network whose tensors are most like these (shapes by name, in any [`Layout`]), if at least half are alike.
pub fn identify(shapes: &BTreeMap<String, Vec<usize>>) -> Option<Identity> {
    let layout = Layout::of(shapes.keys().map(String::as_str));
    let head = layout.classifier(shapes.keys().map(String::as_str));
    let classes = head.and_then(|name| shapes[name].first().copied()).filter(|&classes| classes > 0)?;
    let candidates = architectures().iter().filter_map(|network| {
        let graph = network.build(&Options { classes: Some(classes), ..Options::default() }).ok()?;
        let found = layout.rename(&graph, shapes.clone());
        let needed = graph.parameters();
        let alike = needed.iter().filter(|tensor| found.get(&tensor.name) == Some(&tensor.shape)).count();
        let differing = needed.len().max(found.len()) - alike;
        (alike > differing).then_some(Identity { network: network.name, classes, differing })
    });
    candidates.min_by_key(|identity| identity.differing)
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
        for (network, classes) in [("resnet50", 1000), ("efficientnet_b3", 7), ("efficientnet_lite2", 12)] {
            let found = identify(&shapes(network, classes)).unwrap();
            assert_eq!(found, Identity { network, classes, differing: 0 });
        }
    }

    #[test]
    fn what_is_nearly_a_network_is_told_apart_from_what_is_none() {
        let mut nearly = shapes("resnet34", 10);
        nearly.remove("bn1.bias");
        nearly.insert("head.weight".into(), vec![3]);
        assert_eq!(identify(&nearly), Some(Identity { network: "resnet34", classes: 10, differing: 1 }));
        assert_eq!(identify(&[("fc.weight".into(), vec![2, 3])].into()), None);
        assert_eq!(identify(&BTreeMap::new()), None);
    }
}
