//! Makes the tensors that a library of Python's saved the weights of a network: names, counters, and another head.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use tallow_builder::graph::{Parameter, Role};
use tallow_builder::{Graph, Init, Rng, Weights};
use tallow_models::{Identity, Layout, identify};

use crate::error::{Error, Result};

/// What wrappers put before every name: `DataParallel`, `torch.compile`, Lightning's and other modules around a network.
const PREFIXES: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// What becomes of the classifier, the layer that gives the logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// It comes from the file, as everything else.
    #[default]
    Kept,
    /// Where the file's has another number of classes, it is drawn anew; with the same number it is kept.
    New {
        /// Decides the new layer's numbers.
        seed: u64,
    },
    /// It is drawn anew in any case: the file's is for other classes, however many.
    Redrawn {
        /// Decides the new layer's numbers.
        seed: u64,
    },
}

impl Head {
    /// Whether it is drawn anew, given whether the file's has the shape that is needed.
    pub(crate) fn is_redrawn(self, fits: bool) -> bool {
        match self {
            Self::Kept => false,
            Self::New { .. } => !fits,
            Self::Redrawn { .. } => true,
        }
    }
}

/// Tensors as `origin` has them, as the weights of `graph`; all of them have to fit. With them, the classes of a head
/// that was drawn anew.
pub(crate) fn adopt(
    graph: &Graph,
    tensors: BTreeMap<String, Tensor>,
    origin: &str,
    head: Head,
    device: &Device,
) -> Result<(Weights, Option<usize>)> {
    let tensors = without_prefixes(tensors);
    let shapes: BTreeMap<String, Vec<usize>> =
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    let mut tensors = Layout::of(tensors.keys().map(String::as_str)).rename(graph, tensors);
    let needed = graph.parameters();
    count_no_batches(&needed, &mut tensors, device)?;
    let other_head = match head {
        Head::New { seed } | Head::Redrawn { seed } => {
            replace_head(graph, &mut tensors, (head, seed), device)?
        }
        Head::Kept => None,
    };
    let weights = Weights::from_tensors(graph, tensors, origin).map_err(|error| match error {
        tallow_builder::Error::Weights { differences, .. } => Error::OtherNetwork {
            origin: origin.to_owned(),
            network: graph.name().to_owned(),
            differences,
            advice: advice(graph, identify(&shapes)),
        },
        other => other.into(),
    })?;
    Ok((weights, other_head))
}

fn without_prefixes(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    while let Some(prefix) = PREFIXES
        .iter()
        .find(|prefix| !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(**prefix)))
    {
        tensors =
            tensors.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
    }
    tensors
}

/// PyTorch before 1.0 kept no counters of batches; where a file has none at all, they are 0, as PyTorch reads it.
fn count_no_batches(
    needed: &[Parameter],
    tensors: &mut BTreeMap<String, Tensor>,
    device: &Device,
) -> Result<()> {
    let counters = || needed.iter().filter(|tensor| tensor.role == Role::BatchesTracked);
    if counters().any(|counter| tensors.contains_key(&counter.name)) {
        return Ok(());
    }
    for counter in counters() {
        tensors.insert(counter.name.clone(), Tensor::zeros((), DType::I64, device)?);
    }
    Ok(())
}

/// Draws the classifier anew if it has to be, and gives the classes that it had.
fn replace_head(
    graph: &Graph,
    tensors: &mut BTreeMap<String, Tensor>,
    (head, seed): (Head, u64),
    device: &Device,
) -> Result<Option<usize>> {
    let Some(classifier) = graph.classifier() else { return Ok(None) };
    let layer = graph.layer_parameters(classifier);
    let fits =
        |tensor: &Parameter| tensors.get(&tensor.name).is_none_or(|found| found.dims() == tensor.shape);
    if !head.is_redrawn(layer.iter().all(fits)) {
        return Ok(None);
    }
    let had = layer.iter().find_map(|tensor| tensors.get(&tensor.name)?.dims().first().copied());
    tensors.extend(new_head(graph, seed, device)?);
    Ok(had)
}

