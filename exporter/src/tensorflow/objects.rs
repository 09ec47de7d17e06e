//! Python's view of a model: what `tf.saved_model.load` returns.
//!
//! It can be called, `loaded(images, training=False)`; `serve(images)` and `train(images)` are the same in two functions,
//! as Keras's `TFSMLayer` wants them; `signatures["serving_default"]` serves; `variables` and `trainable_variables` are
//! lists; `labels` is the file in `assets/`; `layers` has the variables by layer.

use std::collections::BTreeMap;

use tallow_tensorflow::proto::saved_object::Kind as ObjectKind;
use tallow_tensorflow::proto::structured_value::Kind as ValueKind;
use tallow_tensorflow::proto::{
    BareConcreteFunction, DataType, DictValue, FunctionSpec, NamedTupleValue, NoneValue, ObjectReference,
    PairValue, SavedAsset, SavedConcreteFunction, SavedFunction, SavedObject, SavedObjectGraph,
    SavedUserObject, SavedVariable, SerializedTensor, StructuredValue, TensorShape, TensorSpec,
    TrackableObject, TrackableObjectGraph, Values, VersionDef,
};

use super::functions::{Function, IMAGES, Output};
use super::saver::Stored;

/// The functions that the objects offer.
pub(super) struct Offered<'a> {
    /// `loaded(images)`.
    pub inference: &'a Function,
    /// `loaded(images, training=True)`.
    pub training: &'a Function,
    /// `loaded.serve(images)`.
    pub serve: &'a Function,
    /// `loaded.train(images)`.
    pub train: &'a Function,
    /// `signatures["serving_default"]`.
    pub serving: &'a Function,
}

/// The key under which a variable's value lies in the bundle: its path from the root.
pub(super) fn key(name: &str) -> String {
    format!("{LAYERS}/{name}/.ATTRIBUTES/VARIABLE_VALUE")
}

/// The root's attribute under which the layers are.
const LAYERS: &str = "layers";

/// The objects: root, layers and variables, lists, asset, functions.
pub(super) fn object_graph(
    variables: &[Stored],
    offered: &Offered<'_>,
    images: &TensorShape,
    outputs: &[Output],
) -> SavedObjectGraph {
    let mut objects = Objects::default();
    let root = objects.add(user("_generic_user_object"));
    let layers = objects.attribute(root, LAYERS, user("_generic_user_object"));
    let mut ids = BTreeMap::new();
    for variable in variables {
        let (path, name) = variable.name.rsplit_once('/').expect("a variable lies in its layer's scope");
        let scope = path.split('/').fold(layers, |parent, part| {
            objects
                .child(parent, part)
                .unwrap_or_else(|| objects.attribute(parent, part, user("_generic_user_object")))
        });
        let saved = SavedVariable {
            dtype: variable.dtype.into(),
            shape: Some(variable.shape.clone()),
            trainable: variable.trainable,
            name: variable.name.clone(),
        };
        ids.insert(variable.name.as_str(), objects.attribute(scope, name, ObjectKind::Variable(saved)));
    }
    for (name, all) in [("variables", true), ("trainable_variables", false)] {
        let list = objects.attribute(root, name, user("trackable_list_wrapper"));
        let listed = variables.iter().filter(|variable| all || variable.trainable);
        for (i, variable) in listed.enumerate() {
            objects.refer(list, &i.to_string(), ids[variable.name.as_str()]);
        }
    }
    objects.attribute(root, "labels", ObjectKind::Asset(SavedAsset { asset_file_def_index: 0 }));

    let Offered { inference, training, serve, train, serving } = *offered;
    let call: &[&Function] = &[inference, training];
    for (name, traces, mode) in
        [("__call__", call, true), ("serve", &[serve], false), ("train", &[train], false)]
    {
        let concrete_functions = traces.iter().map(|function| function.name().to_owned()).collect();
        let function = SavedFunction { concrete_functions, function_spec: Some(function_spec(mode)) };
        objects.attribute(root, name, ObjectKind::Function(function));
    }
    let signatures = objects.attribute(root, "signatures", user("signature_map"));
    let signature = BareConcreteFunction {
        concrete_function_name: serving.name().into(),
        argument_keywords: vec![IMAGES.into()],
        allowed_positional_arguments: 1,
    };
    objects.attribute(signatures, "serving_default", ObjectKind::BareConcreteFunction(signature));

    let bound = |function: &Function| function.variables.iter().map(|v| ids[v.name.as_str()]).collect();
    let images = || spec(IMAGES, images.clone(), DataType::Float);
    let described = |output: &Output| spec(output.name, output.shape.clone(), output.dtype);
    let logits = outputs.iter().find(|output| output.name == "logits").map(described);
    let mut concrete_functions = BTreeMap::new();
    let modes = [(inference, Some(false)), (training, Some(true)), (serve, None), (train, None)];
    for (function, mode) in modes {
        let mode = mode.map(|mode| value(ValueKind::Bool(mode)));
        let positional = tuple(std::iter::once(images()).chain(mode).collect());
        let trace = SavedConcreteFunction {
            bound_inputs: bound(function),
            canonicalized_input_signature: Some(tuple(vec![positional, dictionary([])])),
            output_signature: logits.clone(),
        };
        concrete_functions.insert(function.name().to_owned(), trace);
    }
    let named = dictionary([(IMAGES, images())]);
    let outputs = dictionary(outputs.iter().map(|output| (output.name, described(output))));
    let trace = SavedConcreteFunction {
        bound_inputs: bound(serving),
        canonicalized_input_signature: Some(tuple(vec![tuple(vec![]), named])),
        output_signature: Some(outputs),
    };
    concrete_functions.insert(serving.name().to_owned(), trace);
    SavedObjectGraph { nodes: objects.nodes, concrete_functions }
}

