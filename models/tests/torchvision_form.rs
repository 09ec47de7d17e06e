//! The zoo's networks have the names, shapes, costs and regularisation that torchvision's have; the CIFAR ResNets those
//! that torchvision's blocks give, Lite those of timm.
//! The fixtures come from tests/parity/make_fixtures.py.

use serde::Deserialize;
use tallow_builder::Graph;
use tallow_builder::graph::{Op, Role};
use tallow_models::{Options, build};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    parameters: usize,
    tensors: usize,
    fnv1a64: String,
    lines: Option<Vec<String>>,
    batch_norm_eps: f64,
    batch_norm_momentum: Option<f64>,
    dropout: Option<f64>,
    stochastic_depth: Option<Vec<(String, f64)>>,
}

fn cases() -> Vec<Case> {
    let text = include_str!("../../tests/parity/fixtures/state_dicts.json");
    serde_json::from_str::<Fixture>(text).expect("the fixture is valid").cases
}

fn native(name: &str) -> Graph {
    build(name, &Options::default()).expect("the zoo's networks fit their native resolution")
}

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn names_and_shapes_are_torchvisions_in_order() {
    for case in cases() {
        let lines: Vec<String> = native(&case.model)
            .parameters()
            .iter()
            .filter(|p| p.role != Role::BatchesTracked)
            .map(|p| {
                let dims: Vec<String> = p.shape.iter().map(usize::to_string).collect();
                format!("{} {}", p.name, dims.join("x"))
            })
            .collect();
        if let Some(expected) = &case.lines {
            for (i, (ours, theirs)) in lines.iter().zip(expected).enumerate() {
                assert_eq!(ours, theirs, "{}: tensor {i}", case.model);
            }
        }
        assert_eq!(lines.len(), case.tensors, "{}", case.model);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(format!("{:016x}", fnv1a64(&text)), case.fnv1a64, "{}", case.model);
    }
}

#[test]
fn parameters_are_torchvisions_to_the_unit() {
    for case in cases() {
        assert_eq!(native(&case.model).totals().parameters, case.parameters, "{}", case.model);
    }
}

#[test]
fn batch_norm_dropout_and_stochastic_depth_are_torchvisions() {
    for case in cases() {
        let graph = native(&case.model);
        let mut dropout = 0.0;
        let mut stochastic_depth = vec![];
        for node in graph.nodes() {
            match &node.op {
                Op::BatchNorm(bn) => {
                    assert_eq!(bn.eps, case.batch_norm_eps, "{} {}", case.model, node.name);
                    let momentum = case.batch_norm_momentum.unwrap_or(bn.momentum);
                    assert_eq!(bn.momentum, momentum, "{} {}", case.model, node.name);
                }
                Op::Dropout { p } => dropout = *p,
                Op::StochasticDepth { p } => {
                    let block = node.name.trim_end_matches(".stochastic_depth");
                    stochastic_depth.push((block.to_owned(), *p));
                }
                _ => {}
            }
        }
        if let Some(expected) = case.dropout {
            assert_eq!(dropout, expected, "{}", case.model);
        }
        if let Some(expected) = case.stochastic_depth {
            assert_eq!(stochastic_depth, expected, "{}", case.model);
        }
    }
}

/// Multiply-accumulates of one image at the native resolution, half of what PyTorch's flop counter gives, and buffers.
const COSTS: [(&str, u64, usize); 13] = [
    ("resnet18", 1_814_073_344, 9_620),
    ("resnet34", 3_663_761_408, 17_060),
    ("resnet50", 4_089_184_256, 53_173),
    ("resnet101", 7_801_405_440, 105_448),
    ("resnet152", 11_513_626_624, 151_579),
    ("efficientnet_b0", 385_814_752, 42_065),
    ("efficientnet_b1", 686_802_832, 62_117),
    ("efficientnet_b2", 993_561_872, 67_637),
    ("efficientnet_b3", 1_827_141_392, 87_374),
    ("efficientnet_b4", 4_393_771_024, 125_296),
    ("efficientnet_b5", 10_266_384_752, 172_852),
    ("efficientnet_b6", 19_067_593_536, 224_566),
    ("efficientnet_b7", 37_745_884_192, 310_883),
];

#[test]
fn macs_and_buffers_at_the_native_resolution_are_pytorchs() {
    for (name, macs, buffers) in COSTS {
        let totals = native(name).totals();
        assert_eq!(totals.macs, macs, "{name}");
        assert_eq!(totals.buffers, buffers, "{name}");
    }
}
