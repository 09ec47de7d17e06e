//! Weights back from TensorFlow: a checkpoint of version 1 or 2, or the variables of a SavedModel, whoever wrote them,
//! as long as the variables are called as Tallow calls them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use prost::Message;
use tallow_builder::graph::Role;
use tallow_builder::weights::{Differences, Mismatch};
use tallow_builder::{Graph, Weights};
use tallow_tensorflow::bundle::{BundleReader, index_path};
use tallow_tensorflow::proto::TrackableObjectGraph;

use super::checkpoint::latest;
use super::saved_model::{VARIABLES, version_at};
use super::variables::variables;
use crate::adopt::{Head, new_head};
use crate::advice::other_classes;
use crate::error::{Error, Result};
use crate::weights::Imported;

/// The objects that an object-based checkpoint holds values of.
const OBJECTS: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// What ends the key of an object's value.
const VALUE: &str = "/.ATTRIBUTES/VARIABLE_VALUE";

/// The prefix of the tensor bundle at `path`, if there is one: `path` may be the prefix itself or one of its files, a
/// directory with checkpoints (the newest is taken), a SavedModel, a version of one, or the `variables/` or the
/// `saved_model.pb` in that.
pub fn bundle_at(path: &Path) -> Option<PathBuf> {
    let mut candidates = vec![path.to_owned()];
    let is_of_bundle = |end: &str| end == "index" || end == "meta" || end.starts_with("data-");
    if path.is_file() && path.extension().and_then(OsStr::to_str).is_some_and(is_of_bundle) {
        candidates.push(path.with_extension(""));
    }
    // A SavedModel without its graph, and its variables' folder alone.
    candidates.extend([path.join(VARIABLES), path.join("variables")]);
    candidates.extend(latest(path));
    candidates.extend(version_at(path).map(|version| version.join(VARIABLES)));
    candidates.into_iter().find(|prefix| index_path(prefix).is_file())
}

/// Reads the weights of `graph` out of the bundle with this prefix, strictly: what is missing, left over or wrongly
/// shaped is an error that lists all of it, in TensorFlow's names and shapes. Only the classifier may be another one, if
/// `head` says so.
///
/// # Errors
/// Where a file is damaged or does not fit the network.
pub fn read_variables(graph: &Graph, prefix: &Path, head: Head, device: &Device) -> Result<Imported> {
    let bundle = BundleReader::open(prefix)?;
    let keys = keys_by_name(&bundle)?;
    let mut differences = Differences::default();
    let mut batch_norms_missing = true;
    let mut tensors = BTreeMap::new();
    let mut used = BTreeSet::new();
    let replaced = if head == Head::Kept { None } else { graph.classifier() };
    let mut other_head = None;
    for variable in variables(graph) {
        let Some(data) = keys.get(&variable.name).map(|key| bundle.read(key)).transpose()?.flatten() else {
            batch_norms_missing &= variable.is_of_batch_norm();
            differences.missing.push(variable.name);
            continue;
        };
        used.insert(variable.name.clone());
        if head.is_redrawn(data.shape == variable.shape) && Some(variable.parameter.node) == replaced {
            other_head = data.shape.last().copied();
            continue;
        }
        if data.shape != variable.shape {
            let (expected, actual) = (variable.shape, data.shape);
            differences.mismatched.push(Mismatch { name: variable.name, expected, actual });
            continue;
        }
        let values = data.to_f32().ok_or_else(|| {
            let problem =
                format!("`{}` holds {:?}, and weights are floating-point", variable.name, data.dtype);
            tallow_tensorflow::Error::unusable(&index_path(prefix), problem)
        })?;
        let tensor = variable.tensor(values)?.to_device(device)?;
        tensors.insert(variable.parameter.name, tensor);
    }
    let root = only_root(keys.iter().filter(|(name, _)| used.contains(*name)).map(|(_, key)| key.as_str()));
    let extra = keys.iter().filter(|(name, _)| !used.contains(*name));
    let (left_out, unexpected): (Vec<_>, Vec<_>) =
        extra.partition(|(name, key)| is_of_training(name, &used) || is_beside(key, root));
    let names = |keys: Vec<(&String, &String)>| keys.into_iter().map(|(name, _)| name.clone()).collect();
    let left_out = names(left_out);
    differences.unexpected = names(unexpected);
    let Differences { missing, unexpected, mismatched } = &differences;
    let biases = !unexpected.is_empty() && unexpected.iter().all(|name| name.ends_with("/bias"));
    if biases && !missing.is_empty() && batch_norms_missing && mismatched.is_empty() {
        return Err(Error::Folded { path: prefix.to_owned(), network: graph.name().to_owned() });
    }
    if !differences.is_empty() {
        let (origin, network) = (prefix.display().to_string(), graph.name().to_owned());
        let classes = classes_of(graph, &differences);
        let differences = Box::new(differences);
        return Err(match classes {
            Some(classes) => {
                let advice = other_classes(graph, classes);
                Error::OtherNetwork { origin, network, differences, advice }
            }
            None => tallow_builder::Error::Weights { origin, network, differences }.into(),
        });
    }
    if let (Head::New { seed } | Head::Redrawn { seed }, true) = (head, other_head.is_some()) {
        tensors.extend(new_head(graph, seed, device)?);
    }
    for parameter in graph.parameters() {
        if parameter.role == Role::BatchesTracked {
            tensors.insert(parameter.name, Tensor::zeros((), DType::I64, device)?);
        }
    }
    let weights = Weights::from_tensors(graph, tensors, &prefix.display().to_string())?;
    Ok(Imported { weights, left_out, source: prefix.to_owned(), other_head })
}

