//! candle-onnx's evaluator, on a file whose operators are first put in terms it has.
//! It lacks GlobalAveragePool and padded pools; each rewriting below is exact, changes nothing but the operator, and
//! is told in the report. What cannot be rewritten is named as missing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_shape_proto::dimension::Value as DimensionValue;
use candle_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, type_proto};
use candle_onnx::simple_eval;
use ndarray::Array4;
use prost::Message;

use crate::outputs::Outputs;
use crate::report::Outcome;
use crate::verify::{to_array, to_tensor};

/// Runs every batch; beside the outputs, what had to be rewritten.
pub(crate) fn run(path: &Path, images: &[Array4<f32>]) -> (Result<Outputs, Outcome>, Option<String>) {
    let failed = |reason: String| Outcome::Failed { reason };
    let decoded = std::fs::read(path)
        .map_err(|e| failed(format!("{}: {e}", path.display())))
        .and_then(|bytes| ModelProto::decode(bytes.as_slice()).map_err(|e| failed(e.to_string())));
    let mut model = match decoded {
        Ok(model) => model,
        Err(outcome) => return (Err(outcome), None),
    };
    let rewritten = match adapt(&mut model) {
        Ok(rewritten) => rewritten,
        Err(missing) => return (Err(Outcome::NotRunnable { missing }), None),
    };
    let note = (!rewritten.is_empty()).then(|| format!("runs {}", rewritten.join(", ")));
    // The evaluator indexes inputs without asking whether they are there.
    let result =
        catch_unwind(AssertUnwindSafe(|| images.iter().map(|batch| evaluate(&model, batch)).collect()))
            .unwrap_or_else(|_| Err(candle_core::Error::msg("the evaluator panicked")));
    (result.map_err(|e| failed(one_line(&e.to_string()))), note)
}

fn evaluate(model: &ModelProto, images: &Array4<f32>) -> candle_core::Result<ndarray::ArrayD<f32>> {
    let graph = model.graph.as_ref().ok_or_else(|| candle_core::Error::msg("the file has no graph"))?;
    let name = |info: Option<&candle_onnx::onnx::ValueInfoProto>| {
        info.map(|info| info.name.clone()).ok_or_else(|| candle_core::Error::msg("no input or no output"))
    };
    let inputs = HashMap::from([(name(graph.input.first())?, to_tensor(images)?)]);
    let outputs = simple_eval(model, inputs)?;
    let output = outputs.get(&name(graph.output.first())?);
    to_array(output.ok_or_else(|| candle_core::Error::msg("the output did not come back"))?)
}

/// The first line holds the reason; the node's whole content follows.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split(" for op NodeProto").next().unwrap_or_default().to_owned()
}

/// Operators of the evaluator that a network can need.
const KNOWN: [&str; 24] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Div",
    "Dropout",
    "Flatten",
    "Gemm",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Sub",
    "Tanh",
];

/// Rewrites what the evaluator lacks.
///
/// # Errors
/// The operator that is missing, and what about it.
fn adapt(model: &mut ModelProto) -> Result<Vec<&'static str>, String> {
    let Some(graph) = &mut model.graph else { return Ok(vec![]) };
    free_batch(graph);
    let mut rewritten = Vec::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        let told = match node.op_type.as_str() {
            "GlobalAveragePool" => {
                node.op_type = "ReduceMean".into();
                node.attribute = vec![ints("axes", &[2, 3])];
                Some("GlobalAveragePool as ReduceMean")
            }
            "MaxPool" if !zero(attribute(&node, "pads")) => {
                nodes.push(reflection(&mut node, &mut graph.initializer)?);
                Some("MaxPool's padding as reflection")
            }
            "Gemm" if node.input.len() == 2 => {
                let name = format!("{}/no_bias", node.name);
                graph.initializer.push(TensorProto {
                    name: name.clone(),
                    dims: vec![1],
                    data_type: candle_onnx::onnx::tensor_proto::DataType::Float.into(),
                    float_data: vec![0.0],
                    ..Default::default()
                });
                node.input.push(name);
                Some("Gemm with a bias of 0")
            }
            "AveragePool" if !zero(attribute(&node, "pads")) => return Err("AveragePool pads".into()),
            "Conv" if !square(attribute(&node, "strides")) => return Err("Conv strides, unequal".into()),
            "Conv" if !square(attribute(&node, "dilations")) => return Err("Conv dilations, unequal".into()),
            "ReduceMean" if node.input.len() > 1 => return Err("ReduceMean axes, as an input".into()),
            op if !KNOWN.contains(&op) => return Err(op.to_owned()),
            _ => None,
        };
        nodes.push(node);
        rewritten.extend(told.filter(|told| !rewritten.contains(told)));
    }
    graph.node = nodes;
    Ok(rewritten)
}

/// Takes away a max pool's padding and returns a node that pads by reflection before it. That is the same as padding
/// that never wins while the padding is at most half the window: what is reflected lies in the window itself.
fn reflection(pool: &mut NodeProto, initializers: &mut Vec<TensorProto>) -> Result<NodeProto, String> {
    let kernel = attribute(pool, "kernel_shape").to_vec();
    let pads = attribute(pool, "pads").to_vec();
    let (&[height, width], &[top, left, bottom, right]) = (&kernel[..], &pads[..]) else {
        return Err("MaxPool of another rank".into());
    };
    if 2 * top.max(bottom) > height - 1 || 2 * left.max(right) > width - 1 {
        return Err("MaxPool pads, of more than half the window".into());
    }
    pool.attribute.retain(|attribute| attribute.name != "pads");
    let padded = format!("{}/reflected", pool.name);
    let pads = format!("{}/pads", pool.name);
    initializers.push(TensorProto {
        name: pads.clone(),
        dims: vec![8],
        data_type: candle_onnx::onnx::tensor_proto::DataType::Int64.into(),
        int64_data: vec![0, 0, top, left, 0, 0, bottom, right],
        ..Default::default()
    });
    let input = std::mem::replace(&mut pool.input[0], padded.clone());
    Ok(NodeProto {
        op_type: "Pad".into(),
        name: padded.clone(),
        input: vec![input, pads],
        output: vec![padded],
        attribute: vec![AttributeProto {
            name: "mode".into(),
            s: b"reflect".to_vec(),
            r#type: AttributeType::String.into(),
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// The evaluator takes a fixed batch at its word; the graph itself works for any.
fn free_batch(graph: &mut GraphProto) {
    let Some(info) = graph.input.first_mut().and_then(|input| input.r#type.as_mut()) else { return };
    if let Some(type_proto::Value::TensorType(tensor)) = &mut info.value
        && let Some(batch) = tensor.shape.as_mut().and_then(|shape| shape.dim.first_mut())
    {
        batch.value = Some(DimensionValue::DimParam("N".into()));
    }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: AttributeType::Ints.into(),
        ..Default::default()
    }
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(&[], |attribute| &attribute.ints)
}

fn zero(values: &[i64]) -> bool {
    values.iter().all(|&v| v == 0)
}

fn square(values: &[i64]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}
