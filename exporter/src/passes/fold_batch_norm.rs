//! Folds batch normalisation into the convolution before it (Jacob et al. 2018, section 3.2):
//! w' = w·γ/√(σ² + eps), b' = (b − μ)·γ/√(σ² + eps) + β, computed in f64.
//! A batch norm after anything else, or after a convolution whose output is used elsewhere too, stays.

use std::collections::{BTreeMap, HashSet};

use candle_core::Tensor;
use tallow_builder::graph::Op;
use tallow_builder::{Graph, NodeId, Weights};

use super::{rewrite, select};
use crate::error::{Error, Result};

/// The network without the batch norms that a convolution can take over. The convolution keeps its name and has a
/// bias; what took the batch norm's output takes the convolution's.
///
/// # Errors
/// Where a running variance is so negative, or not a number, that there is no square root; it names the layer.
pub fn fold_batch_norm(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights)> {
    let consumers = graph.consumers();
    let foldable = |id: NodeId| {
        let node = graph.node(id);
        let input = *node.inputs.first()?;
        let conv = matches!(graph.node(input).op, Op::Conv2d(_)) && consumers[input.index()] == 1;
        (conv && matches!(node.op, Op::BatchNorm(_))).then_some(input)
    };
    let mut convolutions = HashSet::new();
    let mut changed = BTreeMap::new();
    for (id, _) in graph.iter() {
        if let Some(conv) = foldable(id) {
            convolutions.insert(conv);
            let (weight, bias) = folded(graph, weights, conv, id)?;
            let name = &graph.node(conv).name;
            changed.insert(format!("{name}.weight"), weight);
            changed.insert(format!("{name}.bias"), bias);
        }
    }
    let graph = rewrite(graph, |builder, id, node, inputs| {
        if foldable(id).is_some() {
            return Ok(inputs[0]);
        }
        let mut op = node.op.clone();
        if let Op::Conv2d(conv) = &mut op
            && convolutions.contains(&id)
        {
            conv.bias = true;
        }
        Ok(builder.add(&node.name, op, inputs)?)
    })?;
    let weights = select(&graph, weights, changed)?;
    Ok((graph, weights))
}

