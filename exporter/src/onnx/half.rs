//! float16: weights and computation of a lowered graph in half precision, its inputs and outputs as they were.
//!
//! Three things stay float32, each between casts. The normalisation of bytes, whose result would lose a digit before the
//! first layer sees it. Batch normalisation that was not folded, whose variances leave float16's range. Softmax, whose
//! exponentials are of a vector only, so that exactness costs nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use candle_core::{DType, Tensor};

use super::INPUT;
use super::proto::{AttributeProto, AttributeType, FLOAT, FLOAT16, GraphProto, NodeProto};
use crate::error::{Error, Result};

/// The largest finite number of float16.
const LARGEST: f32 = 65504.0;

/// Operators that compute in float32 all the same.
const KEPT: [&str; 2] = ["BatchNormalization", "Softmax"];

/// Initializers by name, in the order of their first use.
type Initializers = Vec<(String, Tensor)>;

/// The graph in float16, and its initializers.
///
/// # Errors
/// [`Error::Layer`] for a weight beyond float16's range, which would become infinite.
pub(super) fn halve(graph: GraphProto, initializers: Initializers) -> Result<(GraphProto, Initializers)> {
    // The images are the graph's input, or the last value of the normalisation, all of which stays.
    let first = graph.node.iter().position(|node| node.output == [INPUT]).map_or(0, |at| at + 1);
    let is_kept = |at: usize, node: &NodeProto| at < first || KEPT.contains(&node.op_type.as_str());
    let users = |kept: bool| -> HashSet<&String> {
        let nodes = graph.node.iter().enumerate().filter(|(at, node)| is_kept(*at, node) == kept);
        nodes.flat_map(|(_, node)| &node.input).collect()
    };
    let (in_single, in_half) = (users(true), users(false));
    let mut halving = Halving::new(&graph);
    let mut constants = Vec::with_capacity(initializers.len());
    for (name, tensor) in initializers {
        // A float that layers of either kind take stays as it is; a cast serves the others.
        if tensor.dtype() == DType::F32 && in_half.contains(&name) && !in_single.contains(&name) {
            let tensor = half(&name, &tensor)?;
            halving.types.insert(name.clone(), FLOAT16);
            constants.push((name, tensor));
        } else {
            if tensor.dtype() == DType::F32 {
                halving.types.insert(name.clone(), FLOAT);
            }
            constants.push((name, tensor));
        }
    }
    let outputs: HashSet<&String> = graph.output.iter().map(|output| &output.name).collect();
    for (at, node) in graph.node.iter().enumerate() {
        halving.node(node.clone(), is_kept(at, node), &outputs);
    }
    Ok((GraphProto { node: halving.nodes, ..graph }, constants))
}

/// The tensor in float16, rounded to nearest.
fn half(name: &str, tensor: &Tensor) -> Result<Tensor> {
    let values = tensor.abs()?.flatten_all()?;
    let largest = if tensor.elem_count() == 0 { 0.0 } else { values.max(0)?.to_scalar::<f32>()? };
    // Numbers up to half a step above the largest are rounded to it.
    if largest >= LARGEST + 16.0 {
        let problem =
            format!("`{name}` reaches {largest:.3e} and float16 ends at {LARGEST}: export with --dtype f32");
        let layer = name.rsplit_once('.').map_or(name, |(layer, _)| layer).to_owned();
        return Err(Error::Layer { layer, problem });
    }
    Ok(tensor.to_dtype(DType::F16)?)
}

struct Halving {
    nodes: Vec<NodeProto>,
    names: HashSet<String>,
    /// FLOAT or FLOAT16 for each value and initializer that is a float.
    types: HashMap<String, i32>,
    /// Casts that are there already: from a value to its copy of the other type.
    casts: BTreeMap<String, String>,
}

impl Halving {
    fn new(graph: &GraphProto) -> Self {
        let values = graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output));
        let names = values.chain(graph.node.iter().map(|node| &node.name)).cloned().collect();
        let is_float = |name: &&str| graph.input.iter().any(|input| input.name == **name);
        let types = [INPUT].iter().filter(|name| is_float(name)).map(|name| ((*name).to_owned(), FLOAT));
        Self { nodes: vec![], names, types: types.collect(), casts: BTreeMap::new() }
    }

    /// Adds a node of the graph, with the casts that it needs before it, and after it where it gives an output.
    fn node(&mut self, mut node: NodeProto, kept: bool, outputs: &HashSet<&String>) {
        let wanted = if kept { FLOAT } else { FLOAT16 };
        for input in &mut node.input {
            if self.types.get(input).is_some_and(|&r#type| r#type != wanted) {
                *input = self.cast(input, wanted);
            }
        }
        let given = node.output.clone();
        for output in &mut node.output {
            if !kept && outputs.contains(output) {
                *output = self.unique(&format!("{output}/float16"));
            }
            self.types.insert(output.clone(), wanted);
        }
        let found = node.output.clone();
        self.nodes.push(node);
        for (half, output) in found.into_iter().zip(given) {
            if half != output {
                let name = self.unique(&format!("{output}/float32"));
                self.nodes.push(cast_node(name, &half, &output, FLOAT));
                self.types.insert(output, FLOAT);
            }
        }
    }

    /// The value in another type: the name of a cast's output, made on the first use.
    fn cast(&mut self, value: &str, to: i32) -> String {
        if let Some(known) = self.casts.get(value) {
            return known.clone();
        }
        let suffix = if to == FLOAT { "float32" } else { "float16" };
        let name = self.unique(&format!("{value}/{suffix}"));
        self.nodes.push(cast_node(name.clone(), value, &name, to));
        self.types.insert(name.clone(), to);
        self.casts.insert(value.to_owned(), name.clone());
        name
    }

    fn unique(&mut self, name: &str) -> String {
        let mut name = name.to_owned();
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}

