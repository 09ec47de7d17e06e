//! The layers that do something else while training, for the function that fine-tuning calls.

use tallow_builder::graph::BatchNorm;
use tallow_tensorflow::proto::{DataType, TensorProto, TensorShape};

use super::attributes::{boolean, dtype, float, int, integers, scalar, t};
use super::body::{Body, Value};
use super::variables::Variable;

const FLOAT: DataType = DataType::Float;

/// Normalises with the batch's moments and moves the running ones towards them, by the share of the new sample; the
/// variance that TensorFlow's operation returns for that is the unbiased one, as PyTorch's is.
pub(super) fn batch_norm(
    body: &mut Body,
    bn: &BatchNorm,
    scope: &str,
    x: &str,
    variables: &[Variable],
) -> Value {
    let (gamma, beta) = (body.read(&variables[0]), body.read(&variables[1]));
    // The running moments are no input of a training pass.
    let mut empty = |name: &str| {
        let shape = Some(TensorShape::of([0]));
        let tensor = TensorProto { dtype: FLOAT.into(), tensor_shape: shape, ..Default::default() };
        body.constant(&format!("{scope}/{name}"), tensor)
    };
    let (mean, variance) = (empty("empty_mean"), empty("empty_variance"));
    let inputs = [x, &gamma, &beta, &mean, &variance];
    let attributes =
        vec![t(FLOAT), dtype("U", FLOAT), float("epsilon", bn.eps), boolean("is_training", true)];
    let outputs = [("y", 0), ("batch_mean", 1), ("batch_variance", 2)];
    let name = format!("{scope}/FusedBatchNormV3");
    let mut values = body.node_outputs("FusedBatchNormV3", &name, &inputs, attributes, &outputs);
    let share = body.constant(&format!("{scope}/momentum"), scalar(bn.momentum as f32));
    for (variable, batch) in variables[2..].iter().zip(&values[1..]) {
        let running = body.read(variable);
        let handle = body.handle(variable);
        let name = &variable.name;
        let difference = body.node("Sub", &format!("{name}/difference"), &[&running, batch], vec![t(FLOAT)]);
        let step = body.node("Mul", &format!("{name}/step"), &[&difference, &share], vec![t(FLOAT)]);
        let attributes = vec![dtype("dtype", FLOAT)];
        body.effect("AssignSubVariableOp", &format!("{name}/update"), &[&handle, &step], attributes);
    }
    values.swap_remove(0)
}

/// Zeroes elements with probability `p` and scales the rest by 1/(1−p).
pub(super) fn dropout(body: &mut Body, scope: &str, x: &str, p: f64) -> Value {
    let shape = shape(body, scope, x);
    drop(body, scope, x, &shape, p)
}

/// Zeroes whole samples with probability `p` and scales the rest by 1/(1−p); a sample has `rank` axes.
pub(super) fn stochastic_depth(body: &mut Body, scope: &str, x: &str, p: f64, rank: usize) -> Value {
    let shape = shape(body, scope, x);
    let mut vector = |name: &str, values: &[i32]| {
        body.constant(&format!("{scope}/{name}"), integers(&[values.len()], values))
    };
    let (begin, end, stride) = (vector("begin", &[0]), vector("end", &[1]), vector("stride", &[1]));
    let ones = vector("ones", &vec![1; rank]);
    let int32 = DataType::Int32;
    let attributes = vec![t(int32), dtype("Index", int32)];
    let samples =
        body.node("StridedSlice", &format!("{scope}/samples"), &[&shape, &begin, &end, &stride], attributes);
    let axis = body.constant(&format!("{scope}/axis"), integers(&[], &[0]));
    let attributes = vec![t(int32), dtype("Tidx", int32), int("N", 2)];
    let shape = body.node("ConcatV2", &format!("{scope}/mask_shape"), &[&samples, &ones, &axis], attributes);
    drop(body, scope, x, &shape, p)
}

fn shape(body: &mut Body, scope: &str, x: &str) -> Value {
    let attributes = vec![t(FLOAT), dtype("out_type", DataType::Int32)];
    body.node("Shape", &format!("{scope}/Shape"), &[x], attributes)
}

/// x times a random mask of `shape`.
fn drop(body: &mut Body, scope: &str, x: &str, shape: &str, p: f64) -> Value {
    let attributes = vec![t(DataType::Int32), dtype("dtype", FLOAT)];
    let random = body.node("RandomUniform", &format!("{scope}/RandomUniform"), &[shape], attributes);
    let limit = body.constant(&format!("{scope}/p"), scalar(p as f32));
    let kept = body.node("GreaterEqual", &format!("{scope}/kept"), &[&random, &limit], vec![t(FLOAT)]);
    let attributes = vec![dtype("SrcT", DataType::Bool), dtype("DstT", FLOAT)];
    let mask = body.node("Cast", &format!("{scope}/mask"), &[&kept], attributes);
    let factor = body.constant(&format!("{scope}/factor"), scalar((1.0 / (1.0 - p)) as f32));
    let scaled = body.node("Mul", &format!("{scope}/scaled"), &[x, &factor], vec![t(FLOAT)]);
    body.node("Mul", &format!("{scope}/Mul"), &[&scaled, &mask], vec![t(FLOAT)])
}