/// The classes that the file's classifier has, if nothing but that differs.
fn classes_of(graph: &Graph, differences: &Differences) -> Option<usize> {
    let classifier = graph.classifier()?;
    let own: Vec<String> = variables(graph)
        .into_iter()
        .filter(|variable| variable.parameter.node == classifier)
        .map(|variable| variable.name)
        .collect();
    let Differences { missing, unexpected, mismatched } = differences;
    let is_head =
        missing.is_empty() && unexpected.is_empty() && mismatched.iter().all(|m| own.contains(&m.name));
    mismatched.first().filter(|_| is_head)?.actual.last().copied()
}

/// The first part of the keys, where an object holds all of them: `model` of `tf.train.Checkpoint(model=…, optimizer=…)`.
fn only_root<'a>(mut keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let root = |key: &'a str| key.split_once('/').map(|(root, _)| root).filter(|_| key.ends_with(VALUE));
    let first = root(keys.next()?)?;
    keys.all(|key| root(key) == Some(first)).then_some(first)
}

/// Whether an object's value lies beside the object with the network, as the slots of Keras' optimisers do.
fn is_beside(key: &str, network: Option<&str>) -> bool {
    network.is_some_and(|network| key.ends_with(VALUE) && key.split('/').next() != Some(network))
}

/// The bundle's keys by the variables' names. An object-based checkpoint tells the names; else the keys are the names.
fn keys_by_name(bundle: &BundleReader) -> Result<BTreeMap<String, String>> {
    let keys = bundle.iter().map(|(key, _)| key.to_owned()).filter(|key| key != OBJECTS);
    let mut named: BTreeMap<String, String> = keys.map(|key| (key.clone(), key)).collect();
    let Some(objects) = bundle.read_string(OBJECTS)? else { return Ok(named) };
    let objects = TrackableObjectGraph::decode(&objects[..]).map_err(|error| {
        tallow_tensorflow::Error::unusable(bundle.index(), format!("`{OBJECTS}` cannot be read ({error})"))
    })?;
    for tensor in objects.nodes.into_iter().flat_map(|object| object.attributes) {
        let name = match tensor.full_name.trim_end_matches(":0") {
            "" => tensor.checkpoint_key.trim_end_matches(VALUE),
            name => name,
        };
        if let Some(key) = named.remove(&tensor.checkpoint_key) {
            named.insert(name.to_owned(), key);
        }
    }
    Ok(named)
}