/// Weight and bias of the convolution with the batch norm in them.
fn folded(graph: &Graph, weights: &Weights, conv: NodeId, bn: NodeId) -> Result<(Tensor, Tensor)> {
    let (conv, bn) = (graph.node(conv), graph.node(bn));
    let (Op::Conv2d(convolution), Op::BatchNorm(batch_norm)) = (&conv.op, &bn.op) else {
        unreachable!("the caller passes a convolution and a batch norm");
    };
    let statistic = |suffix: &str| values(weights.get(&format!("{}.{suffix}", bn.name)));
    let (gamma, beta) = (statistic("weight")?, statistic("bias")?);
    let (mean, var) = (statistic("running_mean")?, statistic("running_var")?);
    let weight = weights.get(&format!("{}.weight", conv.name));
    let mut filters = values(weight)?;
    let before = match convolution.bias {
        true => values(weights.get(&format!("{}.bias", conv.name)))?,
        false => vec![0.0; convolution.out_channels],
    };

    let mut bias = Vec::with_capacity(convolution.out_channels);
    let length = filters.len() / convolution.out_channels;
    for (c, filter) in filters.chunks_exact_mut(length).enumerate() {
        let spread = f64::from(var[c]) + batch_norm.eps;
        if !(spread > 0.0 && spread.is_finite()) {
            let problem = format!("running_var of channel {c} is {}, which has no square root", var[c]);
            return Err(Error::Layer { layer: bn.name.clone(), problem });
        }
        let scale = f64::from(gamma[c]) / spread.sqrt();
        filter.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
        bias.push(((f64::from(before[c]) - f64::from(mean[c])) * scale + f64::from(beta[c])) as f32);
    }
    let filters = Tensor::from_vec(filters, weight.dims(), weight.device())?;
    let bias = Tensor::from_vec(bias, convolution.out_channels, weight.device())?;
    Ok((filters, bias))
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Shape};
    use tallow_builder::{GraphBuilder, Rng};

    use super::*;

    /// Weights whose batch norms do something.
    fn random(graph: &Graph, seed: u64) -> Weights {
        let mut rng = Rng::new(seed);
        let mut weights = Weights::init(graph, seed, &Device::Cpu).unwrap();
        for parameter in graph.parameters().iter().filter(|p| p.shape.len() == 1) {
            let values: Vec<f32> =
                (0..parameter.elements()).map(|_| rng.uniform_in(0.5, 1.5) as f32).collect();
            weights.set(&parameter.name, Tensor::new(values, &Device::Cpu).unwrap());
        }
        weights
    }

    fn scalar(weights: &Weights, name: &str, index: usize) -> f64 {
        f64::from(values(weights.get(name)).unwrap()[index])
    }

    #[test]
    fn a_folded_filter_gives_what_the_pair_gave() {
        for bias in [false, true] {
            let mut g = GraphBuilder::new("net", Shape::map(2, 1, 1));
            let spec = if bias { ConvSpec::new(3, 1).bias() } else { ConvSpec::new(3, 1) };
            let x = g.conv2d("conv", g.input(), spec).unwrap();
            let x = g.batch_norm("bn", x, BatchNorm { eps: 1e-3, ..Default::default() }).unwrap();
            let x = g.activation("relu", x, Activation::Relu).unwrap();
            let graph = g.finish(x).unwrap();
            let weights = random(&graph, 3);
            let (folded, tensors) = fold_batch_norm(&graph, &weights).unwrap();

            let names: Vec<&str> = folded.nodes().iter().map(|n| n.name.as_str()).collect();
            assert_eq!(names, ["input", "conv", "relu"]);
            let names: Vec<&str> = tensors.iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["conv.bias", "conv.weight"]);
            for c in 0..3 {
                let (x0, x1) = (0.7, -1.3);
                let filter = |w: &Weights, i| scalar(w, "conv.weight", 2 * c + i);
                let offset = if bias { scalar(&weights, "conv.bias", c) } else { 0.0 };
                let conv = filter(&weights, 0) * x0 + filter(&weights, 1) * x1 + offset;
                let bn = |suffix: &str| scalar(&weights, &format!("bn.{suffix}"), c);
                let expected = (conv - bn("running_mean")) / (bn("running_var") + 1e-3).sqrt() * bn("weight")
                    + bn("bias");
                let actual =
                    filter(&tensors, 0) * x0 + filter(&tensors, 1) * x1 + scalar(&tensors, "conv.bias", c);
                assert!((actual - expected).abs() < 1e-6, "{actual} against {expected}");
            }
        }
    }

    #[test]
    fn a_convolution_with_another_consumer_keeps_its_batch_norm() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
        let conv = g.conv2d("conv", g.input(), ConvSpec::new(3, 1)).unwrap();
        let bn = g.batch_norm("bn", conv, BatchNorm::default()).unwrap();
        let sum = g.sum("add", conv, bn).unwrap();
        let graph = g.finish(sum).unwrap();
        let weights = random(&graph, 1);
        let (same, tensors) = fold_batch_norm(&graph, &weights).unwrap();
        assert_eq!(same, graph);
        assert_eq!(tensors.iter().count(), weights.iter().count());
    }

    #[test]
    fn a_batch_norm_after_something_else_stays_and_the_next_one_goes() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
        let x = g.batch_norm("bn0", g.input(), BatchNorm::default()).unwrap();
        let x = g.activation("relu", x, Activation::Relu).unwrap();
        let x = g.conv2d("conv1", x, ConvSpec::new(4, 3)).unwrap();
        let x = g.batch_norm("bn1", x, BatchNorm::default()).unwrap();
        let graph = g.finish(x).unwrap();
        let (folded, _) = fold_batch_norm(&graph, &random(&graph, 2)).unwrap();
        let names: Vec<&str> = folded.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["input", "bn0", "relu", "conv1"]);
        assert_eq!(folded.node(folded.output()).name, "conv1");
    }

    #[test]
    fn a_variance_without_a_square_root_names_its_layer() {
        let mut g = GraphBuilder::new("net", Shape::map(3, 8, 8));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(2, 1)).unwrap();
        let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
        let graph = g.finish(x).unwrap();
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let mut weights = random(&graph, 2);
            weights.set("bn.running_var", Tensor::new(vec![1.0, bad], &Device::Cpu).unwrap());
            let text = fold_batch_norm(&graph, &weights).unwrap_err().to_string();
            assert_eq!(
                text,
                format!("layer `bn`: running_var of channel 1 is {bad}, which has no square root")
            );
        }
    }
}
