//! The layer graph as TensorBoard's graph page shows it: a layer is a scope with its operation and its parameters.

use std::collections::BTreeMap;

use tallow_builder::graph::{Activation, Graph, Node, NodeId, Op};
use tallow_tensorflow::proto::{
    AttrValue, DataType, GraphDef, ListValue, NodeDef, TensorShape, VersionDef, attr_value::Value,
};

/// The network as a `GraphDef`, for looking at: `layer1.0.conv1` becomes `layer1/0/conv1/Conv2D` with `weight` beside
/// it, dimensions are those of the layer graph (channels before rows and columns), and the batch axis is unknown.
pub fn graph_def(graph: &Graph) -> GraphDef {
    let mut nodes = vec![];
    for (id, node) in graph.iter() {
        let scope = scope(node);
        let mut input: Vec<String> = node.inputs.iter().map(|&input| name(graph.node(input))).collect();
        for parameter in graph.layer_parameters(id) {
            let suffix = parameter.name.rsplit('.').next().unwrap_or_default();
            let path = format!("{scope}/{suffix}");
            input.push(path.clone());
            let shape = TensorShape::of(parameter.shape.iter().map(|&side| side as i64));
            nodes.push(node_def(path, "VariableV2", vec![], shape, BTreeMap::new()));
        }
        let batch = node.shape.with_batch(1).into_iter().skip(1).map(|side| side as i64);
        let shape = TensorShape::of(std::iter::once(-1).chain(batch));
        nodes.push(node_def(name(node), kind(graph, id), input, shape, attributes(&node.op)));
    }
    // What TensorFlow 2.x says of itself; viewers look at neither.
    let versions = Some(VersionDef { producer: 1882, min_consumer: 0 });
    GraphDef { node: nodes, library: None, versions }
}

fn scope(node: &Node) -> String {
    node.name.replace('.', "/")
}

/// A layer's operation within its scope; the input is no scope.
fn name(node: &Node) -> String {
    let scope = scope(node);
    match &node.op {
        Op::Input => scope,
        op => format!("{scope}/{}", op_name(op)),
    }
}

/// TensorFlow's name of an operation, where it has one.
fn op_name(op: &Op) -> &'static str {
    match op {
        Op::Input => "Placeholder",
        Op::Conv2d(_) => "Conv2D",
        Op::BatchNorm(_) => "FusedBatchNormV3",
        Op::Activation(Activation::Relu) => "Relu",
        Op::Activation(Activation::Relu6) => "Relu6",
        Op::Activation(Activation::LeakyRelu { .. }) => "LeakyRelu",
        Op::Activation(Activation::Sigmoid { .. }) => "Sigmoid",
        Op::Activation(Activation::Tanh) => "Tanh",
        Op::Activation(Activation::Silu) => "Silu",
        Op::Activation(Activation::HardSwish) => "HardSwish",
        Op::MaxPool(_) => "MaxPool",
        Op::AvgPool(_) => "AvgPool",
        Op::GlobalAvgPool => "Mean",
        Op::Linear(_) => "MatMul",
        Op::Add => "AddV2",
        Op::Mul => "Mul",
        Op::Flatten => "Reshape",
        Op::Dropout { .. } => "Dropout",
        Op::StochasticDepth { .. } => "StochasticDepth",
        Op::Softmax => "Softmax",
    }
}

/// As [`op_name`], and depthwise convolutions by their own name.
fn kind(graph: &Graph, id: NodeId) -> &'static str {
    let node = graph.node(id);
    match &node.op {
        Op::Conv2d(conv) if conv.groups > 1 && conv.groups == graph.node(node.inputs[0]).shape.channels() => {
            "DepthwiseConv2dNative"
        }
        op => op_name(op),
    }
}

fn attributes(op: &Op) -> BTreeMap<String, AttrValue> {
    let list = |numbers: &[usize]| {
        Value::List(ListValue { i: numbers.iter().map(|&n| n as i64).collect(), ..ListValue::default() })
    };
    let attributes: Vec<(&str, Value)> = match op {
        Op::Conv2d(conv) => vec![
            ("kernel", list(&conv.kernel)),
            ("strides", list(&conv.stride)),
            ("dilations", list(&conv.dilation)),
            ("padding_top_left_bottom_right", list(&conv.padding.onnx())),
            ("groups", Value::I(conv.groups as i64)),
        ],
        Op::MaxPool(pool) | Op::AvgPool(pool) => vec![
            ("ksize", list(&pool.kernel)),
            ("strides", list(&pool.stride)),
            ("padding_top_left_bottom_right", list(&pool.padding.onnx())),
        ],
        Op::BatchNorm(norm) => {
            vec![("epsilon", Value::F(norm.eps as f32)), ("momentum", Value::F(norm.momentum as f32))]
        }
        Op::Dropout { p } | Op::StochasticDepth { p } => vec![("rate", Value::F(*p as f32))],
        Op::Activation(Activation::LeakyRelu { slope } | Activation::Sigmoid { slope }) => {
            vec![("slope", Value::F(*slope as f32))]
        }
        _ => vec![],
    };
    attributes.into_iter().map(|(name, value)| (name.into(), AttrValue { value: Some(value) })).collect()
}

fn node_def(
    name: String,
    op: &str,
    input: Vec<String>,
    shape: TensorShape,
    mut attr: BTreeMap<String, AttrValue>,
) -> NodeDef {
    let shapes = ListValue { shape: vec![shape], ..ListValue::default() };
    attr.insert("T".into(), AttrValue { value: Some(Value::Type(DataType::Float.into())) });
    attr.insert("_output_shapes".into(), AttrValue { value: Some(Value::List(shapes)) });
    NodeDef { name, op: op.into(), input, attr }
}

#[cfg(test)]
mod tests {
    use tallow_models::Options;

    use super::*;

    #[test]
    fn every_layer_and_parameter_is_a_node_and_every_input_is_one() {
        for network in ["resnet18", "efficientnet_b0", "plain_cnn"] {
            let graph = tallow_models::build(network, &Options::new(10, 64)).unwrap();
            let def = graph_def(&graph);
            assert_eq!(def.node.len(), graph.nodes().len() + graph.parameters().len());
            let names: std::collections::HashSet<&str> =
                def.node.iter().map(|node| node.name.as_str()).collect();
            assert_eq!(names.len(), def.node.len());
            for node in &def.node {
                assert!(node.input.iter().all(|input| names.contains(input.as_str())), "{node:?}");
                assert!(node.attr.contains_key("_output_shapes"));
            }
        }
    }
}
