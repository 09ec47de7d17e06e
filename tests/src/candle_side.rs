//! candle's side of a comparison: the layer graph, ending as the file ends, and which of its values are the file's.

use tallow_builder::graph::{Op, Shape};
use tallow_builder::{Network, NodeId};
use tallow_exporter::onnx::PROBABILITIES;
use tallow_exporter::passes::{append_softmax, fold_batch_norm, inference};

use crate::error::Error;
use crate::file::OnnxFile;

/// The network as it was trained, with the softmax that the export put at its end: all else that the export does is
/// under test.
pub(crate) fn as_trained(file: &OnnxFile, network: &Network) -> Result<Network, Error> {
    let (mut graph, mut weights) = (network.graph().clone(), network.weights().clone());
    if file.info.outputs.iter().any(|output| output.name == PROBABILITIES) {
        (graph, weights) = append_softmax(&graph, &weights)?;
    }
    Ok(Network::new(graph, weights))
}

/// The network as the file has it, layer by layer: the export's own passes are run again.
pub(crate) fn as_exported(file: &OnnxFile, network: &Network) -> Result<Network, Error> {
    let trained = as_trained(file, network)?;
    let (graph, weights) = (trained.graph(), trained.weights());
    let (folded, _) = fold_batch_norm(graph, weights)?;
    // A normalisation that folding would remove is in the file: it was exported without.
    let unfolded = graph.nodes().iter().any(|node| {
        matches!(node.op, Op::BatchNorm(_))
            && folded.find(&node.name).is_none()
            && file.value_of(&node.name).is_some()
    });
    let (graph, weights) = inference(graph, weights, !unfolded, false)?;
    Ok(Network::new(graph, weights))
}

/// What the file calls each layer's value; `None` where it does not have the layer.
pub(crate) fn layers(file: &OnnxFile, network: &Network) -> Vec<Option<String>> {
    let graph = network.graph();
    let name = |(id, node): (NodeId, &tallow_builder::graph::Node)| {
        // The images are nobody's value.
        (id.index() > 0).then(|| file.value_of(&node.name).map(str::to_owned)).flatten()
    };
    let mut names: Vec<Option<String>> = graph.iter().map(name).collect();
    if let Some(output) = file.info.outputs.first() {
        names[graph.output().index()].get_or_insert(output.name.clone());
    }
    names
}

/// # Errors
/// Where the layer graph takes other images than the file.
pub(crate) fn check(file: &OnnxFile, sample: [usize; 3], network: &Network) -> Result<(), Error> {
    let takes = Shape::map(sample[0], sample[1], sample[2]);
    if takes == network.graph().input_shape() {
        return Ok(());
    }
    Err(Error::OtherNetwork {
        file: file.info.file.clone(),
        file_takes: takes.to_string(),
        network: network.graph().name().to_owned(),
        network_takes: network.graph().input_shape().to_string(),
    })
}
