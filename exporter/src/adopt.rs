//! Makes the tensors that a library of Python's saved the weights of a network: names, counters, and another head.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use tallow_builder::graph::{Parameter, Role};
use tallow_builder::{Graph, Init, Rng, Weights};
use tallow_models::{Layout, identify};

use crate::advice::advice;
use crate::error::{Error, Result};
use crate::sound;

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
    let needed = graph.parameters();
    let (tensors, prefix) = without_prefix(&needed, tensors);
    let shapes: BTreeMap<String, Vec<usize>> =
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    let mut tensors = Layout::of(tensors.keys().map(String::as_str)).rename(graph, tensors);
    count_no_batches(&needed, &mut tensors, device)?;
    let other_head = match head {
        Head::New { seed } | Head::Redrawn { seed } => {
            replace_head(graph, &mut tensors, (head, seed), device)?
        }
        Head::Kept => None,
    };
    sound::refuse_integers(&needed, &tensors, origin)?;
    let weights = Weights::from_tensors(graph, tensors, origin).map_err(|error| match error {
        tallow_builder::Error::Weights { differences, .. } => Error::OtherNetwork {
            origin: origin.to_owned(),
            network: graph.name().to_owned(),
            differences,
            advice: match prefix.as_str() {
                "" => advice(graph, identify(&shapes), head),
                prefix => format!(
                    "{}; all names there begin with `{prefix}`, which is left out here",
                    advice(graph, identify(&shapes), head)
                ),
            },
        },
        other => other.into(),
    })?;
    Ok((weights, other_head))
}

/// The tensors without what all their names begin with, and that: modules around a network put their own names before
/// its names, such as `module.` of `DataParallel`, `_orig_mod.` of `torch.compile`, or `backbone.`.
fn without_prefix(
    needed: &[Parameter],
    mut tensors: BTreeMap<String, Tensor>,
) -> (BTreeMap<String, Tensor>, String) {
    let mut prefix = String::new();
    let is_needed = |module: &String| needed.iter().any(|tensor| tensor.name.starts_with(module));
    while let Some(module) = common_module(&tensors).filter(|module| !is_needed(module)) {
        tensors =
            tensors.into_iter().map(|(name, tensor)| (name[module.len()..].to_owned(), tensor)).collect();
        prefix += &module;
    }
    (tensors, prefix)
}

/// The first part of all names, with its dot. The parts of one layer have it in common, too, and keep it.
fn common_module(tensors: &BTreeMap<String, Tensor>) -> Option<String> {
    let first = tensors.keys().next()?;
    let module = &first[..=first.find('.')?];
    let rest: Option<Vec<&str>> = tensors.keys().map(|name| name.strip_prefix(module)).collect();
    rest?.iter().any(|rest| rest.contains('.')).then(|| module.to_owned())
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

#[cfg(test)]
mod tests {
    use tallow_models::{Options, Scaling, build};

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

    fn refused(graph: &Graph, tensors: BTreeMap<String, Tensor>, head: Head, said: &str) {
        let text = adopted(graph, tensors, head).unwrap_err().to_string();
        assert!(text.contains(said), "{text}");
    }

    #[test]
    fn weights_of_another_network_are_named() {
        let given = tensors(&network("resnet34", 5));
        let said = "its weights are resnet34's, for 5 classes: pass --model resnet34 --classes 5, or timm/resnet34 if";
        refused(&network("resnet18", 5), given.clone(), Head::Kept, said);
        let said = "its weights are for 5 classes, not 7: pass --classes 5";
        refused(&network("resnet34", 7), given.clone(), Head::Kept, said);
        // A head that is drawn anew needs no number of classes.
        let said = "its weights are resnet34's: pass --model resnet34, or";
        refused(&network("resnet18", 5), given, Head::New { seed: 1 }, said);
        let given = tensors(&build("efficientnet_lite0", &Options::new(4, 64)).unwrap());
        let said = "--model efficientnet_lite0 --classes 4, or, if they are timm's, timm/efficientnet_lite0, or \
                    timm/tf_efficientnet_lite0 if TensorFlow trained them";
        refused(&network("resnet18", 4), given, Head::Kept, said);
    }

    #[test]
    fn a_scaled_network_is_not_told_to_be_named_by_the_name_it_has() {
        let scaled = |name, width| {
            let scaling = Scaling { width, ..Scaling::NONE };
            build(name, &Options { scaling, ..Options::new(5, 64) }).unwrap()
        };
        for name in ["resnet18", "timm/tf_efficientnet_b0"] {
            let given = tensors(&scaled(name, 1.0));
            let said = format!("those of {name} as it is: leave out --width and --depth (");
            refused(&scaled(name, 2.0), given.clone(), Head::Kept, &said);
            refused(&scaled(name, 2.0), given, Head::New { seed: 1 }, &said);
        }
        let said = "as it is: leave out --width and --depth, and pass --classes 7 (";
        refused(&scaled("resnet18", 2.0), tensors(&network("resnet18", 7)), Head::Kept, said);
        let said =
            "its weights are resnet18's, for 5 classes: pass --model resnet18 --classes 5, or timm/resnet18";
        refused(&network("resnet18_cifar", 5), tensors(&network("resnet18", 5)), Head::Kept, said);
    }

    #[test]
    fn a_module_around_the_network_is_left_out_whatever_it_is_called() {
        let graph = network("resnet18", 5);
        let given = tensors(&graph);
        let within = |name: &str| -> BTreeMap<String, Tensor> {
            given.iter().map(|(tensor, values)| (format!("{name}{tensor}"), values.clone())).collect()
        };
        for name in ["net.", "backbone.encoder.", "_orig_mod.module."] {
            adopted(&graph, within(name), Head::Kept).unwrap();
        }
        let mut headless = within("backbone.");
        headless.retain(|name, _| !name.starts_with("backbone.fc."));
        let said = "nearest is resnet18, which 120 of 120 tensors fit; all names there begin with `backbone.`, which";
        refused(&graph, headless, Head::Kept, said);
        let one_layer = given.into_iter().filter(|(name, _)| name.starts_with("fc.")).collect();
        refused(&graph, one_layer, Head::Kept, "nor near one");
    }

    #[test]
    fn tensors_that_are_no_weights_are_refused_with_their_name() {
        let graph = network("resnet18", 5);
        let mut quantised = tensors(&graph);
        let shape = quantised["conv1.weight"].shape().clone();
        quantised.insert("conv1.weight".into(), Tensor::ones(shape, DType::U8, &Device::Cpu).unwrap());
        refused(&graph, quantised, Head::Kept, "x.pth: `conv1.weight` holds whole numbers (U8)");
    }
}
