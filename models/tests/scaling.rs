//! Wider, deeper and larger: what scaling does to every family, and that the scaled baseline is the published network.

use tallow_builder::Graph;
use tallow_builder::graph::Shape;
use tallow_models::{Compound, Options, PUBLISHED, Scaling, Stage, Table, architectures, build, find};

fn scaled(network: &str, width: f64, depth: f64) -> Graph {
    build(network, &Options { scaling: Scaling { width, depth }, ..Options::default() })
        .expect("the factors are in range")
}

/// Parameters and MACs of torchvision's networks, at the paper's resolutions (counted with PyTorch).
const COSTS: [(usize, u64); 8] = [
    (5_288_548, 385_814_752),
    (7_794_184, 686_802_832),
    (9_109_994, 993_561_872),
    (12_233_232, 1_827_141_392),
    (19_341_616, 4_393_771_024),
    (30_389_784, 10_266_384_752),
    (43_040_704, 19_067_593_536),
    (66_347_960, 37_745_884_192),
];

#[test]
fn b0_scaled_by_the_published_coefficients_is_b1_to_b7() {
    for (network, (parameters, macs)) in PUBLISHED.iter().zip(COSTS) {
        let scaling = Scaling { width: network.width, depth: network.depth };
        let options = Options { scaling, ..Options::new(1000, network.resolution) };
        let graph = build("efficientnet_b0", &options).unwrap();
        let totals = graph.totals();
        assert_eq!((totals.parameters, totals.macs), (parameters, macs), "{}", network.name);
        let named = build(network.name, &Options::default()).unwrap();
        let names = |graph: &Graph| graph.nodes().iter().map(|node| node.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&graph), names(&named));
    }
}

#[test]
fn cost_about_doubles_with_phi_where_rounding_is_small() {
    let base = build("efficientnet_b0", &Options::default()).unwrap().totals().macs as f64;
    for phi in [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] {
        let side = Compound::PAPER.rounded_resolution(224, phi, 1);
        let options = Options { scaling: Compound::PAPER.scaling(phi), ..Options::new(1000, side) };
        let ratio = build("efficientnet_b0", &options).unwrap().totals().macs as f64 / base;
        let law = 2f64.powf(phi);
        // Repeats are rounded up: the shallowest networks gain most by it.
        assert!((0.75..1.5).contains(&(ratio / law)), "φ {phi}: {ratio:.2} times, 2^φ {law}");
    }
}

#[test]
fn factor_one_gives_the_very_same_graph() {
    for network in architectures() {
        let plain = network.build(&Options::default()).unwrap();
        assert_eq!(scaled(network.name, 1.0, 1.0), plain, "{}", network.name);
        assert_eq!(plain.name(), network.name);
    }
}

#[test]
fn every_network_grows_wider_and_deeper() {
    for network in architectures() {
        let name = network.name;
        let layers = |graph: &Graph| graph.costs().iter().filter(|layer| layer.macs > 0).count();
        let plain = scaled(name, 1.0, 1.0);
        let wide = scaled(name, 2.0, 1.0);
        assert_eq!(layers(&wide), layers(&plain), "{name}");
        let growth = wide.totals().parameters as f64 / plain.totals().parameters as f64;
        assert!((2.0..4.1).contains(&growth), "{name}: {growth}");
        assert_eq!(wide.name(), format!("{name}_w2"));
        let deep = scaled(name, 1.0, 2.0);
        assert!(layers(&deep) > layers(&plain), "{name}");
        assert_eq!(scaled(name, 1.5, 0.5).name(), format!("{name}_w1.5_d0.5"));
        for layer in wide.costs().iter().filter(|layer| layer.op == "conv2d" && layer.kernel != Some([1, 1]))
        {
            assert!(layer.output[0].is_multiple_of(8), "{name}: {} has {}", layer.name, layer.output[0]);
        }
    }
    let deep = scaled("resnet18", 1.0, 1.5);
    assert!(deep.find("layer4.2.conv2").is_some() && deep.find("layer4.3.conv1").is_none());
    assert!(scaled("plain_cnn", 1.0, 1.5).find("stage3.2.conv").is_some());
    let bottleneck = scaled("resnet50", 0.5, 1.0);
    let last = bottleneck.find("layer4.2.relu").unwrap();
    assert_eq!(bottleneck.node(last).shape, Shape::map(1024, 7, 7));
}

#[test]
fn the_tables_default_is_b0() {
    let options = Options { table: Some(Table::default()), ..Options::default() };
    let graph = build("efficientnet_b0", &options).unwrap();
    let plain = build("efficientnet_b0", &Options::default()).unwrap();
    assert_eq!(graph.nodes(), plain.nodes());
    assert_eq!(graph.name(), "efficientnet_b0_stages");
}

#[test]
fn a_table_of_ones_own_builds_and_scales() {
    let stage =
        |kernel, stride, expand, channels, se| Stage { kernel, stride, expand, channels, repeats: 2, se };
    let stages = vec![stage(7, 1, 1, 8, Some(0.0)), stage(5, 2, 3, 16, Some(0.25)), stage(3, 2, 4, 24, None)];
    let table = Some(Table { stem: 8, stem_stride: 1, head: 64, stages });
    let options = Options { table, ..Options::new(10, 16) };
    let graph = build("efficientnet_lite0", &options).unwrap();
    let gates = graph.nodes().iter().filter(|node| node.name.ends_with(".mul")).count();
    assert_eq!(gates, 2, "Lite has none of its own, the second stage asks for them");
    let find = |name: &str| graph.node(graph.find(name).unwrap()).shape;
    assert_eq!(find("features.3.1.add"), Shape::map(24, 4, 4));
    // expand 1: the depthwise convolution is the block's first.
    assert_eq!(find("features.1.0.block.0.0"), Shape::map(8, 16, 16));
    assert_eq!(find("features.2.0.block.2.fc1"), Shape::map(2, 1, 1));
    let wide = Options { scaling: Scaling { width: 2.0, depth: 1.0 }, ..options };
    assert!(build("efficientnet_b0", &wide).unwrap().totals().parameters > 2 * graph.totals().parameters);
}

#[test]
fn factors_and_tables_out_of_range_are_named() {
    let scaling = |width, depth| Options { scaling: Scaling { width, depth }, ..Options::default() };
    let stage = Stage { kernel: 3, stride: 1, expand: 1, channels: 8, repeats: 1, se: None };
    let table = |stage: Stage| Options {
        table: Some(Table { stages: vec![stage], ..Table::default() }),
        ..Options::default()
    };
    for (options, expected) in [
        (scaling(0.0, 1.0), "width factor must be above 0 and at most 16, is 0"),
        (scaling(1.0, f64::NAN), "depth factor must be above 0 and at most 16, is NaN"),
        (scaling(1.0, 17.0), "depth factor"),
        (table(Stage { kernel: 4, ..stage }), "stages (number 1) need an odd kernel, not 4"),
        (table(Stage { expand: 0, ..stage }), "expand of 1 to 64, not 0"),
        (table(Stage { channels: 1 << 40, ..stage }), "channels of 1 to 65536"),
        (table(Stage { se: Some(1.5), ..stage }), "se in [0, 1], not 1.5"),
    ] {
        let error = build("efficientnet_b0", &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = build("resnet18", &table(stage)).unwrap_err().to_string();
    assert!(error.contains("an EfficientNet's"), "{error}");
    assert_eq!(find("efficientnet_lite4").unwrap().table().unwrap().stages[0].se, Some(0.0));
}
