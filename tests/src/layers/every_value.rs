//! A copy of a model that gives every float32 value which depends on its images as an output.
//! ONNX does not say the types of inner values; they follow from the operators, and from `value_info` where a file has
//! it.

use std::collections::{HashMap, HashSet};

use candle_onnx::onnx::tensor_proto::DataType;
use candle_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, type_proto,
};

/// A value of the graph: a layer's output, or a step within a layer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) name: String,
    /// The node's name, which people know a layer by; the value's where it has none.
    pub(super) layer: String,
    /// The operator that gives it.
    pub(super) op: String,
    /// The operator's attributes, such as `kernel_shape=3,3 pads=1,1,1,1`.
    pub(super) attributes: String,
    /// The values it is computed from; weights are none.
    pub(super) inputs: Vec<String>,
}

/// Adds the outputs; the values in the order in which they are computed. `images` is the graph's input.
pub(super) fn expose(model: &ModelProto, images: &str) -> (ModelProto, Vec<Value>) {
    let mut model = model.clone();
    let Some(graph) = &mut model.graph else { return (model, vec![]) };
    let types = types(graph);
    let mut depend = HashSet::from([images.to_owned()]);
    let mut known: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut values = vec![];
    for node in &graph.node {
        let inputs: Vec<String> = node.input.iter().filter(|name| depend.contains(*name)).cloned().collect();
        if inputs.is_empty() {
            continue;
        }
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            depend.insert(name.clone());
            if types.get(name.as_str()) != Some(&FLOAT) {
                continue;
            }
            if known.insert(name.clone()) {
                graph.output.push(float(name));
            }
            let attributes = node.attribute.iter().filter_map(text).collect::<Vec<_>>().join(" ");
            let layer = if node.name.is_empty() { name } else { &node.name };
            values.push(Value {
                name: name.clone(),
                layer: layer.clone(),
                op: node.op_type.clone(),
                attributes,
                inputs: inputs.clone(),
            });
        }
    }
    // Some name the batch axis, which keeps engines from fixing it.
    graph.value_info.clear();
    (model, values)
}

const FLOAT: i32 = DataType::Float as i32;

fn float(name: &str) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: FLOAT, shape: None };
    let value = Some(type_proto::Value::TensorType(tensor));
    let r#type = Some(TypeProto { value, ..Default::default() });
    ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

/// The element types of all values whose types are known.
fn types(graph: &GraphProto) -> HashMap<String, i32> {
    let mut types: HashMap<String, i32> =
        graph.initializer.iter().map(|tensor| (tensor.name.clone(), tensor.data_type)).collect();
    for info in graph.input.iter().chain(&graph.value_info).chain(&graph.output) {
        if let Some(type_proto::Value::TensorType(tensor)) =
            info.r#type.as_ref().and_then(|r#type| r#type.value.as_ref())
            && tensor.elem_type != 0
        {
            types.insert(info.name.clone(), tensor.elem_type);
        }
    }
    for node in &graph.node {
        let inferred = infer(node, &types);
        // Only the first of several outputs is of the type the rules below speak of: a pool's second one is indices.
        let alike = if node.op_type == "Split" { node.output.len() } else { 1 };
        for name in node.output.iter().take(alike) {
            if let (Some(inferred), false) = (inferred, types.contains_key(name)) {
                types.insert(name.clone(), inferred);
            }
        }
    }
    types
}

/// The type of an operator's first output; `None` where only its author knows.
fn infer(node: &NodeProto, types: &HashMap<String, i32>) -> Option<i32> {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let like = |at: usize| node.input.get(at).and_then(|name| types.get(name)).copied();
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        return None;
    }
    match node.op_type.as_str() {
        "If" | "Loop" | "Scan" | "QuantizeLinear" | "DynamicQuantizeLinear" => None,
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(DataType::Int64.into()),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Not" | "And" | "Or" | "IsNaN"
        | "IsInf" => Some(DataType::Bool.into()),
        "ConvInteger" | "MatMulInteger" => Some(DataType::Int32.into()),
        "Cast" => attribute("to").map(|attribute| attribute.i as i32),
        "Constant" => match node.attribute.first()? {
            attribute if attribute.name.starts_with("value_float") => Some(FLOAT),
            attribute if attribute.name.starts_with("value_int") => Some(DataType::Int64.into()),
            attribute => attribute.t.as_ref().map(|tensor| tensor.data_type),
        },
        "ConstantOfShape" => {
            Some(attribute("value").and_then(|value| value.t.as_ref()).map_or(FLOAT, |t| t.data_type))
        }
        "DequantizeLinear" | "Where" | "CastLike" => like(1),
        _ => like(0),
    }
}

/// An attribute in short; none where it holds no numbers or words.
fn text(attribute: &AttributeProto) -> Option<String> {
    use candle_onnx::onnx::attribute_proto::AttributeType;
    let list = |values: Vec<String>| values.join(",");
    let value = match attribute.r#type() {
        AttributeType::Float => attribute.f.to_string(),
        AttributeType::Int => attribute.i.to_string(),
        AttributeType::String => String::from_utf8_lossy(&attribute.s).into_owned(),
        AttributeType::Ints => list(attribute.ints.iter().map(i64::to_string).collect()),
        AttributeType::Floats => list(attribute.floats.iter().map(f32::to_string).collect()),
        _ => return None,
    };
    Some(format!("{}={value}", attribute.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: op.into(),
            input: inputs.iter().map(|&name| name.into()).collect(),
            output: outputs.iter().map(|&name| name.into()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn floats_that_depend_on_the_images_become_outputs() {
        let graph = GraphProto {
            node: vec![
                node("Relu", &["images"], &["a"]),
                node("Shape", &["a"], &["shape"]),
                node("Relu", &["weight"], &["constant"]),
                node("MaxPool", &["a"], &["b", "indices"]),
                node("Custom", &["b"], &["typed"]),
                node("Split", &["typed"], &["c", "d"]),
                node("Reshape", &["c", "shape"], &["e"]),
                node("Add", &["e", "constant"], &["logits"]),
            ],
            input: vec![float("images")],
            output: vec![float("logits")],
            value_info: vec![float("typed")],
            initializer: vec![candle_onnx::onnx::TensorProto {
                name: "weight".into(),
                data_type: FLOAT,
                ..Default::default()
            }],
            ..Default::default()
        };
        let (model, values) = expose(&ModelProto { graph: Some(graph), ..Default::default() }, "images");
        let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "typed", "c", "d", "e", "logits"]);
        let outputs: Vec<String> =
            model.graph.unwrap().output.into_iter().map(|output| output.name).collect();
        assert_eq!(outputs, ["logits", "a", "b", "typed", "c", "d", "e"]);
        assert_eq!(values[5].inputs, ["c", "shape"]);
        assert_eq!(values[6].inputs, ["e"]);
    }
}
