//! Variables of a graph, and the operations that restore and save them.
//!
//! Names as TensorFlow 1's `Saver` gives them. The C++ loader, that of TensorFlow Serving, feeds the bundle's prefix
//! to `save/Const` and runs `save/restore_all`.

use prost::Message;
use tallow_tensorflow::proto::collection_def::Kind;
use tallow_tensorflow::proto::{BytesList, CollectionDef, DataType, SaverDef, TensorShape, VariableDef};

use super::attributes::{dtype, dtypes, shape, string, strings, t, tensor, zeros};
use super::body::{Body, Value};
use super::variables::Variable;

/// A variable as the graph holds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    /// Its name and that of the node with its handle.
    pub name: String,
    /// Its key in the bundle.
    pub key: String,
    pub dtype: DataType,
    pub shape: TensorShape,
    pub trainable: bool,
}

impl Stored {
    pub(super) fn new(variable: &Variable, key: String) -> Self {
        Self {
            name: variable.name.clone(),
            key,
            dtype: DataType::Float,
            shape: TensorShape::of(variable.shape.iter().map(|&dim| dim as i64)),
            trainable: variable.trainable(),
        }
    }
}

/// Adds the variables and what saves and restores them. A variable that the body does not read yet is read here, for
/// saving.
pub(super) fn add(body: &mut Body, variables: &[Stored]) -> SaverDef {
    for variable in variables {
        let Stored { name, .. } = variable;
        let of = dtype("dtype", variable.dtype);
        // Without `shared_name` sessions and TFLite do not find the variable that was restored.
        let attributes =
            vec![of.clone(), shape("shape", variable.shape.clone()), string("shared_name", name)];
        body.node("VarHandleOp", name, &[], attributes);
        let initial = zeros(variable.dtype, variable.shape.clone());
        let attributes = vec![of.clone(), tensor("value", initial)];
        let initial = body.node("Const", &format!("{name}/Initializer/zeros"), &[], attributes);
        body.node("AssignVariableOp", &format!("{name}/Assign"), &[name, &initial], vec![of.clone()]);
        let read = format!("{name}/Read/ReadVariableOp");
        if !body.has(&read) {
            body.node("ReadVariableOp", &read, &[name], vec![of]);
        }
    }
    let of_string = dtype("dtype", DataType::String);
    let prefix = strings(&[], ["model".to_owned()]);
    let input = body.constant("save/filename/input", prefix);
    let scalar = || vec![of_string.clone(), shape("shape", TensorShape::default())];
    let filename = body.node("PlaceholderWithDefault", "save/filename", &[&input], scalar());
    let filename = body.node("PlaceholderWithDefault", "save/Const", &[&filename], scalar());

    let types: Vec<DataType> = variables.iter().map(|variable| variable.dtype).collect();
    let (names, slices) = names_and_slices(body, "SaveV2", variables);
    let reads: Vec<String> = variables.iter().map(|v| format!("{}/Read/ReadVariableOp", v.name)).collect();
    let inputs = [filename.as_str(), &names, &slices].into_iter().chain(reads.iter().map(String::as_str));
    let inputs: Vec<&str> = inputs.collect();
    body.node("SaveV2", "save/SaveV2", &inputs, vec![dtypes("dtypes", types.clone())]);
    let saved = [filename.as_str(), "^save/SaveV2"];
    body.node("Identity", "save/control_dependency", &saved, vec![t(DataType::String)]);

    let (names, slices) = names_and_slices(body, "RestoreV2", variables);
    let inputs = [filename.as_str(), &names, &slices];
    body.node("RestoreV2", "save/RestoreV2", &inputs, vec![dtypes("dtypes", types)]);
    let mut restored = vec![];
    for (i, variable) in variables.iter().enumerate() {
        let value = if i == 0 { "save/RestoreV2".to_owned() } else { format!("save/RestoreV2:{i}") };
        let name =
            if i == 0 { "save/AssignVariableOp".to_owned() } else { format!("save/AssignVariableOp_{i}") };
        let inputs = [variable.name.as_str(), &value];
        body.node("AssignVariableOp", &name, &inputs, vec![dtype("dtype", variable.dtype)]);
        restored.push(format!("^{name}"));
    }
    let restored: Vec<&str> = restored.iter().map(String::as_str).collect();
    body.node("NoOp", "save/restore_all", &restored, vec![]);
    SaverDef {
        filename_tensor_name: "save/Const:0".into(),
        save_tensor_name: "save/control_dependency:0".into(),
        restore_op_name: "save/restore_all".into(),
        max_to_keep: 5,
        version: 2,
    }
}

/// The keys of all variables, and that each is taken whole.
fn names_and_slices(body: &mut Body, operation: &str, variables: &[Stored]) -> (Value, Value) {
    let count = variables.len();
    let keys = strings(&[count], variables.iter().map(|variable| variable.key.clone()));
    let names = body.constant(&format!("save/{operation}/tensor_names"), keys);
    let whole = strings(&[count], variables.iter().map(|_| String::new()));
    (names, body.constant(&format!("save/{operation}/shape_and_slices"), whole))
}

/// The collection of these variables: what fills `variables` in Python.
pub(super) fn collection<'a>(variables: impl Iterator<Item = &'a Stored>) -> CollectionDef {
    let value = variables.map(|Stored { name, trainable, .. }| {
        let definition = VariableDef {
            variable_name: format!("{name}:0"),
            initializer_name: format!("{name}/Assign"),
            snapshot_name: format!("{name}/Read/ReadVariableOp:0"),
            is_resource: true,
            initial_value_name: format!("{name}/Initializer/zeros:0"),
            trainable: *trainable,
        };
        definition.encode_to_vec()
    });
    CollectionDef { kind: Some(Kind::Bytes(BytesList { value: value.collect() })) }
}
