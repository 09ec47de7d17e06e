//! The bytes read back: names, shapes, constants, operator sets, metadata.
//! Whether engines compute the right numbers from them is the conformance suite's question.

use candle_core::Device;
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Padding};
use tallow_builder::{GraphBuilder, NodeId};
use tallow_input::Preprocess;

use super::proto::{AttributeProto, DimensionValue, GraphProto, ValueInfoProto};
use super::*;

fn network() -> (Graph, Weights) {
    let mut g = GraphBuilder::new("tiny", Shape::map(3, 9, 8));
    let spec = ConvSpec::new(4, 3).stride(2).padding(Padding::Same);
    let x = g.conv2d("features.0.0", g.input(), spec).unwrap();
    let x = g.batch_norm("features.0.1", x, BatchNorm::default()).unwrap();
    let x = g.activation("features.0.2", x, Activation::Silu).unwrap();
    let x = g.max_pool("features.1", x, 3, 2, 1).unwrap();
    let x = g.global_avg_pool("avgpool", x).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.dropout("dropout", x, 0.2).unwrap();
    let x = g.linear("classifier", x, Linear::uniform(2, 0.1)).unwrap();
    finish(g, x)
}

fn finish(g: GraphBuilder, output: NodeId) -> (Graph, Weights) {
    let graph = g.finish(output).unwrap();
    let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
    (graph, weights)
}

fn card() -> ModelCard {
    ModelCard::new("tiny", vec!["cat".into(), "dog".into()], Preprocess::imagenet(8, 9))
}

fn read(options: &OnnxOptions) -> ModelProto {
    let (graph, weights) = network();
    let bytes = export_onnx(&graph, &weights, Some(&card()), options).unwrap();
    ModelProto::decode(bytes.as_slice()).unwrap()
}

fn ops(graph: &GraphProto) -> Vec<&str> {
    graph.node.iter().map(|node| node.op_type.as_str()).collect()
}

fn dims(info: &ValueInfoProto) -> Vec<DimensionValue> {
    let tensor = info.r#type.clone().unwrap().tensor_type.unwrap();
    tensor.shape.unwrap().dim.into_iter().map(|d| d.value.unwrap()).collect()
}

fn attribute<'a>(graph: &'a GraphProto, node: &str, name: &str) -> &'a AttributeProto {
    let node = graph.node.iter().find(|n| n.name == node).unwrap();
    node.attribute.iter().find(|a| a.name == name).unwrap()
}

#[test]
fn the_inference_graph_reads_back_with_names_and_shapes() {
    let model = read(&OnnxOptions::default());
    assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
    let graph = model.graph.unwrap();
    assert_eq!(ops(&graph), ["Conv", "Sigmoid", "Mul", "MaxPool", "ReduceMean", "Flatten", "Gemm"]);
    let names: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["features.0.0.weight", "features.0.0.bias", "classifier.weight", "classifier.bias"]);
    assert_eq!(graph.node[0].input, ["images", "features.0.0.weight", "features.0.0.bias"]);
    assert_eq!(graph.node[2].input, ["features.0.0", "features.0.2/sigmoid"]);
    assert_eq!(graph.node[6].output, ["logits"]);
    use DimensionValue::{Fixed, Symbol};
    assert_eq!(dims(&graph.input[0]), [Symbol("N".into()), Fixed(3), Fixed(9), Fixed(8)]);
    assert_eq!(dims(&graph.output[0]), [Symbol("N".into()), Fixed(2)]);
    // SAME at stride 2: 9 rows need 1 + 1, 8 columns need 0 + 1; ONNX orders top, left, bottom, right.
    assert_eq!(attribute(&graph, "features.0.0", "pads").ints, [1, 0, 1, 1]);
    assert_eq!(attribute(&graph, "classifier", "transB").i, Some(1));
}

#[test]
fn initializers_hold_the_weights_to_the_bit() {
    let (graph, weights) = network();
    let options = OnnxOptions { fold: false, ..Default::default() };
    let bytes = export_onnx(&graph, &weights, None, &options).unwrap();
    let proto = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
    // Six f32 tensors and the batch norm's counter, which ONNX has no place for.
    assert_eq!(proto.initializer.len(), weights.iter().count() - 1);
    for tensor in &proto.initializer {
        let expected = weights.get(&tensor.name);
        assert_eq!(tensor.dims, expected.dims().iter().map(|&d| d as i64).collect::<Vec<_>>());
        let values = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(tensor.raw_data, bytes, "{}", tensor.name);
    }
}

