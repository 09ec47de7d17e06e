//! candle-onnx's evaluator, on a file whose operators are first put in terms it has.
//! It lacks GlobalAveragePool and padded pools; each rewriting below is exact, changes nothing but the operator, and
//! is told in the report. What cannot be rewritten is named as missing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_shape_proto::dimension::Value as DimensionValue;
use candle_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, type_proto};
use candle_onnx::simple_eval;
use ndarray::{Array4, ArrayD, Axis, Slice, concatenate, s};
use tallow_runtime::{Dtype, Element, ModelInfo};

use crate::report::Outcome;
use crate::tensors::{to_array, to_tensor};

/// A model in the evaluator.
pub(crate) struct CandleOnnx {
    model: ModelProto,
    input: String,
    outputs: Vec<String>,
    fixed_batch: Option<usize>,
    rewritten: Vec<&'static str>,
}

impl CandleOnnx {
    /// # Errors
    /// The operator that is missing, and what about it.
    pub(crate) fn new(info: &ModelInfo, model: &ModelProto) -> Result<Self, String> {
        if info.element == Element::Byte {
            return Err("uint8 images".into());
        }
        if info.dtype == Dtype::F16 {
            return Err("float16".into());
        }
        let mut model = model.clone();
        let rewritten = adapt(&mut model)?;
        let outputs = info.outputs.iter().map(|output| output.name.clone()).collect();
        let (input, fixed_batch) = (info.input.name.clone(), info.fixed_batch());
        Ok(Self { model, input, outputs, fixed_batch, rewritten })
    }

    /// What had to be put in other terms.
    pub(crate) fn rewritten(&self) -> Option<String> {
        (!self.rewritten.is_empty()).then(|| format!("runs {}", self.rewritten.join(", ")))
    }

    /// The float32 outputs for a batch.
    pub(crate) fn run(&self, images: &Array4<f32>) -> Result<Vec<ArrayD<f32>>, Outcome> {
        // The evaluator indexes inputs without asking whether they are there.
        let result = catch_unwind(AssertUnwindSafe(|| self.in_pieces(images)))
            .unwrap_or_else(|_| Err(candle_core::Error::msg("the evaluator panicked")));
        result.map_err(|error| {
            let reason = one_line(&error.to_string());
            // What it has no code for says nothing about the file.
            if reason.contains("unsupported") || reason.contains("not supported") {
                Outcome::NotRunnable { missing: reason }
            } else {
                Outcome::Failed { reason }
            }
        })
    }

    /// As the serving engines do: a fixed batch in pieces of its size, the last filled up with zeros.
    fn in_pieces(&self, images: &Array4<f32>) -> candle_core::Result<Vec<ArrayD<f32>>> {
        let Some(batch) = self.fixed_batch.filter(|&batch| batch != images.len_of(Axis(0))) else {
            return self.evaluate(images);
        };
        let mut pieces = vec![vec![]; self.outputs.len()];
        for piece in images.axis_chunks_iter(Axis(0), batch) {
            let (rows, channels, height, width) = piece.dim();
            let mut full = Array4::zeros((batch, channels, height, width));
            full.slice_mut(s![..rows, .., .., ..]).assign(&piece);
            for (pieces, output) in pieces.iter_mut().zip(self.evaluate(&full)?) {
                if output.shape().first() != Some(&batch) {
                    return Err(candle_core::Error::msg("an output does not have a row an image"));
                }
                pieces.push(output.slice_axis(Axis(0), Slice::from(..rows)).to_owned());
            }
        }
        let join = |pieces: Vec<ArrayD<f32>>| {
            let views: Vec<_> = pieces.iter().map(|piece| piece.view()).collect();
            concatenate(Axis(0), &views).map_err(candle_core::Error::wrap)
        };
        pieces.into_iter().map(join).collect()
    }

    fn evaluate(&self, images: &Array4<f32>) -> candle_core::Result<Vec<ArrayD<f32>>> {
        let inputs = HashMap::from([(self.input.clone(), to_tensor(images)?)]);
        let values = simple_eval(&self.model, inputs)?;
        let output = |name: &String| {
            let value = values.get(name);
            to_array(value.ok_or_else(|| candle_core::Error::msg(format!("no output `{name}` came back")))?)
        };
        self.outputs.iter().map(output).collect()
    }
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
            "ReduceMean" if node.input.len() > 1 => {
                let axes = constant(&node.input[1], &nodes, &graph.initializer);
                let axes = axes.ok_or("ReduceMean axes, computed")?;
                node.input.truncate(1);
                node.attribute.retain(|attribute| attribute.name != "noop_with_empty_axes");
                node.attribute.push(ints("axes", &axes));
                Some("ReduceMean with its axes as an attribute")
            }
            op if !KNOWN.contains(&op) => return Err(op.to_owned()),
            _ => None,
        };
        nodes.push(node);
        rewritten.extend(told.filter(|told| !rewritten.contains(told)));
    }
    graph.node = nodes;
    Ok(rewritten)
}

/// The integers that an initializer or a Constant node holds.
fn constant(name: &str, nodes: &[NodeProto], initializers: &[TensorProto]) -> Option<Vec<i64>> {
    let by_node = || {
        let node =
            nodes.iter().find(|node| node.op_type == "Constant" && node.output.iter().any(|o| o == name))?;
        node.attribute.iter().find(|attribute| attribute.name == "value")?.t.as_ref()
    };
    let tensor = initializers.iter().find(|tensor| tensor.name == name).or_else(by_node)?;
    if tensor.raw_data.is_empty() {
        return Some(tensor.int64_data.clone());
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_le_bytes);
    tensor.raw_data.chunks(8).map(number).collect()
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