fn cast_node(name: String, from: &str, to: &str, r#type: i32) -> NodeProto {
    let attribute = AttributeProto {
        name: "to".into(),
        r#type: AttributeType::Int.into(),
        i: Some(r#type.into()),
        ..Default::default()
    };
    NodeProto {
        input: vec![from.into()],
        output: vec![to.into()],
        name,
        op_type: "Cast".into(),
        attribute: vec![attribute],
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use prost::Message;
    use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Shape};
    use tallow_builder::{Graph, GraphBuilder, Weights};
    use tallow_input::{Dtype, ModelCard, Preprocess};

    use super::super::proto::ModelProto;
    use super::super::{OnnxOptions, export_onnx};
    use super::*;

    fn network() -> (Graph, Weights) {
        let mut g = GraphBuilder::new("tiny", Shape::map(3, 8, 8));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3)).unwrap();
        let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
        let x = g.activation("act", x, Activation::Relu6).unwrap();
        let x = g.global_avg_pool("pool", x).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        let x = g.linear("fc", x, Linear::uniform(2, 0.1)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        (graph, weights)
    }

    fn graph(options: OnnxOptions) -> GraphProto {
        let (graph, weights) = network();
        let card = ModelCard::new("tiny", vec!["a".into(), "b".into()], Preprocess::imagenet(8, 8));
        let options = OnnxOptions { dtype: Dtype::F16, ..options };
        let bytes = export_onnx(&graph, &weights, Some(&card), &options).unwrap();
        let model = ModelProto::decode(bytes.as_slice()).unwrap();
        assert!(model.metadata_props.iter().any(|p| (&*p.key, &*p.value) == ("tallow.dtype", "f16")));
        model.graph.unwrap()
    }

    fn ops(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(|node| node.op_type.as_str()).collect()
    }

    #[test]
    fn casts_stand_at_the_borders_and_around_what_stays() {
        let folded = graph(OnnxOptions::default());
        assert_eq!(ops(&folded), ["Cast", "Conv", "Clip", "ReduceMean", "Flatten", "Gemm", "Cast"]);
        assert_eq!(folded.node[0].input, ["images"]);
        assert_eq!(folded.node[6].output, ["logits"]);
        assert!(folded.initializer.iter().all(|tensor| tensor.data_type == FLOAT16));
        let of_inputs = [&folded.input[0], &folded.output[0]].map(|value| value.r#type.clone().unwrap());
        assert!(of_inputs.iter().all(|value| value.tensor_type.as_ref().unwrap().elem_type == FLOAT));

        let unfolded = graph(OnnxOptions { fold: false, ..Default::default() });
        assert_eq!(ops(&unfolded)[..5], ["Cast", "Conv", "Cast", "BatchNormalization", "Cast"]);
        let of = |name: &str| unfolded.initializer.iter().find(|t| t.name == name).unwrap().data_type;
        assert_eq!((of("bn.running_var"), of("conv.weight")), (FLOAT, FLOAT16));

        let softmax = graph(OnnxOptions { softmax: true, ..Default::default() });
        assert_eq!(ops(&softmax)[5..], ["Gemm", "Cast", "Softmax"]);
        assert_eq!(softmax.node[7].output, ["probabilities"]);
    }

    #[test]
    fn bytes_are_normalised_in_float32_and_maps_come_out_so() {
        let graph = graph(OnnxOptions { embed_preprocessing: true, cam: true, ..Default::default() });
        assert_eq!(ops(&graph)[..6], ["Cast", "Transpose", "Mul", "Add", "Cast", "Conv"]);
        assert_eq!(graph.node[4].input, ["images"]);
        let of = |name: &str| graph.initializer.iter().find(|t| t.name == name).unwrap().data_type;
        assert_eq!((of("pixels/scale"), of("fc.weight")), (FLOAT, FLOAT16));
        let names: HashSet<&String> = graph.node.iter().map(|node| &node.name).collect();
        assert_eq!(names.len(), graph.node.len(), "names of nodes are unique");
        let last = graph.node.last().unwrap();
        assert_eq!((last.op_type.as_str(), last.output[0].as_str()), ("Cast", "cam"));
    }

    #[test]
    fn a_weight_beyond_float16_is_refused_by_name() {
        let values = Tensor::new(&[1f32, -7e4], &Device::Cpu).unwrap();
        let text = half("conv1.weight", &values).unwrap_err().to_string();
        assert_eq!(
            text,
            "layer `conv1`: `conv1.weight` reaches 7.000e4 and float16 ends at 65504: export with --dtype f32"
        );
        let rounded = half("w", &Tensor::new(&[65510f32], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(rounded.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(), [LARGEST]);
    }
}
