//! Gives a network its class activation maps as a side output (Zhou et al. 2016, "Learning deep features for
//! discriminative localization", section 2): M_c(x, y) = Σ_k w_k^c·f_k(x, y), which is a 1×1 convolution of the map
//! before the global average pool with the classifier's weights.

use tallow_builder::graph::ConvSpec;
use tallow_builder::{CamHead, Graph, Weights};

use super::{free_name, rewrite_open, select};
use crate::error::{Error, Result};

/// The network with class activation maps `[classes, rows, columns]` as its side output. Their mean over rows and
/// columns, plus the classifier's bias, is the logit.
///
/// # Errors
/// Where the network does not end in global average pooling and one fully connected layer.
pub fn append_cam(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights)> {
    let Some(head) = CamHead::of(graph) else {
        let problem = "class activation maps need a network that ends in global average pooling and one fully \
                       connected layer; `tallow cam` shows Grad-CAM for others";
        return Err(Error::Option { network: graph.name().to_owned(), problem: problem.into() });
    };
    let mut rewritten = rewrite_open(graph, |builder, _, node, inputs| {
        Ok(builder.add(&node.name, node.op.clone(), inputs)?)
    })?;
    let name = free_name(graph, "cam");
    let features = rewritten.renewed[head.features.index()];
    let classes = graph.node(head.classifier).shape.elements();
    let maps = rewritten.builder.conv2d(&name, features, ConvSpec::new(classes, 1))?;
    rewritten.side_outputs.push(maps);
    let with_maps = rewritten.builder.finish_with(rewritten.output, rewritten.side_outputs)?;
    let filters = head.filters(graph, weights)?;
    let weights = select(&with_maps, weights, [(format!("{name}.weight"), filters)].into())?;
    Ok((with_maps, weights))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use tallow_builder::graph::{Activation, Linear, Shape};
    use tallow_builder::{GraphBuilder, Network};

    use super::*;
    use crate::passes::inference;

    #[test]
    fn a_maps_mean_and_the_bias_make_the_logit_after_every_other_pass() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 9, 7));
        let x = g.conv2d("cam", g.input(), ConvSpec::new(5, 3)).unwrap();
        let x = g.batch_norm("bn", x, Default::default()).unwrap();
        let x = g.activation("silu", x, Activation::Silu).unwrap();
        let x = g.global_avg_pool("pool", x).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        let x = g.dropout("dropout", x, 0.3).unwrap();
        let x = g.linear("fc", x, Linear::uniform(4, 0.5)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 3, &Device::Cpu).unwrap();
        let (with_maps, weights) = append_cam(&graph, &weights).unwrap();
        let (with_maps, weights) = inference(&with_maps, &weights, true, false).unwrap();
        assert_eq!(with_maps.node(with_maps.side_outputs()[0]).name, "cam_");

        let bias = weights.get("fc.bias").clone();
        let network = Network::new(with_maps, weights);
        let images = Tensor::randn(0f32, 1.0, (2, 3, 9, 7), &Device::Cpu).unwrap();
        let [logits, maps]: [Tensor; 2] = network.forward_all(&images).unwrap().try_into().unwrap();
        assert_eq!(maps.dims(), [2, 4, 7, 5]);
        let mean = maps.mean((2, 3)).unwrap().broadcast_add(&bias).unwrap();
        let difference = (mean - &logits).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
    }

    #[test]
    fn a_network_that_ends_otherwise_is_refused() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 4, 4));
        let x = g.flatten("flatten", g.input()).unwrap();
        let x = g.linear("fc", x, Linear::uniform(4, 0.5)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 3, &Device::Cpu).unwrap();
        let text = append_cam(&graph, &weights).unwrap_err().to_string();
        assert!(text.contains("global average pooling") && text.contains("Grad-CAM"), "{text}");
    }
}
