//! Files as others make them: any names, free sizes, several outputs, weights in a file beside, shapes computed in the
//! graph. Without a layer graph, ONNX Runtime is the reference, or tract where that is missing.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use candle_onnx::onnx::attribute_proto::AttributeType;
use candle_onnx::onnx::tensor_proto::{DataLocation, DataType};
use candle_onnx::onnx::tensor_shape_proto::dimension::Value as Length;
use candle_onnx::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, type_proto,
};
use prost::Message;
use tallow_conformance::{
    Certifier, LayerOptions, Outcome, Report, VerifyOptions, randomised, verify, verify_layers,
};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};
use tallow_models::Options;
use tallow_runtime::{Certified, Description};
use tempfile::TempDir;

/// A network, changed by `change`.
fn foreign(options: &OnnxOptions, change: impl Fn(&mut GraphProto)) -> (TempDir, PathBuf) {
    let graph = tallow_models::build("resnet18", &Options::new(7, 64)).unwrap();
    let weights = randomised(&graph, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    write_onnx(&path, &graph, &weights, None, options, Existing::Keep).unwrap();
    edit(&path, |model| {
        model.producer_name = "pytorch".into();
        change(model.graph.as_mut().unwrap());
    });
    (folder, path)
}

fn edit(path: &Path, change: impl FnOnce(&mut ModelProto)) {
    let mut model = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    change(&mut model);
    std::fs::write(path, model.encode_to_vec()).unwrap();
}

fn dims(graph: &mut GraphProto) -> &mut Vec<candle_onnx::onnx::tensor_shape_proto::Dimension> {
    let value = graph.input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
    let type_proto::Value::TensorType(tensor) = value else { panic!() };
    &mut tensor.shape.as_mut().unwrap().dim
}

fn free_size(graph: &mut GraphProto) {
    for (axis, name) in [(2, "height"), (3, "width")] {
        dims(graph)[axis].value = Some(Length::DimParam(name.into()));
    }
}

fn rename(graph: &mut GraphProto, from: &str, to: &str) {
    let rename = |name: &mut String| {
        if name == from {
            *name = to.into();
        }
    };
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
    }
    graph.input.iter_mut().chain(&mut graph.output).for_each(|value| rename(&mut value.name));
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int.into(), ..Default::default() }
}

/// Flattens as TorchScript's exporter does, with a shape that the graph computes.
fn computed_shape(graph: &mut GraphProto) {
    let at = graph.node.iter().position(|node| node.op_type == "Flatten").unwrap();
    let flatten = graph.node.remove(at);
    let mut index = |name: &str, dims: &[i64], value: i64| {
        let data_type = DataType::Int64.into();
        let (name, dims, int64_data) = (name.into(), dims.to_vec(), vec![value]);
        graph.initializer.push(TensorProto { name, dims, data_type, int64_data, ..Default::default() });
    };
    index("first", &[], 0);
    index("rest", &[1], -1);
    let steps = [
        node("Shape", &[&flatten.input[0]], "shape", vec![]),
        node("Gather", &["shape", "first"], "batch", vec![int("axis", 0)]),
        node("Unsqueeze", &["batch", "axes"], "rows", vec![]),
        node("Concat", &["rows", "rest"], "wanted", vec![int("axis", 0)]),
        node("Reshape", &[&flatten.input[0], "wanted"], &flatten.output[0], vec![]),
    ];
    index("axes", &[1], 0);
    graph.node.splice(at..at, steps);
}

fn agrees(path: &Path, options: &VerifyOptions) -> Report {
    let report = verify(path, None, options).unwrap();
    println!("{report}\n");
    assert!(report.agrees || report.row("ort").is_some_and(|row| not_run(&row.outcome)), "{report}");
    assert!(!matches!(report.row("tract").unwrap().outcome, Outcome::Failed { .. }), "{report}");
    assert!(matches!(report.row("candle").unwrap().outcome, Outcome::NotRun { .. }));
    let layers = verify_layers(path, None, options, &LayerOptions::default()).unwrap();
    println!("{}\n{layers}\n", layers.table(Some(5)));
    assert!(layers.first.is_none() && layers.layers.len() > 40, "{layers}");
    assert!(
        layers.engines.iter().all(|e| e.engine == "candle-onnx" || e.problem.is_none() || e.engine == "ort")
    );
    report
}

fn not_run(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::NotRun { .. })
}

#[test]
fn free_sizes_take_the_size_that_is_said() {
    let (_folder, path) = foreign(&OnnxOptions::default(), |graph| {
        free_size(graph);
        rename(graph, "images", "pixels");
        computed_shape(graph);
    });
    let text = verify(&path, None, &VerifyOptions::default()).unwrap_err().to_string();
    assert!(text.contains("[N, 3, height, width]") && text.contains("--size"), "{text}");
    let options = VerifyOptions { size: Some([48, 65]), ..Default::default() };
    let report = agrees(&path, &options);
    assert_eq!(report.sample, [3, 48, 65]);
}

