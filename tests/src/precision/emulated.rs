//! The kernels for GPUs on the host: all of a network in f32 and f16. candle's CPU has no bf16 product of matrices, so in
//! bf16 the classifier's is taken in f32, of factors and with a result that are rounded as a GPU rounds them.

use candle_core::{DType, Result, Tensor};
use tallow_builder::graph::Op;
use tallow_builder::{GraphBuilder, Network, NodeId, Weights};
use tallow_cuda::emulator;

pub(super) fn forward(network: &Network, images: &Tensor) -> tallow_builder::Result<Tensor> {
    if images.dtype() != DType::BF16 {
        return emulator::emulated(|| network.forward(images));
    }
    let graph = network.graph();
    let (classifier, has_bias) = match &graph.node(graph.output()).op {
        Op::Linear(linear) => (graph.output(), linear.bias),
        _ => return emulator::emulated(|| network.forward(images)),
    };
    let features = emulator::emulated(|| before(network, classifier)?.forward(images))?;
    let layer = &graph.node(classifier).name;
    let parameter = |suffix: &str| network.weights().get(&format!("{layer}.{suffix}"));
    let product = rounded(&features)?.matmul(&rounded(parameter("weight"))?.t()?)?;
    let product = rounded(&product)?;
    Ok(if has_bias { rounded(&product.broadcast_add(parameter("bias"))?)? } else { product })
}

/// In f32 what is left of a tensor in bf16.
fn rounded(tensor: &Tensor) -> Result<Tensor> {
    tensor.to_dtype(DType::BF16)?.to_dtype(DType::F32)
}

/// The network up to what a layer takes.
fn before(network: &Network, layer: NodeId) -> tallow_builder::Result<Network> {
    let graph = network.graph();
    let mut builder = GraphBuilder::new(graph.name(), graph.input_shape());
    let mut renewed = vec![builder.input()];
    for (_, node) in graph.iter().take(layer.index()).skip(1) {
        let inputs: Vec<NodeId> = node.inputs.iter().map(|input| renewed[input.index()]).collect();
        renewed.push(builder.add(&node.name, node.op.clone(), &inputs)?);
    }
    let graph = builder.finish(renewed[graph.node(layer).inputs[0].index()])?;
    let names: Vec<String> = graph.parameters().into_iter().map(|parameter| parameter.name).collect();
    let tensors = names.into_iter().map(|name| (name.clone(), network.weights().get(&name).clone()));
    let weights = Weights::from_tensors(&graph, tensors.collect(), "the network that is verified")?;
    Ok(Network::new(graph, weights))
}
