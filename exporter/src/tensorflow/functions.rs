//! The functions that `tf.saved_model.load` offers: the network called as a function, for inference and for training,
//! and the serving signature. Variables are passed as arguments after the images.

use tallow_builder::Graph;
use tallow_tensorflow::proto::{ArgDef, DataType, FunctionDef, OpDef};

use super::attributes::{dtype, t};
use super::body::{Body, Finished, Place, Value, argument};
use super::lower::lower;
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
    let logits = lower(&mut body, graph, IMAGES.into(), training);
    function(name, body, vec![("logits", DataType::Float, logits)])
}

/// The serving signature's function: every output by name.
pub(super) fn signature(name: &str, graph: &Graph) -> Function {
    let mut body = Body::new(Place::Function);
    let logits = lower(&mut body, graph, IMAGES.into(), false);
    let outputs = outputs(&mut body, &logits);
    function(name, body, outputs.into())
}

/// What a server may ask for, sorted by name: classes [N], logits and probabilities [N, classes].
pub(super) fn outputs(body: &mut Body, logits: &str) -> [(&'static str, DataType, Value); 3] {
    let float = DataType::Float;
    let axis = body.constant("classes/axis", super::attributes::integers(&[], &[1]));
    let attributes = vec![t(float), dtype("Tidx", DataType::Int32), dtype("output_type", DataType::Int64)];
    let classes = body.node("ArgMax", "classes", &[logits, &axis], attributes);
    let probabilities = body.node("Softmax", "probabilities", &[logits], vec![t(float)]);
    let logits = body.node("Identity", "logits", &[logits], vec![t(float)]);
    [
        ("classes", DataType::Int64, classes),
        ("logits", float, logits),
        ("probabilities", float, probabilities),
    ]
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