/// A classifier drawn as PyTorch draws a linear layer, uniform in ±1/√inputs, whatever the network's own classifier
/// starts with: torchvision's EfficientNets start in ±1/√classes, which for few classes and features that are learned
/// already makes logits so large that the first steps destroy the features.
pub(crate) fn new_head(graph: &Graph, seed: u64, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let mut drawn = BTreeMap::new();
    for (i, tensor) in graph.parameters().into_iter().enumerate() {
        if Some(tensor.node) == graph.classifier() {
            let inputs = graph.node(graph.node(tensor.node).inputs[0]).shape.channels();
            let init = Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() };
            let values = init.sample(&tensor.shape, &mut Rng::stream(seed, &[i as u64]));
            drawn.insert(tensor.name, Tensor::from_vec(values, tensor.shape, device)?);
        }
    }
    Ok(drawn)
}

/// What to say of weights of the same network for so many classes.
pub(crate) fn other_classes(graph: &Graph, classes: usize) -> String {
    format!("its weights are for {classes} classes, not {}", graph.output_shape().elements())
}

/// What to do about weights of another network.
fn advice(graph: &Graph, found: Option<Identity>) -> String {
    let Some(Identity { network, classes, differing }) = found else {
        return "its weights are of no network of the zoo".into();
    };
    let own = graph.output_shape().elements();
    if differing > 0 {
        return format!(
            "its weights are of no network of the zoo; {network} with {classes} classes is nearest, but for {differing} \
             tensors"
        );
    }
    let same = identify(&graph.parameters().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect());
    if same.is_some_and(|same| same.network == network) && own != classes {
        return other_classes(graph, classes);
    }
    format!("its weights are {network}'s, for {classes} classes: pass --model {network} --classes {classes}")
}

#[cfg(test)]
mod tests {
    use tallow_models::{Options, build};

    use super::*;

    fn network(name: &str, classes: usize) -> Graph {
        build(name, &Options::new(classes, 32)).unwrap()
    }

    fn tensors(graph: &Graph) -> BTreeMap<String, Tensor> {
        let weights = Weights::init(graph, 1, &Device::Cpu).unwrap();
        weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn adopted(graph: &Graph, tensors: BTreeMap<String, Tensor>, head: Head) -> Result<Weights> {
        Ok(adopt(graph, tensors, "x.pth", head, &Device::Cpu)?.0)
    }

    #[test]
    fn wrappers_and_absent_counters_are_no_difference() {
        let graph = network("resnet18", 5);
        let wrapped = tensors(&graph).into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
        let wrapped = wrapped.map(|(name, tensor)| (format!("module.model.{name}"), tensor)).collect();
        let weights = adopted(&graph, wrapped, Head::Kept).unwrap();
        assert_eq!(weights.get("bn1.num_batches_tracked").to_scalar::<i64>().unwrap(), 0);
    }

    #[test]
    fn one_absent_counter_among_others_is_a_difference() {
        let graph = network("resnet18", 5);
        let mut damaged = tensors(&graph);
        damaged.remove("bn1.num_batches_tracked");
        let text = adopted(&graph, damaged, Head::Kept).unwrap_err().to_string();
        assert!(text.contains("1 missing: bn1.num_batches_tracked"), "{text}");
    }

    #[test]
    fn a_head_of_other_classes_is_drawn_anew_and_nothing_else() {
        let (source, target) = (network("resnet18", 5), network("resnet18", 3));
        let given = tensors(&source);
        let weights = adopted(&target, given.clone(), Head::New { seed: 7 }).unwrap();
        let drawn = Weights::init(&target, 7, &Device::Cpu).unwrap();
        for (name, tensor) in weights.iter() {
            let expected = if name.starts_with("fc.") { drawn.get(name) } else { &given[name] };
            assert_eq!(tensor.to_string(), expected.to_string(), "{name}");
        }
        let kept = adopted(&source, given.clone(), Head::New { seed: 7 }).unwrap();
        assert_eq!(kept.get("fc.weight").to_string(), given["fc.weight"].to_string());
    }

    #[test]
    fn weights_of_another_network_are_named() {
        let given = tensors(&network("resnet34", 5));
        let text = adopted(&network("resnet18", 5), given.clone(), Head::Kept).unwrap_err().to_string();
        assert!(
            text.contains("its weights are resnet34's, for 5 classes: pass --model resnet34 --classes 5"),
            "{text}"
        );
        let text = adopted(&network("resnet34", 7), given, Head::Kept).unwrap_err().to_string();
        assert!(text.contains("its weights are for 5 classes, not 7"), "{text}");
    }
}
