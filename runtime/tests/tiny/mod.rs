//! A tiny convolutional classifier written as ONNX by hand, and its result computed by plain loops.
//! Independent of the exporter and of every engine, so that both engines can be checked against it.
//! Field numbers: onnx.proto3.

#![allow(dead_code)] // each test file uses a part

use ndarray::{Array2, Array4, ArrayView4};
use prost::Message;
use tallow_input::{ModelCard, OutputKind, Preprocess};

macro_rules! message {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* }) => {
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct $name { $($(#[$attribute])* pub $field: $kind,)* }
    };
}
message!(Model {
    #[prost(int64, tag = "1")] ir_version: i64,
    #[prost(string, tag = "2")] producer_name: String,
    #[prost(message, optional, tag = "7")] graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")] opset_import: Vec<Opset>,
    #[prost(message, repeated, tag = "14")] metadata_props: Vec<Entry>,
});
message!(Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
});
message!(Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
});
message!(Graph {
    #[prost(message, repeated, tag = "1")] node: Vec<Node>,
    #[prost(string, tag = "2")] name: String,
    #[prost(message, repeated, tag = "5")] initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")] input: Vec<Value>,
    #[prost(message, repeated, tag = "12")] output: Vec<Value>,
});
message!(Node {
    #[prost(string, repeated, tag = "1")] input: Vec<String>,
    #[prost(string, repeated, tag = "2")] output: Vec<String>,
    #[prost(string, tag = "3")] name: String,
    #[prost(string, tag = "4")] op_type: String,
    #[prost(message, repeated, tag = "5")] attribute: Vec<Attribute>,
});
message!(Attribute {
    #[prost(string, tag = "1")] name: String,
    #[prost(int64, tag = "3")] i: i64,
    #[prost(int64, repeated, tag = "8")] ints: Vec<i64>,
    #[prost(int32, tag = "20")] kind: i32,
});
message!(Tensor {
    #[prost(int64, repeated, tag = "1")] dims: Vec<i64>,
    #[prost(int32, tag = "2")] data_type: i32,
    #[prost(string, tag = "8")] name: String,
    #[prost(bytes = "vec", tag = "9")] raw_data: Vec<u8>,
});
message!(Value { #[prost(string, tag = "1")] name: String, #[prost(message, optional, tag = "2")] kind: Option<Type>, });
message!(Type { #[prost(message, optional, tag = "1")] tensor: Option<TensorType>, });
message!(TensorType { #[prost(int32, tag = "1")] elem: i32, #[prost(message, optional, tag = "2")] shape: Option<Shape>, });
message!(Shape { #[prost(message, repeated, tag = "1")] dim: Vec<Dim>, });
message!(Dim { #[prost(int64, optional, tag = "1")] value: Option<i64>, #[prost(string, optional, tag = "2")] param: Option<String>, });

pub const SIDE: usize = 9;
pub const FEATURES: usize = 4;
pub const CLASSES: usize = 3;

/// Numbers in -1..1 that look random and are the same every time.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A batch of random images `[n, 3, SIDE, SIDE]`.
pub fn images(seed: u64, n: usize) -> Array4<f32> {
    Array4::from_shape_vec((n, 3, SIDE, SIDE), numbers(seed, n * 3 * SIDE * SIDE)).unwrap()
}

pub fn card() -> ModelCard {
    let labels = ["cat", "dog", "emu"].map(String::from).to_vec();
    ModelCard::new("tiny", labels, Preprocess::imagenet(SIDE as u32, SIDE as u32))
}

fn value(name: &str, dims: &[Result<i64, &str>]) -> Value {
    let dim = |d: &Result<i64, &str>| match d {
        Ok(value) => Dim { value: Some(*value), param: None },
        Err(name) => Dim { value: None, param: Some((*name).into()) },
    };
    let shape = Some(Shape { dim: dims.iter().map(dim).collect() });
    Value { name: name.into(), kind: Some(Type { tensor: Some(TensorType { elem: 1, shape }) }) }
}

fn node(op: &str, input: &[&str], output: &str, ints: &[(&str, &[i64])]) -> Node {
    let attribute = |(name, ints): &(&str, &[i64])| Attribute {
        name: (*name).into(),
        ints: ints.to_vec(),
        kind: 7,
        i: 0,
    };
    Node {
        input: input.iter().map(|name| name.to_string()).collect(),
        output: vec![output.into()],
        name: format!("{op}_{output}"),
        op_type: op.into(),
        attribute: ints.iter().map(attribute).collect(),
    }
}

fn weight(name: &str, dims: &[usize], seed: u64) -> Tensor {
    let raw_data = numbers(seed, dims.iter().product()).iter().flat_map(|v| v.to_le_bytes()).collect();
    Tensor { dims: dims.iter().map(|d| *d as i64).collect(), data_type: 1, name: name.into(), raw_data }
}

/// conv 3x3 stride 2 pad 1 → relu (second output `features`) → global average pool → flatten → gemm [→ softmax].
pub fn model(batch: Option<usize>, card: Option<&ModelCard>) -> Model {
    let n = batch.map_or(Err("N"), |n| Ok(n as i64));
    let side = SIDE as i64;
    let softmax = card.is_some_and(|card| card.output == OutputKind::Probabilities);
    let mut nodes = vec![
        node("Conv", &["images", "w1", "b1"], "conv", &[("strides", &[2, 2]), ("pads", &[1, 1, 1, 1])]),
        node("Relu", &["conv"], "features", &[]),
        node("GlobalAveragePool", &["features"], "pooled", &[]),
        node("Flatten", &["pooled"], "flat", &[]),
        node("Gemm", &["flat", "w2", "b2"], "logits", &[]),
    ];
    let scores = if softmax {
        nodes.push(node("Softmax", &["logits"], "probabilities", &[]));
        "probabilities"
    } else {
        "logits"
    };
    let half = (SIDE as i64 + 1) / 2;
    Model {
        ir_version: 8,
        producer_name: "by hand".into(),
        opset_import: vec![Opset { domain: String::new(), version: 17 }],
        metadata_props: card.map_or(Vec::new(), |card| {
            card.to_props().into_iter().map(|(key, value)| Entry { key, value }).collect()
        }),
        graph: Some(Graph {
            node: nodes,
            name: "tiny".into(),
            initializer: vec![
                weight("w1", &[FEATURES, 3, 3, 3], 1),
                weight("b1", &[FEATURES], 2),
                weight("w2", &[FEATURES, CLASSES], 3),
                weight("b2", &[CLASSES], 4),
            ],
            input: vec![value("images", &[n, Ok(3), Ok(side), Ok(side)])],
            // The scores come second, so that finding them by name is tested.
            output: vec![
                value("features", &[n, Ok(FEATURES as i64), Ok(half), Ok(half)]),
                value(scores, &[n, Ok(CLASSES as i64)]),
            ],
        }),
    }
}

pub fn bytes(batch: Option<usize>, card: Option<&ModelCard>) -> Vec<u8> {
    model(batch, card).encode_to_vec()
}

/// The features and logits of the network, in f64 by plain loops.
pub fn expected(images: ArrayView4<'_, f32>) -> (Array4<f64>, Array2<f64>) {
    let (w1, b1) = (numbers(1, FEATURES * 27), numbers(2, FEATURES));
    let (w2, b2) = (numbers(3, FEATURES * CLASSES), numbers(4, CLASSES));
    let (n, half) = (images.shape()[0], SIDE.div_ceil(2));
    let mut features = Array4::zeros((n, FEATURES, half, half));
    for ((i, f, y, x), out) in features.indexed_iter_mut() {
        let mut sum = f64::from(b1[f]);
        for (c, ky, kx) in ndarray::indices((3, 3, 3)) {
            let (row, column) = ((2 * y + ky).wrapping_sub(1), (2 * x + kx).wrapping_sub(1));
            if row < SIDE && column < SIDE {
                sum +=
                    f64::from(w1[((f * 3 + c) * 3 + ky) * 3 + kx]) * f64::from(images[[i, c, row, column]]);
            }
        }
        *out = sum.max(0.0);
    }
    let mut logits = Array2::zeros((n, CLASSES));
    for ((i, k), out) in logits.indexed_iter_mut() {
        *out = f64::from(b2[k]);
        for f in 0..FEATURES {
            let mean = features.slice(ndarray::s![i, f, .., ..]).sum() / (half * half) as f64;
            *out += mean * f64::from(w2[f * CLASSES + k]);
        }
    }
    (features, logits)
}
