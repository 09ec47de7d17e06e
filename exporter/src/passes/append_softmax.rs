//! Ends a network in softmax, so that it gives probabilities instead of logits.

use tallow_builder::graph::{Op, Shape};
use tallow_builder::{Graph, Weights};

use super::{rewrite_open, select};
use crate::error::{Error, Result};

/// The network with a softmax over its logits; a network that ends in softmax already stays as it is.
///
/// # Errors
/// Where the network's output is a feature map.
pub fn append_softmax(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights)> {
    if graph.node(graph.output()).op == Op::Softmax {
        return Ok((graph.clone(), weights.clone()));
    }
    if let shape @ Shape::Map { .. } = graph.output_shape() {
        let problem = format!("softmax needs a vector of logits, the output is a feature map {shape}");
        return Err(Error::Option { network: graph.name().to_owned(), problem });
    }
    let mut name = String::from("softmax");
    while graph.find(&name).is_some() {
        name.push('_');
    }
    let (mut builder, logits) = rewrite_open(graph, |builder, _, node, inputs| {
        Ok(builder.add(&node.name, node.op.clone(), inputs)?)
    })?;
    let probabilities = builder.add(&name, Op::Softmax, &[logits])?;
    let graph = builder.finish(probabilities)?;
    let weights = select(&graph, weights, [].into())?;
    Ok((graph, weights))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_builder::GraphBuilder;
    use tallow_builder::graph::{ConvSpec, Linear};

    use super::*;

    #[test]
    fn softmax_comes_last_and_only_once() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 4, 4));
        let x = g.flatten("flatten", g.input()).unwrap();
        let x = g.linear("softmax", x, Linear::uniform(2, 0.1)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();

        let (once, weights) = append_softmax(&graph, &weights).unwrap();
        assert_eq!(once.node(once.output()).op, Op::Softmax);
        assert_eq!(once.node(once.output()).name, "softmax_");
        assert_eq!(once.nodes().len(), graph.nodes().len() + 1);
        assert_eq!(append_softmax(&once, &weights).unwrap().0, once);
    }

    #[test]
    fn a_feature_map_is_refused_with_its_shape() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 4, 4));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(5, 1)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 0, &Device::Cpu).unwrap();
        let text = append_softmax(&graph, &weights).unwrap_err().to_string();
        assert_eq!(
            text,
            "network `net`: softmax needs a vector of logits, the output is a feature map 5×4×4"
        );
    }
}
