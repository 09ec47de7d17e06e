//! Removes what acts only while training: dropout and stochastic depth.
//! At inference both are the identity, so that their consumers can take their input.

use tallow_builder::graph::Op;
use tallow_builder::{Graph, Weights};

use super::{rewrite, select};
use crate::error::Result;

/// The inference graph: no [`Op::Dropout`], no [`Op::StochasticDepth`]; the weights stay as they are.
///
/// # Errors
/// Where the weights are not the graph's.
pub fn remove_training(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights)> {
    let inference = rewrite(graph, |builder, _, node, inputs| match node.op {
        Op::Dropout { .. } | Op::StochasticDepth { .. } => Ok(inputs[0]),
        _ => Ok(builder.add(&node.name, node.op.clone(), inputs)?),
    })?;
    let weights = select(&inference, weights, [].into())?;
    Ok((inference, weights))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_builder::graph::{Activation, ConvSpec, Linear, Shape};
    use tallow_builder::{GraphBuilder, NodeId};

    use super::*;

    #[test]
    fn consumers_of_a_removed_layer_take_its_input() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3).padding(1)).unwrap();
        let branch = g.activation("relu", x, Activation::Relu).unwrap();
        let branch = g.stochastic_depth("drop_path", branch, 0.2).unwrap();
        let x = g.sum("add", x, branch).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        let x = g.dropout("dropout1", x, 0.5).unwrap();
        let x = g.dropout("dropout2", x, 0.5).unwrap();
        let x = g.linear("fc", x, Linear::uniform(2, 0.1)).unwrap();
        let x = g.dropout("dropout3", x, 0.1).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();

        let (inference, kept) = remove_training(&graph, &weights).unwrap();
        let names: Vec<&str> = inference.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["input", "conv", "relu", "add", "flatten", "fc"]);
        let inputs = |name: &str| -> Vec<usize> {
            let id: NodeId = inference.find(name).unwrap();
            inference.node(id).inputs.iter().map(|id| id.index()).collect()
        };
        assert_eq!(inputs("add"), [1, 2]);
        assert_eq!(inputs("fc"), [4]);
        assert_eq!(inference.node(inference.output()).name, "fc");
        assert_eq!(kept.iter().count(), weights.iter().count());
    }

    #[test]
    fn a_network_without_them_stays_as_it_is() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();
        assert_eq!(remove_training(&graph, &weights).unwrap().0, graph);
    }
}