/// The same objects as the bundle holds them, with the key of each variable.
pub(super) fn trackable_objects(graph: &SavedObjectGraph, variables: &[Stored]) -> TrackableObjectGraph {
    let keys: BTreeMap<&str, &str> = variables.iter().map(|v| (v.name.as_str(), v.key.as_str())).collect();
    let object = |object: &SavedObject| {
        let attributes = match &object.kind {
            Some(ObjectKind::Variable(variable)) => vec![SerializedTensor {
                name: "VARIABLE_VALUE".into(),
                full_name: variable.name.clone(),
                checkpoint_key: keys[variable.name.as_str()].to_owned(),
            }],
            _ => vec![],
        };
        TrackableObject { children: object.children.clone(), attributes }
    };
    TrackableObjectGraph { nodes: graph.nodes.iter().map(object).collect() }
}

#[derive(Default)]
struct Objects {
    nodes: Vec<SavedObject>,
}

impl Objects {
    fn add(&mut self, kind: ObjectKind) -> i32 {
        self.nodes.push(SavedObject { children: vec![], kind: Some(kind) });
        self.nodes.len() as i32 - 1
    }

    fn attribute(&mut self, parent: i32, name: &str, kind: ObjectKind) -> i32 {
        let id = self.add(kind);
        self.refer(parent, name, id);
        id
    }

    fn refer(&mut self, parent: i32, name: &str, node_id: i32) {
        let reference = ObjectReference { node_id, local_name: name.into() };
        self.nodes[parent as usize].children.push(reference);
    }

    fn child(&self, parent: i32, name: &str) -> Option<i32> {
        let mut children = self.nodes[parent as usize].children.iter();
        children.find(|child| child.local_name == name).map(|child| child.node_id)
    }
}

fn user(identifier: &str) -> ObjectKind {
    let version = Some(VersionDef { producer: 1, min_consumer: 1 });
    ObjectKind::User(SavedUserObject { identifier: identifier.into(), version })
}

/// `(images)`, or `(images, training=False)`, as `inspect.getfullargspec` gives it.
fn function_spec(mode: bool) -> FunctionSpec {
    let string = |text: &str| value(ValueKind::String(text.into()));
    let none = || value(ValueKind::None(NoneValue {}));
    let list = |values| value(ValueKind::List(Values { values }));
    let fields = [
        ("args", list(if mode { vec![string(IMAGES), string("training")] } else { vec![string(IMAGES)] })),
        ("varargs", none()),
        ("varkw", none()),
        ("defaults", if mode { tuple(vec![value(ValueKind::Bool(false))]) } else { none() }),
        ("kwonlyargs", list(vec![])),
        ("kwonlydefaults", none()),
        ("annotations", dictionary([])),
    ];
    let values = fields.map(|(key, value)| PairValue { key: key.into(), value: Some(value) }).into();
    let fullargspec = value(ValueKind::NamedTuple(NamedTupleValue { name: "FullArgSpec".into(), values }));
    FunctionSpec { fullargspec: Some(fullargspec), input_signature: Some(none()) }
}

fn value(kind: ValueKind) -> StructuredValue {
    StructuredValue { kind: Some(kind) }
}

fn tuple(values: Vec<StructuredValue>) -> StructuredValue {
    value(ValueKind::Tuple(Values { values }))
}

fn dictionary<'a>(fields: impl IntoIterator<Item = (&'a str, StructuredValue)>) -> StructuredValue {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    value(ValueKind::Dict(DictValue { fields }))
}

fn spec(name: &str, shape: TensorShape, dtype: DataType) -> StructuredValue {
    value(ValueKind::TensorSpec(TensorSpec { name: name.into(), shape: Some(shape), dtype: dtype.into() }))
}
