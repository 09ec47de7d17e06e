//! What a layer graph promises: shapes, names, costs, clear refusals, and a description that survives a file.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Padding, Shape};
use tallow_builder::weights::{read_safetensors, write_safetensors};
use tallow_builder::{Graph, GraphBuilder, Weights};

/// A residual block with squeeze-and-excitation and a head: most of what a network is made of.
fn small() -> Graph {
    let mut g = GraphBuilder::new("small", Shape::map(3, 9, 12));
    let x = g.input();
    let x = g.conv2d("stem", x, ConvSpec::new(8, 3).stride(2).padding(Padding::Same)).unwrap();
    let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
    let x = g.activation("silu", x, Activation::Silu).unwrap();
    let y = g.conv2d("depthwise", x, ConvSpec::new(8, 5).padding(2).groups(8)).unwrap();
    let s = g.global_avg_pool("squeeze", y).unwrap();
    let s = g.conv2d("excite", s, ConvSpec::new(8, 1).bias()).unwrap();
    let s = g.activation("gate", s, Activation::SIGMOID).unwrap();
    let y = g.scale("scale", y, s).unwrap();
    let y = g.stochastic_depth("drop", y, 0.2).unwrap();
    let x = g.sum("add", x, y).unwrap();
    let x = g.max_pool("maxpool", x, 3, 2, 1).unwrap();
    let x = g.flatten("flatten", x).unwrap();
    let x = g.dropout("dropout", x, 0.5).unwrap();
    let x = g.linear("fc", x, Linear::uniform(4, 0.1)).unwrap();
    g.finish(x).unwrap()
}

#[test]
fn shapes_and_costs_are_inferred() {
    let graph = small();
    let shape = |name: &str| graph.node(graph.find(name).unwrap()).shape;
    assert_eq!(shape("stem"), Shape::map(8, 5, 6));
    assert_eq!(shape("squeeze"), Shape::map(8, 1, 1));
    assert_eq!(shape("maxpool"), Shape::map(8, 3, 3));
    assert_eq!(graph.output_shape(), Shape::vector(4));
    let totals = graph.totals();
    assert_eq!(totals.parameters, 216 + 16 + 200 + 72 + 72 * 4 + 4);
    assert_eq!(totals.buffers, 17);
    assert_eq!(totals.macs, 216 * 30 + 200 * 30 + 64 + 288);
    let stem = &graph.costs()[1];
    assert_eq!((stem.kernel, stem.stride, stem.activation_bytes), (Some([3, 3]), Some([2, 2]), 4 * 240));
}

#[test]
fn a_description_survives_a_file_and_a_wrong_one_is_refused() {
    let graph = small();
    let text = serde_json::to_string(&graph).unwrap();
    assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph);
    let broken = text.replace("\"width\":12", "\"width\":13");
    let other: Graph = serde_json::from_str(&broken).unwrap();
    assert_eq!(
        other.node(other.find("stem").unwrap()).shape,
        Shape::map(8, 5, 6),
        "shapes are inferred anew"
    );
    let broken = text.replace("\"groups\":8", "\"groups\":3");
    let error = serde_json::from_str::<Graph>(&broken).unwrap_err().to_string();
    assert!(error.contains("`depthwise`") && error.contains("3 groups"), "{error}");
}

#[test]
fn refusals_name_the_layer_and_the_shapes() {
    let mut g = GraphBuilder::new("wrong", Shape::map(3, 8, 8));
    let x = g.input();
    let a = g.conv2d("a", x, ConvSpec::new(4, 1)).unwrap();
    let b = g.conv2d("b", x, ConvSpec::new(4, 3)).unwrap();
    let v = g.flatten("v", x).unwrap();
    let refused = |text: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    let error = g.sum("add", a, b).unwrap_err().to_string();
    refused(error, &["`add`", "4×8×8", "4×6×6", "equal"]);
    let error = g.scale("scale", a, b).unwrap_err().to_string();
    refused(error, &["`scale`", "4×8×8", "C×1×1"]);
    let error = g.conv2d("big", x, ConvSpec::new(4, 11)).unwrap_err().to_string();
    refused(error, &["`big`", "3×8×8", "11×11", "8×8"]);
    let error = g.conv2d("groups", x, ConvSpec::new(4, 3).groups(2)).unwrap_err().to_string();
    refused(error, &["`groups`", "3×8×8", "2 groups"]);
    let error = g.conv2d("stride", x, ConvSpec::new(4, 3).stride(0)).unwrap_err().to_string();
    refused(error, &["`stride`", "stride must be at least 1"]);
    let error = g.max_pool("pool", x, 2, 2, 2).unwrap_err().to_string();
    refused(error, &["`pool`", "smaller than the kernel"]);
    let error = g.linear("fc", a, Linear::uniform(2, 0.1)).unwrap_err().to_string();
    refused(error, &["`fc`", "4×8×8", "flatten"]);
    let error = g.batch_norm("bn", v, BatchNorm::default()).unwrap_err().to_string();
    refused(error, &["`bn`", "192", "C×H×W"]);
    let error = g.dropout("drop", x, 1.0).unwrap_err().to_string();
    refused(error, &["`drop`", "[0, 1)"]);
    let error = g.activation("a", x, Activation::Relu).unwrap_err().to_string();
    refused(error, &["two layers are named `a`"]);
    let error = g.finish(a).unwrap_err().to_string();
    refused(error, &["nothing takes the output of layer `b`"]);
}

#[test]
fn weights_load_strictly_and_every_difference_is_listed() {
    let graph = small();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let weights = Weights::init(&graph, 3, &Device::Cpu).unwrap();
    weights.save(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    Weights::load(&graph, &path, &Device::Cpu).unwrap().save(&path).unwrap();
    assert!(first == std::fs::read(&path).unwrap(), "the same weights give the same bytes");

    let mut tensors: BTreeMap<String, Tensor> = read_safetensors(&path, &Device::Cpu).unwrap();
    tensors.remove("bn.running_var");
    tensors.insert("extra.weight".into(), Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap());
    tensors.insert("fc.bias".into(), Tensor::zeros(5, DType::F32, &Device::Cpu).unwrap());
    let wrong = folder.path().join("wrong.safetensors");
    write_safetensors(&wrong, &tensors).unwrap();
    let error = Weights::load(&graph, &wrong, &Device::Cpu).unwrap_err().to_string();
    for part in
        ["wrong.safetensors", "1 missing: bn.running_var", "1 unexpected: extra.weight", "needs [4], has [5]"]
    {
        assert!(error.contains(part), "{error}");
    }

    // Every cut of the file is an error that names it.
    for length in [0, 4, 8, 100, first.len() / 2, first.len() - 1] {
        std::fs::write(&wrong, &first[..length]).unwrap();
        let error = Weights::load(&graph, &wrong, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("wrong.safetensors"), "{error}");
    }
}

#[test]
fn half_precision_weights_are_converted() {
    let graph = small();
    let weights = Weights::init(&graph, 3, &Device::Cpu).unwrap();
    let half = weights.iter().map(|(name, tensor)| {
        let dtype = if tensor.dtype() == DType::I64 { DType::I64 } else { DType::F16 };
        (name.to_owned(), tensor.to_dtype(dtype).unwrap())
    });
    let loaded = Weights::from_tensors(&graph, half.collect(), "memory").unwrap();
    assert_eq!(loaded.get("stem.weight").dtype(), DType::F32);
}
