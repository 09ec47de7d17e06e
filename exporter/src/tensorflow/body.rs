//! A list of operations in the making: a graph's, or a function's, which write references differently.

use std::collections::HashSet;

use tallow_tensorflow::proto::{DataType, NodeDef, TensorProto};

use super::attributes::{Attribute, dtype, tensor};
use super::variables::Variable;

/// Where the operations will stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a graph: `node:1`, and variables are nodes.
    Graph,
    /// In a function: `node:output:1`, and variables are arguments.
    Function,
}

/// A reference to an output of a node, as it is written where the body stands.
pub(super) type Value = String;

/// Operations and the variables they use.
pub(super) struct Body {
    place: Place,
    nodes: Vec<NodeDef>,
    names: HashSet<String>,
    variables: Vec<Variable>,
    effects: Vec<String>,
}

/// What a body has become.
pub(super) struct Finished {
    pub nodes: Vec<NodeDef>,
    /// In the order of their first use.
    pub variables: Vec<Variable>,
    /// Nodes that run for what they change.
    pub effects: Vec<String>,
}

impl Body {
    pub(super) fn new(place: Place) -> Self {
        Self { place, nodes: vec![], names: HashSet::new(), variables: vec![], effects: vec![] }
    }

    /// Adds a node and returns its first output. The name gets a number if it is taken.
    pub(super) fn node(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Value {
        self.node_outputs(op, name, inputs, attributes, &[(main_output(op), 0)]).remove(0)
    }

    /// Adds a node and returns the outputs asked for, each an output's name and its place in all of the node's.
    pub(super) fn node_outputs(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<Attribute>,
        outputs: &[(&str, usize)],
    ) -> Vec<Value> {
        let name = self.unique(name);
        let attr = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let input = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(NodeDef { name: name.clone(), op: op.into(), input, attr });
        outputs.iter().map(|&(output, index)| self.reference(&name, output, index)).collect()
    }

    /// Adds a node that runs for what it changes and gives no value.
    pub(super) fn effect(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<Attribute>) {
        self.node_outputs(op, name, inputs, attributes, &[]);
        let name = self.nodes.last().expect("just added").name.clone();
        self.effects.push(name);
    }

    /// A constant.
    pub(super) fn constant(&mut self, name: &str, value: TensorProto) -> Value {
        let element = value.dtype();
        self.node("Const", name, &[], vec![dtype("dtype", element), tensor("value", value)])
    }

    /// The value of a variable of 32-bit numbers.
    pub(super) fn read(&mut self, variable: &Variable) -> Value {
        let handle = self.handle(variable);
        let name = match self.place {
            Place::Graph => format!("{}/Read/ReadVariableOp", variable.name),
            Place::Function => format!("{}/ReadVariableOp", variable.name),
        };
        self.node("ReadVariableOp", &name, &[&handle], vec![dtype("dtype", DataType::Float)])
    }

    /// The handle of a variable.
    pub(super) fn handle(&mut self, variable: &Variable) -> Value {
        let known = self.variables.iter().position(|other| other.name == variable.name);
        let index = known.unwrap_or_else(|| {
            self.variables.push(variable.clone());
            self.variables.len() - 1
        });
        match self.place {
            Place::Graph => variable.name.clone(),
            Place::Function => argument(index),
        }
    }

    /// Whether there is a node of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Ends the body.
    pub(super) fn finish(self) -> Finished {
        Finished { nodes: self.nodes, variables: self.variables, effects: self.effects }
    }

    fn reference(&self, node: &str, output: &str, index: usize) -> Value {
        match (self.place, index) {
            (Place::Graph, 0) => node.to_owned(),
            (Place::Graph, index) => format!("{node}:{index}"),
            // Each output here is one tensor, except for those of Split, which is one list of them.
            (Place::Function, index) if output == "output" => format!("{node}:output:{index}"),
            (Place::Function, _) => format!("{node}:{output}:0"),
        }
    }

    fn unique(&mut self, name: &str) -> String {
        let numbered = (1..).map(|number| format!("{name}_{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| self.names.insert(name.clone())).expect("numbers do not end")
    }
}

/// The argument of a function that takes its `index`-th variable.
pub(super) fn argument(index: usize) -> String {
    format!("variable_{index}")
}

/// What an operation's first output is called in its definition.
fn main_output(op: &str) -> &'static str {
    match op {
        "Relu" | "Relu6" | "LeakyRelu" => "activations",
        "Sigmoid" | "Tanh" | "FusedBatchNormV3" | "Cast" | "Transpose" => "y",
        "Mul" | "AddV2" | "Sub" | "GreaterEqual" => "z",
        "MatMul" => "product",
        "Softmax" => "softmax",
        "ReadVariableOp" => "value",
        _ => "output",
    }
}
