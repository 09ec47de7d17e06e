//! Which execution provider runs how many nodes of a model: what ONNX Runtime's profile of one run says. Only a profile
//! has the graph as it runs, after fusions, with the copies between devices that were added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use super::binding::Names;
use super::{available, gpu, open, plain};
use crate::batch::{Batch, Element};
use crate::engines::{EngineChoice, EngineKind, EngineOptions};
use crate::error::{RuntimeError, one_line};
use crate::library::find_library;
use crate::network::ModelSource;
use crate::onnx::ModelInfo;

/// Which providers run a model's nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The engine that was asked.
    pub engine: EngineKind,
    /// The nodes of each provider, called as ONNX Runtime calls it: how many there are of each operator. A subgraph
    /// that TensorRT runs is one node.
    pub providers: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Placement {
    /// Opens `path` in an engine, with `auto` in ort-cuda or else ort, and runs a batch of zeros, one image or as many as the graph fixes, under the profiler.
    ///
    /// # Errors
    /// As [`Network::open`](crate::Network::open); [`RuntimeError::EngineOption`] for tract, which has no providers;
    /// [`RuntimeError::Placement`] where the graph does not fix the images' size, or the profile is not what it was.
    pub fn of(
        path: impl AsRef<Path>,
        choice: EngineChoice,
        options: &EngineOptions,
    ) -> Result<Placement, RuntimeError> {
        let path = path.as_ref();
        let info = ModelInfo::read(path)?;
        let wrong = |reason: String| RuntimeError::Placement { file: info.file.clone(), reason };
        let search = find_library(options.library.as_deref());
        let engine = match (choice, &search.found) {
            (EngineChoice::Named(engine), _) => engine,
            (EngineChoice::Auto, Some(library))
                if gpu::missing(EngineKind::OrtCuda, library, options.gpu.device_id()).is_none() =>
            {
                EngineKind::OrtCuda
            }
            (EngineChoice::Auto, _) => EngineKind::Ort,
        };
        if engine == EngineKind::Tract {
            let reason = "providers are ONNX Runtime's: use --engine ort, ort-cuda or ort-tensorrt".into();
            return Err(RuntimeError::EngineOption { engine, option: "model", reason });
        }
        options.check(engine)?;
        let shape = sample(&info)
            .ok_or_else(|| wrong(format!("its input {} has no fixed size", info.input.shape_text())))?;
        let library = search.found.as_deref().ok_or_else(|| RuntimeError::Unavailable {
            engine,
            reason: search.reason(),
            remedy: search.remedy(),
        })?;
        let loaded = available(engine, library, options)?;
        let folder = tempfile::tempdir().map_err(|e| wrong(one_line(e)))?;
        let profile = folder.path().join("profile");
        let source = ModelSource::File(path.to_owned());
        // Nothing is bound here, as a graph would need; nodes are placed the same without.
        let mut unbound = options.clone();
        unbound.gpu.cuda_graph = false;
        let mut session = open(engine, &loaded, &info, &source, &unbound, Some(&profile))?;
        let (floats, pixels);
        let batch: Batch<'_> = match info.element {
            Element::Float => {
                floats = Array4::<f32>::zeros(shape);
                floats.view().into()
            }
            Element::Byte => {
                pixels = Array4::<u8>::zeros(shape);
                pixels.view().into()
            }
        };
        plain::run(&mut session, &Names::of(&info), batch, None).map_err(wrong)?;
        let file = session.end_profiling().map_err(|e| wrong(one_line(e)))?;
        let text = std::fs::read_to_string(file).map_err(|e| wrong(one_line(e)))?;
        let providers = read(&text).map_err(wrong)?;
        Ok(Placement { engine, providers })
    }
}

/// The shape of a batch: as many images as the graph fixes, else one.
fn sample(info: &ModelInfo) -> Option<[usize; 4]> {
    let [batch, a, b, c] = info.input.dims.as_deref()? else { return None };
    Some([batch.fixed().unwrap_or(1), a.fixed()?, b.fixed()?, c.fixed()?])
}

/// An event of a profile, in Chrome's trace format.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    args: Arguments,
}

#[derive(Deserialize, Default)]
struct Arguments {
    #[serde(default)]
    provider: String,
    #[serde(default)]
    op_name: String,
}

/// Providers with their nodes out of a profile's text.
fn read(profile: &str) -> Result<BTreeMap<String, BTreeMap<String, usize>>, String> {
    let events: Vec<Event> =
        serde_json::from_str(profile).map_err(|e| format!("the profile cannot be read: {e}"))?;
    // A node has an event before, for and after its kernel, and each time that it runs; it is counted once.
    let kernels = events.iter().filter(|event| event.cat == "Node" && event.name.ends_with("_kernel_time"));
    let nodes: BTreeSet<(&str, &str, &str)> = kernels
        .map(|event| (event.name.as_str(), event.args.provider.as_str(), event.args.op_name.as_str()))
        .filter(|(_, provider, _)| !provider.is_empty())
        .collect();
    if nodes.is_empty() {
        return Err("the profile has no nodes".into());
    }
    let mut providers: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for (_, provider, operator) in nodes {
        *providers.entry(provider.to_owned()).or_default().entry(operator.to_owned()).or_default() += 1;
    }
    Ok(providers)
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (provider, operators)) in self.providers.iter().enumerate() {
            let mut most: Vec<(&String, &usize)> = operators.iter().collect();
            most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            let each: Vec<String> =
                most.iter().map(|(operator, count)| format!("{count} {operator}")).collect();
            let line = if at == 0 { "" } else { "\n" };
            let nodes = operators.values().sum::<usize>();
            write!(f, "{line}{provider:<27} {nodes} nodes: {}", each.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_counted_once_however_often_it_ran() {
        let node = |name: &str, operator: &str, provider: &str| {
            format!(
                r#"{{"cat":"Node","name":"{name}","ts":1,"args":{{"op_name":"{operator}","provider":"{provider}"}}}}"#
            )
        };
        let events = [
            r#"{"cat":"Session","name":"model_run","args":{}}"#.to_owned(),
            node("a_kernel_time", "Conv", "CUDAExecutionProvider"),
            node("a_kernel_time", "Conv", "CUDAExecutionProvider"),
            node("a_fence_before", "Conv", ""),
            node("b_kernel_time", "Conv", "CUDAExecutionProvider"),
            node("c_kernel_time", "Shape", "CPUExecutionProvider"),
        ];
        let providers = read(&format!("[{}]", events.join(","))).unwrap();
        let text = Placement { engine: EngineKind::OrtCuda, providers }.to_string();
        assert_eq!(
            text,
            "CPUExecutionProvider        1 nodes: 1 Shape\nCUDAExecutionProvider       2 nodes: 2 Conv"
        );
        assert!(read("[]").unwrap_err().contains("no nodes"));
        assert!(read("not json").unwrap_err().contains("cannot be read"));
    }
}
