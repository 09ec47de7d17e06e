//! The functions that `tf.saved_model.load` offers: the network called as a function, for inference and for training,
//! and the serving signature. Variables are passed as arguments after the images.

use tallow_builder::{CamHead, Graph};
use tallow_tensorflow::proto::{ArgDef, DataType, FunctionDef, OpDef, TensorShape};

use super::attributes::{dtype, t};
use super::body::{Body, Finished, Place, Value, argument};
use super::lower::{Scores, lower};
use super::variables::Variable;

/// What the input of every function is called.
pub(super) const IMAGES: &str = "images";

/// A function and the variables it takes, in the order of its arguments.
pub(super) struct Function {
    pub definition: FunctionDef,
    pub variables: Vec<Variable>,
}

impl Function {
    pub(super) fn name(&self) -> &str {
        &self.definition.signature.as_ref().expect("`function` gives every function one").name
    }
}

/// The network as a function from images to logits.
pub(super) fn call(name: &str, graph: &Graph, training: bool) -> Function {
    let mut body = Body::new(Place::Function);
    let scores = lower(&mut body, graph, IMAGES.into(), training, None);
    function(name, body, vec![("logits", DataType::Float, scores.logits)])
}

/// The serving signature's function: every output by name.
pub(super) fn signature(name: &str, graph: &Graph, cam: Option<CamHead>) -> Function {
    let mut body = Body::new(Place::Function);
    let scores = lower(&mut body, graph, IMAGES.into(), false, cam);
    let outputs = outputs(&mut body, &scores);
    function(name, body, outputs)
}

/// An output of the serving signature.
pub(super) struct Output {
    pub name: &'static str,
    pub dtype: DataType,
    pub shape: TensorShape,
}

/// What a server may ask for, sorted by name: class activation maps [N, rows, columns, classes] if there are any,
/// classes [N], logits and probabilities [N, classes].
pub(super) fn signature_outputs(graph: &Graph, batch: Option<usize>, cam: Option<CamHead>) -> Vec<Output> {
    let batch = batch.map_or(-1, |batch| batch as i64);
    let classes = graph.output_shape().elements() as i64;
    let output =
        |name, dtype, shape: &[i64]| Output { name, dtype, shape: TensorShape::of(shape.iter().copied()) };
    let scores = |name| output(name, DataType::Float, &[batch, classes]);
    let maps = cam.map(|head| {
        let [_, height, width] = head.shape(graph).dims()[..] else { unreachable!("maps have three axes") };
        output("cam", DataType::Float, &[batch, height as i64, width as i64, classes])
    });
    let rest = [output("classes", DataType::Int64, &[batch]), scores("logits"), scores("probabilities")];
    maps.into_iter().chain(rest).collect()
}

/// The values of [`signature_outputs`].
pub(super) fn outputs(body: &mut Body, scores: &Scores) -> Vec<(&'static str, DataType, Value)> {
    let logits = scores.logits.as_str();
    let float = DataType::Float;
    let axis = body.constant("classes/axis", super::attributes::integers(&[], &[1]));
    let attributes = vec![t(float), dtype("Tidx", DataType::Int32), dtype("output_type", DataType::Int64)];
    let classes = body.node("ArgMax", "classes", &[logits, &axis], attributes);
    let probabilities = body.node("Softmax", "probabilities", &[logits], vec![t(float)]);
    let logits = body.node("Identity", "logits", &[logits], vec![t(float)]);
    let maps = scores.maps.clone().map(|maps| ("cam", float, maps));
    let rest = [
        ("classes", DataType::Int64, classes),
        ("logits", float, logits),
        ("probabilities", float, probabilities),
    ];
    maps.into_iter().chain(rest).collect()
}

fn function(name: &str, body: Body, outputs: Vec<(&str, DataType, Value)>) -> Function {
    let Finished { nodes, variables, effects } = body.finish();
    let arg = |name: &str, dtype: DataType| ArgDef { name: name.into(), r#type: dtype.into() };
    let handles = (0..variables.len()).map(|index| arg(&argument(index), DataType::Resource));
    let signature = OpDef {
        name: name.into(),
        input_arg: std::iter::once(arg(IMAGES, DataType::Float)).chain(handles).collect(),
        output_arg: outputs.iter().map(|&(name, dtype, _)| arg(name, dtype)).collect(),
        is_stateful: true,
        control_output: effects.clone(),
    };
    let definition = FunctionDef {
        signature: Some(signature),
        node_def: nodes,
        ret: outputs.into_iter().map(|(name, _, value)| (name.to_owned(), value)).collect(),
        control_ret: effects.into_iter().map(|effect| (effect.clone(), effect)).collect(),
    };
    Function { definition, variables }
}