#[test]
fn the_same_network_gives_the_same_bytes_and_the_length_foretold() {
    let (graph, weights) = network();
    for (fold, softmax) in [(false, false), (true, false), (true, true)] {
        let options = OnnxOptions { fold, softmax, ..Default::default() };
        let bytes = export_onnx(&graph, &weights, Some(&card()), &options).unwrap();
        assert_eq!(bytes, export_onnx(&graph, &weights, Some(&card()), &options).unwrap());
        assert_eq!(bytes.len(), bytes.capacity());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        write_onnx(&path, &graph, &weights, Some(&card()), &options, Existing::Keep).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
}

#[test]
fn options_change_the_graph_as_they_say() {
    let unfolded = read(&OnnxOptions { fold: false, ..Default::default() }).graph.unwrap();
    assert_eq!(ops(&unfolded)[..2], ["Conv", "BatchNormalization"]);
    let suffixes = ["weight", "bias", "running_mean", "running_var"];
    let expected = suffixes.map(|suffix| format!("features.0.1.{suffix}"));
    assert_eq!(unfolded.node[1].input[1..], expected);
    assert_eq!(attribute(&unfolded, "features.0.1", "epsilon").f, Some(1e-5));
    assert_eq!(attribute(&unfolded, "features.0.1", "momentum").f, Some(0.9));

    let softmax = read(&OnnxOptions { softmax: true, ..Default::default() });
    let graph = softmax.graph.as_ref().unwrap();
    assert_eq!(ops(graph).last(), Some(&"Softmax"));
    assert_eq!(graph.output[0].name, "probabilities");

    let fixed = read(&OnnxOptions { batch: Some(4), ..Default::default() }).graph.unwrap();
    assert_eq!(dims(&fixed.input[0])[0], DimensionValue::Fixed(4));
    assert_eq!(dims(&fixed.output[0])[0], DimensionValue::Fixed(4));
}

#[test]
fn each_operator_set_comes_with_its_ir_version() {
    for (opset, ir) in [(15, 8), (16, 8), (17, 8), (18, 8), (19, 9), (20, 9), (21, 10)] {
        let model = read(&OnnxOptions { opset, ..Default::default() });
        assert_eq!((model.opset_import[0].version, model.ir_version), (i64::from(opset), ir));
        let graph = model.graph.unwrap();
        let mean = graph.node.iter().find(|node| node.op_type == "ReduceMean").unwrap();
        if opset < 18 {
            assert_eq!((mean.attribute[0].name.as_str(), &mean.attribute[0].ints[..]), ("axes", &[2, 3][..]));
        } else {
            let axes = graph.initializer.iter().find(|tensor| tensor.name == mean.input[1]).unwrap();
            assert_eq!(axes.raw_data, [2i64, 3].map(i64::to_le_bytes).concat());
        }
    }
    let (graph, weights) = network();
    for opset in [0, 14, 22] {
        let options = OnnxOptions { opset, ..Default::default() };
        let text = export_onnx(&graph, &weights, None, &options).unwrap_err().to_string();
        assert_eq!(text, format!("opset {opset} is not supported: choose one from 15 to 21"));
    }
}

#[test]
fn metadata_is_the_card_sorted_and_says_what_the_output_is() {
    let model = read(&OnnxOptions { softmax: true, ..Default::default() });
    let keys: Vec<&String> = model.metadata_props.iter().map(|entry| &entry.key).collect();
    assert!(keys.is_sorted());
    let props = model.metadata_props.iter().map(|entry| (entry.key.clone(), entry.value.clone()));
    let read = ModelCard::from_props(props).unwrap().unwrap();
    let producer = Some(format!("tallow {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(read, ModelCard { output: OutputKind::Probabilities, producer, ..card() });
}

#[test]
fn a_card_of_another_network_is_refused() {
    let (graph, weights) = network();
    let wide = ModelCard { preprocess: Preprocess::imagenet(9, 8), ..card() };
    let many = ModelCard { labels: vec!["cat".into(); 3], ..card() };
    for (card, expected) in [
        (wide, "it prepares images of 3×8×9, the network takes 3×9×8"),
        (many, "it has 3 labels, the network 2 outputs"),
    ] {
        let result = export_onnx(&graph, &weights, Some(&card), &OnnxOptions::default());
        let text = result.unwrap_err().to_string();
        assert_eq!(text, format!("the model card does not fit network `tiny`: {expected}"));
    }
}

#[test]
fn weights_of_another_network_and_impossible_options_are_errors() {
    let (graph, weights) = network();
    let mut g = GraphBuilder::new("other", Shape::map(3, 9, 8));
    let x = g.flatten("flatten", g.input()).unwrap();
    let x = g.linear("fc", x, Linear::uniform(2, 0.1)).unwrap();
    let (other, _) = finish(g, x);
    let text = export_onnx(&other, &weights, None, &OnnxOptions::default()).unwrap_err().to_string();
    assert!(text.contains("2 missing: fc.weight, fc.bias"), "{text}");
    let options = OnnxOptions { batch: Some(0), ..Default::default() };
    let text = export_onnx(&graph, &weights, None, &options).unwrap_err().to_string();
    assert_eq!(text, "network `tiny`: a batch of 0 images is no batch");
}

#[test]
fn layers_called_as_reserved_names_or_tensors_do_not_collide() {
    let mut g = GraphBuilder::new("names", Shape::map(3, 4, 4));
    let x = g.activation("images", g.input(), Activation::Relu6).unwrap();
    let x = g.conv2d("conv", x, ConvSpec::new(3, 1)).unwrap();
    let x = g.activation("conv.weight", x, Activation::Sigmoid { slope: 2.0 }).unwrap();
    let x = g.activation("relu6.min", x, Activation::Relu6).unwrap();
    let x = g.activation("logits", x, Activation::Tanh).unwrap();
    let x = g.flatten("last", x).unwrap();
    let (graph, weights) = finish(g, x);
    let bytes = export_onnx(&graph, &weights, None, &OnnxOptions::default()).unwrap();
    let proto = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
    let mut defined: Vec<&String> = proto.node.iter().flat_map(|n| &n.output).collect();
    defined.extend(proto.initializer.iter().map(|t| &t.name));
    defined.push(&proto.input[0].name);
    let mut known = std::collections::HashSet::new();
    assert!(defined.iter().all(|name| known.insert(*name)), "{defined:?}");
    assert!(proto.node.iter().flat_map(|n| &n.input).all(|name| known.contains(name)));
    assert_eq!(proto.node.last().unwrap().output, ["logits"]);
}

#[test]
fn a_file_without_a_card_says_so_and_another_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.onnx");
    let (graph, weights) = network();
    write_onnx(&path, &graph, &weights, None, &OnnxOptions::default(), Existing::Keep).unwrap();
    assert_eq!(read_card(&path).unwrap(), None);
    std::fs::write(&path, "not a model").unwrap();
    assert!(read_card(&path).unwrap_err().to_string().contains("not a readable ONNX model"));
}
