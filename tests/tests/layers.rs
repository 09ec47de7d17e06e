//! Layer by layer: a network broken on purpose is bisected to that very layer, and a sound one has none to name.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use candle_onnx::onnx::{ModelProto, NodeProto, TensorProto};
use prost::Message;
use tallow_builder::graph::{ConvSpec, Shape};
use tallow_builder::{Graph, GraphBuilder, Network, Rng, Weights};
use tallow_conformance::{
    LayerOptions, LayerReport, Origin, VerifyOptions, randomised, verify, verify_layers,
};
use tallow_exporter::{Existing, OnnxOptions, write_onnx};
use tallow_input::{ModelCard, Preprocess};
use tallow_models::Options;
use tempfile::TempDir;

/// A network and the file it was exported to.
struct Exported {
    _folder: TempDir,
    path: PathBuf,
    network: Network,
}

fn export(name: &str, options: &OnnxOptions) -> Exported {
    let graph = tallow_models::build(name, &Options::new(7, 64)).unwrap();
    let weights = randomised(&graph, 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    write_onnx(&path, &graph, &weights, None, options, Existing::Keep).unwrap();
    Exported { _folder: folder, path, network: Network::new(graph, weights) }
}

fn compare(path: &Path, network: Option<&Network>) -> LayerReport {
    let options = VerifyOptions { batches: vec![2], ..Default::default() };
    let report = verify_layers(path, network, &options, &LayerOptions::default()).unwrap();
    println!("{}\n{report}\n", report.table(Some(8)));
    report
}

/// Changes the node called `name`, and its weights.
fn change(path: &Path, name: &str, change: impl Fn(&mut NodeProto, &mut [TensorProto])) {
    let mut model = ModelProto::decode(std::fs::read(path).unwrap().as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let node = graph.node.iter_mut().find(|node| node.name == name).unwrap();
    change(node, &mut graph.initializer);
    std::fs::write(path, model.encode_to_vec()).unwrap();
}

fn shift_pads(node: &mut NodeProto) {
    let pads = node.attribute.iter_mut().find(|attribute| attribute.name == "pads").unwrap();
    let [top, left, bottom, right] = pads.ints[..] else { panic!("{pads:?}") };
    // One row more below instead of above: the shape stays.
    pads.ints = vec![top - 1, left, bottom + 1, right];
}

/// Adds to one weight what is a tenth of the largest.
fn perturb(node: &NodeProto, weights: &mut [TensorProto]) {
    let weight = weights.iter_mut().find(|weight| weight.name == node.input[1]).unwrap();
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    let largest = weight.raw_data.chunks(4).map(|bytes| number(bytes).abs()).fold(0f32, f32::max);
    let changed = number(&weight.raw_data[..4]) + 0.1 * largest;
    weight.raw_data[..4].copy_from_slice(&changed.to_le_bytes());
}

fn other_eps(node: &mut NodeProto) {
    let eps = node.attribute.iter_mut().find(|attribute| attribute.name == "epsilon").unwrap();
    eps.f = 1e-3;
}

/// Breaks the layer, and demands that it is the one that is named, by each engine.
fn is_found(
    exported: &Exported,
    layer: &str,
    op: &str,
    breakage: impl Fn(&mut NodeProto, &mut [TensorProto]),
) {
    change(&exported.path, layer, breakage);
    let report = compare(&exported.path, Some(&exported.network));
    let first = report.first.as_ref().expect("a layer differs");
    assert_eq!((first.row.layer.as_str(), first.row.op.as_str()), (layer, op), "{report}");
    assert_eq!(first.origin, Origin::Layer, "{report}");
    assert_eq!(first.row.reference, "candle");
    let outputs = verify(&exported.path, Some(&exported.network), &VerifyOptions::default()).unwrap();
    assert!(!outputs.agrees, "{outputs}");
    for engine in report.engines.iter().filter(|e| e.engine != "candle" && e.problem.is_none()) {
        assert!(first.row.differences[&engine.engine].max_rel > 1e-5, "{report}");
    }
    assert!(first.row.differences.contains_key("tract"), "{report}");
    for (input, differences) in &first.inputs_differences {
        assert!(
            !differences.is_empty() && differences.values().all(|d| d.max_rel < 1e-5),
            "{input}: {report}"
        );
    }
}

#[test]
fn a_changed_pad_in_the_middle_of_a_resnet_is_found() {
    let exported = export("resnet50", &OnnxOptions::default());
    is_found(&exported, "layer3.0.conv2", "Conv", |node, _| shift_pads(node));
}

#[test]
fn a_changed_weight_in_the_middle_of_a_resnet_is_found() {
    let exported = export("resnet18", &OnnxOptions::default());
    is_found(&exported, "layer2.1.conv1", "Conv", |node, weights| perturb(node, weights));
}

#[test]
fn another_eps_in_the_middle_of_an_efficientnet_is_found() {
    let exported = export("efficientnet_b0", &OnnxOptions { fold: false, ..Default::default() });
    let graph = exported.network.graph();
    let name = "features.4.1.block.1.1";
    assert!(graph.find(name).is_some());
    is_found(&exported, name, "BatchNormalization", |node, _| other_eps(node));
}

#[test]
fn a_changed_pad_and_weight_in_the_middle_of_an_efficientnet_are_found() {
    let exported = export("efficientnet_b0", &OnnxOptions::default());
    is_found(&exported, "features.5.1.block.2.fc1", "Conv", |node, weights| perturb(node, weights));
    // The first of two in the order of computation.
    is_found(&exported, "features.4.1.block.1.0", "Conv", |node, _| shift_pads(node));
}

#[test]
fn a_sound_network_has_no_layer_to_name() {
    for (name, fold, softmax) in
        [("resnet18", true, true), ("efficientnet_b0", true, false), ("efficientnet_lite0", false, false)]
    {
        let exported = export(name, &OnnxOptions { fold, softmax, ..Default::default() });
        let report = compare(&exported.path, Some(&exported.network));
        assert!(report.first.is_none(), "{report}");
        let by_candle = report.layers.iter().filter(|row| row.reference == "candle").count();
        let inference = report.layers.iter().filter(|row| !row.layer.contains("/sigmoid")).count();
        assert_eq!(by_candle, inference, "{name}: every layer has candle's value");
        assert!(by_candle > 30);
        assert!(report.to_string().contains("agree within 1e-5"), "{report}");
        let without = compare(&exported.path, None);
        assert!(without.reference != "candle" && without.first.is_none(), "{without}");
        assert_eq!(without.layers.len(), report.layers.len());
    }
}

#[test]
fn kept_tensors_are_numpys_files_beside_an_index() {
    let exported = export("resnet18", &OnnxOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let kept = LayerOptions { keep_tensors: Some(folder.path().join("tensors")) };
    let options = VerifyOptions { batches: vec![1, 2], noise: true, ..Default::default() };
    let report = verify_layers(&exported.path, Some(&exported.network), &options, &kept).unwrap();
    let at = folder.path().join("tensors");
    let index = std::fs::read_to_string(at.join("index.csv")).unwrap();
    assert!(index.contains("000_conv1.npy,conv1,Conv,images\n"), "{index}");
    assert_eq!(index.lines().count(), 1 + report.layers.len());
    for engine in ["candle", "f64", "tract"] {
        for batch in ["batch0", "batch1"] {
            let files = std::fs::read_dir(at.join(engine).join(batch)).unwrap().count();
            assert_eq!(files, report.layers.len(), "{engine} {batch}");
        }
    }
    let logits = std::fs::read(
        at.join("candle/batch1").join(index.lines().last().unwrap().split(',').next().unwrap()),
    );
    assert_eq!(logits.unwrap().len(), 128 + 4 * 2 * 7);
    assert!(at.join("images/batch1/images.npy").is_file());
    assert!(report.layers.iter().all(|row| row.noise.is_some_and(|noise| noise < 1e-5)), "{report}");
    let text =
        verify_layers(&exported.path, Some(&exported.network), &options, &kept).unwrap_err().to_string();
    assert!(text.contains("tensors: is not empty"), "{text}");
}

/// Takes the small difference of large values, which no f32 arithmetic has whole.
fn cancelling() -> (Graph, Weights) {
    let mut g = GraphBuilder::new("cancelling", Shape::map(3, 12, 12));
    let x = g.conv2d("large", g.input(), ConvSpec::new(64, 5)).unwrap();
    let x = g.conv2d("difference", x, ConvSpec::new(32, 1)).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let graph = g.finish(x).unwrap();
    let mut weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
    let mut rng = Rng::new(5);
    let mut large = vec![];
    for _ in 0..32 {
        let filter: Vec<f32> = (0..75).map(|_| rng.normal() as f32).collect();
        large.extend(&filter);
        large.extend(filter.iter().map(|w| w + 1e-4 * rng.normal() as f32));
    }
    weights.set("large.weight", Tensor::from_vec(large, (64, 3, 5, 5), &Device::Cpu).unwrap());
    let sign = |i: usize| match (i % 64).checked_sub(2 * (i / 64)) {
        Some(0) => -1f32,
        Some(1) => 1.0,
        _ => 0.0,
    };
    let difference = (0..32 * 64).map(sign).collect();
    weights.set("difference.weight", Tensor::from_vec(difference, (32, 64, 1, 1), &Device::Cpu).unwrap());
    (graph, weights)
}

#[test]
fn rounding_that_a_network_amplifies_is_called_that_and_does_not_pass() {
    let (graph, weights) = cancelling();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    write_onnx(&path, &graph, &weights, None, &OnnxOptions::default(), Existing::Keep).unwrap();
    let network = Network::new(graph, weights);
    let report = verify(&path, Some(&network), &VerifyOptions::default()).unwrap();
    println!("{report}");
    assert!(!report.agrees, "{report}");
    assert!(report.to_string().contains("Rounding alone does that: candle itself is"), "{report}");
    let noise = report.row("candle").unwrap().noise.unwrap();
    assert!((2e-5..1e-2).contains(&noise), "{noise}");
    assert!(report.row("tract").unwrap().noise.is_some_and(|tract| tract < 10.0 * noise));

    let options = VerifyOptions { noise: true, ..Default::default() };
    let layers = verify_layers(&path, Some(&network), &options, &LayerOptions::default()).unwrap();
    println!("{layers}");
    let first = layers.first.as_ref().unwrap();
    assert_eq!((first.row.layer.as_str(), first.origin), ("difference", Origin::Rounding), "{layers}");
}

#[test]
fn files_that_give_maps_or_take_bytes_are_compared_too() {
    let graph = tallow_models::build("efficientnet_lite0", &Options::new(7, 64)).unwrap();
    let network = Network::new(graph.clone(), randomised(&graph, 1).unwrap());
    let labels = (0..7).map(|class| format!("class {class}")).collect();
    let card = ModelCard::new("efficientnet_lite0", labels, Preprocess::imagenet(64, 64));
    let folder = tempfile::tempdir().unwrap();
    for (name, options) in [
        ("maps.onnx", OnnxOptions { cam: true, ..Default::default() }),
        ("bytes.onnx", OnnxOptions { embed_preprocessing: true, cam: true, ..Default::default() }),
    ] {
        let path = folder.path().join(name);
        write_onnx(&path, &graph, network.weights(), Some(&card), &options, Existing::Keep).unwrap();
        let report =
            verify(&path, Some(&network), &VerifyOptions { noise: true, ..Default::default() }).unwrap();
        println!("{report}");
        assert!(report.agrees, "{report}");
        let tract = report.row("tract").unwrap();
        let compared: Vec<&str> = tract.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(compared[1..], ["cam"], "{report}");
        assert!(tract.noise.is_some_and(|noise| noise < 1e-5), "{report}");
        let layers = compare(&path, Some(&network));
        assert!(layers.first.is_none(), "{layers}");
        assert!(layers.layers.iter().filter(|row| row.reference == "candle").count() > 80, "{layers}");
        assert_eq!(layers.layers.iter().find(|row| row.value == "cam").unwrap().reference, "candle");
    }
}