/// Whether a variable belongs to the training: a slot that an optimiser keeps beside a variable, an average of one, a
/// counter.
fn is_of_training(name: &str, used: &BTreeSet<String>) -> bool {
    let counters =
        ["global_step", "save_counter", "iteration", "learning_rate", "beta1_power", "beta2_power"];
    let last = name.trim_end_matches(VALUE).rsplit('/').next().unwrap_or(name);
    let beside = name.rmatch_indices('/').any(|(end, _)| used.contains(&name[..end]));
    counters.contains(&last) || beside || name.contains("/.OPTIMIZER_SLOT/")
}

#[cfg(test)]
mod tests {
    use tallow_builder::GraphBuilder;
    use tallow_builder::graph::{BatchNorm, ConvSpec, Shape};

    use super::super::{Step, write_checkpoint};
    use super::*;
    use crate::atomic::Existing;

    fn graph(channels: usize) -> Graph {
        let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
        let x = g.conv2d("layer1.0.conv", g.input(), ConvSpec::new(channels, 3)).unwrap();
        let x = g.batch_norm("layer1.0.bn", x, BatchNorm::default()).unwrap();
        g.finish(x).unwrap()
    }

    #[test]
    fn weights_read_back_to_the_bit_from_every_way_to_name_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let graph = graph(4);
        for step in [10, 20] {
            let weights = Weights::init(&graph, step, &Device::Cpu).unwrap();
            write_checkpoint(folder.path(), &graph, &weights, Step(step), Existing::Keep).unwrap();
        }
        let newest = Weights::init(&graph, 20, &Device::Cpu).unwrap();
        let prefix = folder.path().join("model.ckpt-20");
        for path in [folder.path().to_owned(), prefix.clone(), index_path(&prefix)] {
            let found = bundle_at(&path).unwrap();
            assert_eq!(found, prefix);
            let Imported { weights, left_out, .. } =
                read_variables(&graph, &found, Head::Kept, &Device::Cpu).unwrap();
            assert_eq!(left_out, ["global_step"]);
            for ((name, a), (_, b)) in weights.iter().zip(newest.iter()) {
                assert_eq!(a.to_string(), b.to_string(), "{name}");
            }
        }
        let state = std::fs::read_to_string(folder.path().join("checkpoint")).unwrap();
        let expected = "model_checkpoint_path: \"model.ckpt-20\"\nall_model_checkpoint_paths: \"model.ckpt-10\"\n\
                        all_model_checkpoint_paths: \"model.ckpt-20\"\n";
        assert_eq!(state, expected);
        let weights = &newest;
        let again = write_checkpoint(folder.path(), &graph, weights, Step(20), Existing::Keep);
        assert!(again.unwrap_err().to_string().contains("model.ckpt-20: already exists"));
        assert!(bundle_at(&folder.path().join("other")).is_none());
    }

    #[test]
    fn another_network_is_an_error_in_tensorflows_names_and_shapes() {
        let folder = tempfile::tempdir().unwrap();
        let weights = Weights::init(&graph(4), 1, &Device::Cpu).unwrap();
        let prefix =
            write_checkpoint(folder.path(), &graph(4), &weights, Step(1), Existing::Keep).unwrap().prefix;
        let text = read_variables(&graph(5), &prefix, Head::Kept, &Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("layer1/0/conv/kernel (needs [3, 3, 3, 5], has [3, 3, 3, 4])"), "{text}");
        let mut g = GraphBuilder::new("other", Shape::map(3, 8, 8));
        let x = g.conv2d("stem", g.input(), ConvSpec::new(4, 3)).unwrap();
        let text =
            read_variables(&g.finish(x).unwrap(), &prefix, Head::Kept, &Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("1 missing: stem/kernel; 5 unexpected: layer1/0/bn/beta, "), "{text}");
    }

    #[test]
    fn a_folder_is_taken_for_the_checkpoint_in_it_or_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let (at, graph) = (folder.path(), graph(4));
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        for step in [1, 2] {
            write_checkpoint(at, &graph, &weights, Step(step), Existing::Keep).unwrap();
        }
        // As TensorFlow writes it for an absolute prefix, in a folder that has been moved since.
        std::fs::write(at.join("checkpoint"), "model_checkpoint_path: \"/elsewhere/model.ckpt-1\"\n")
            .unwrap();
        assert_eq!(bundle_at(at), Some(at.join("model.ckpt-1")));
        std::fs::remove_file(at.join("checkpoint")).unwrap();
        let refused = || {
            let error = crate::read_weights(&graph, at, None, Head::Kept, &Device::Cpu).unwrap_err();
            error.to_string()
        };
        assert!(refused().contains("several checkpoints"), "{}", refused());
        std::fs::remove_file(at.join("model.ckpt-1.index")).unwrap();
        assert_eq!(bundle_at(at), Some(at.join("model.ckpt-2")));
        std::fs::remove_file(at.join("model.ckpt-2.index")).unwrap();
        assert!(refused().contains("model.ckpt-1, but no model.ckpt-1.index"), "{}", refused());
    }

    #[test]
    fn another_number_of_classes_is_named() {
        let network = |classes| {
            let mut g = GraphBuilder::new("net", Shape::map(3, 2, 2));
            let x = g.flatten("flatten", g.input()).unwrap();
            let x = g.linear("fc", x, tallow_builder::graph::Linear::uniform(classes, 0.1)).unwrap();
            g.finish(x).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let weights = Weights::init(&network(4), 1, &Device::Cpu).unwrap();
        write_checkpoint(folder.path(), &network(4), &weights, Step(1), Existing::Keep).unwrap();
        let prefix = bundle_at(folder.path()).unwrap();
        let text = read_variables(&network(3), &prefix, Head::Kept, &Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("its weights are for 4 classes, not 3"), "{text}");
        let new = read_variables(&network(3), &prefix, Head::New { seed: 1 }, &Device::Cpu).unwrap();
        let drawn: BTreeMap<String, Tensor> =
            new_head(&network(3), 1, &Device::Cpu).unwrap().into_iter().collect();
        assert_eq!(new.weights.get("fc.weight").to_string(), drawn["fc.weight"].to_string());
        assert_eq!(new.other_head, Some(4));
    }

    #[test]
    fn what_lies_beside_the_network_in_an_object_graph_is_of_the_training() {
        let key = |path: &str| format!("{path}{VALUE}");
        let used = [key("model/a"), key("model/b/c")];
        let root = only_root(used.iter().map(String::as_str));
        assert_eq!(root, Some("model"));
        assert!(is_beside(&key("optimizer/_variables/3"), root) && !is_beside(&key("model/d"), root));
        let apart = [key("a/x"), key("b/x")];
        assert_eq!(only_root(apart.iter().map(String::as_str)), None);
        assert_eq!(only_root(["a/kernel", "a/bias"].into_iter()), None);
    }

    #[test]
    fn what_an_optimiser_keeps_beside_a_variable_is_left_out() {
        let used = BTreeSet::from(["a/kernel".to_owned()]);
        for name in
            ["a/kernel/Momentum", "a/kernel/ExponentialMovingAverage", "global_step", "optimizer/iteration"]
        {
            assert!(is_of_training(name, &used), "{name}");
        }
        for name in ["a/kernels", "b/kernel/Momentum", "a/bias"] {
            assert!(!is_of_training(name, &used), "{name}");
        }
    }
}