#[test]
fn another_size_than_the_files_is_refused() {
    let (_folder, path) = foreign(&OnnxOptions::default(), |_| {});
    let options = VerifyOptions { size: Some([64, 32]), ..Default::default() };
    let text = verify(&path, None, &options).unwrap_err().to_string();
    assert!(text.contains("[N, 3, 64, 64]") && text.contains("leave that out"), "{text}");
}

#[test]
fn several_outputs_are_all_compared() {
    let (_folder, path) = foreign(&OnnxOptions::default(), |graph| {
        let mut features = graph.output[0].clone();
        features.name = "flatten".into();
        assert!(graph.node.iter().any(|node| node.output[0] == features.name));
        let value = features.r#type.as_mut().unwrap().value.as_mut().unwrap();
        let type_proto::Value::TensorType(tensor) = value else { panic!() };
        tensor.shape = None;
        graph.output.push(features);
    });
    let report = agrees(&path, &VerifyOptions::default());
    let row = report.row("candle-onnx").unwrap();
    let names: Vec<&str> = row.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["logits", "flatten"]);
}

#[test]
fn a_fixed_batch_runs_in_pieces() {
    let options = OnnxOptions { batch: Some(2), ..Default::default() };
    let (_folder, path) = foreign(&options, |_| {});
    agrees(&path, &VerifyOptions::default());
}

#[test]
fn weights_in_a_file_beside_are_found_and_are_not_certified() {
    let (folder, path) = foreign(&OnnxOptions::default(), |_| {});
    let mut data = vec![];
    edit(&path, |model| {
        for weight in &mut model.graph.as_mut().unwrap().initializer {
            let (start, length) = (data.len(), weight.raw_data.len());
            data.append(&mut weight.raw_data);
            let entries = [
                ("location", "m.data".into()),
                ("offset", start.to_string()),
                ("length", length.to_string()),
            ];
            weight.external_data =
                entries.map(|(key, value)| StringStringEntryProto { key: key.into(), value }).into();
            weight.data_location = DataLocation::External.into();
        }
    });
    std::fs::write(folder.path().join("m.data"), data).unwrap();
    agrees(&path, &VerifyOptions::default());
    let text = Certifier::new(&path).unwrap_err().to_string();
    assert!(text.contains("m.data") && text.contains("one file"), "{text}");
    let description = Description::read(&path).unwrap();
    assert_eq!(description.external_data, ["m.data"]);
    assert_eq!(description.parameters, 11_689_512 - 993 * 513 - 4800);
    std::fs::remove_file(folder.path().join("m.data")).unwrap();
    let text = verify(&path, None, &VerifyOptions::default()).unwrap_err().to_string();
    assert!(text.contains("lies in") && text.contains("m.data") && !text.contains('\n'), "{text}");
}

#[test]
fn a_file_of_others_is_certified_and_stays_one_of_others() {
    let (_folder, path) = foreign(&OnnxOptions::default(), |_| {});
    let before = std::fs::read(&path).unwrap();
    let certifier = Certifier::new(&path).unwrap();
    let report = verify(&path, None, &VerifyOptions::default()).unwrap();
    if !report.agrees {
        return; // Without ONNX Runtime and with candle-onnx alone there may be nothing to compare.
    }
    certifier.certify(&path, &report).unwrap();
    let certified = std::fs::read(&path).unwrap();
    assert!(certified.starts_with(&before));
    Certifier::new(&path).unwrap().certify(&path, &report).unwrap();
    assert!(std::fs::read(&path).unwrap() == certified, "the same run gives the same bytes");
    let description = Description::read(&path).unwrap();
    assert!(description.card.is_none());
    let Certified::Valid(certificate) = description.certificate else {
        panic!("{:?}", description.certificate)
    };
    assert_eq!(certificate.reference, report.reference);
    assert!(certificate.engines.iter().all(|engine| engine.engine != "candle"));

    edit(&path, |model| model.graph.as_mut().unwrap().initializer[3].raw_data[40] ^= 1);
    assert!(matches!(Description::read(&path).unwrap().certificate, Certified::Altered(_)));
    let text = Certifier::new(&path).unwrap();
    std::fs::write(&path, &before).unwrap();
    let text = text.certify(&path, &report).unwrap_err().to_string();
    assert!(text.contains("changed while it was verified"), "{text}");
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn what_takes_no_float_images_is_one_clear_line() {
    let (_folder, path) = foreign(&OnnxOptions::default(), |graph| {
        let value = graph.input[0].r#type.as_mut().unwrap().value.as_mut().unwrap();
        let type_proto::Value::TensorType(tensor) = value else { panic!() };
        tensor.elem_type = DataType::Int64.into();
    });
    let errors = [
        verify(&path, None, &VerifyOptions::default()).unwrap_err(),
        verify_layers(&path, None, &VerifyOptions::default(), &LayerOptions::default()).unwrap_err(),
    ];
    for text in errors.map(|error| error.to_string()) {
        assert!(text.contains("`images` is int64") && text.contains("expected float32"), "{text}");
        assert!(!text.contains('\n'));
    }
    assert_eq!(Description::read(&path).unwrap().inputs[0].r#type, "int64");
}
