//! Every network at any size and with every option: a graph, or an error that says what is wrong.

use tallow_builder::Graph;
use tallow_builder::graph::{Op, Padding, Pads, Shape};
use tallow_input::Interpolation;
use tallow_models::{
    Architecture, Block, Error, Options, PaddingStyle, PlainCnn, ResNet, Stem, architectures, build, find,
    names,
};

fn sized(width: usize, height: usize) -> Options {
    Options { width: Some(width), height: Some(height), ..Options::new(7, 1) }
}

fn probabilities(network: &str, options: &Options) -> Vec<(String, f64)> {
    let graph = build(network, options).expect("the options are in range");
    let probability = |op: &Op| match *op {
        Op::Dropout { p } | Op::StochasticDepth { p } => Some(p),
        _ => None,
    };
    graph.nodes().iter().filter_map(|node| Some((node.name.clone(), probability(&node.op)?))).collect()
}

#[test]
fn every_network_builds_at_any_size_in_both_paddings() {
    for Architecture { name, .. } in architectures() {
        for (width, height) in [(1, 1), (1, 9), (8, 8), (17, 4), (31, 33), (97, 64), (80, 65)] {
            for padding in [PaddingStyle::Symmetric, PaddingStyle::Same] {
                let options = Options { padding: Some(padding), ..sized(width, height) };
                match build(name, &options) {
                    Ok(graph) => {
                        assert_eq!(graph.name(), *name);
                        assert_eq!(graph.input_shape(), Shape::map(3, height, width), "{name}");
                        assert_eq!(graph.output_shape(), Shape::vector(7), "{name}");
                    }
                    Err(error) => {
                        assert!(*name == "plain_cnn" && width.min(height) < 4, "{error}");
                        let text = error.to_string();
                        assert!(
                            text.contains("pool") && text.contains(&format!("{width}×{height}")),
                            "{text}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_network_without_options_has_its_native_size_and_classes() {
    for network in architectures() {
        let graph = network.build(&Options::default()).unwrap();
        assert_eq!(graph.input_shape(), Shape::map(3, network.native, network.native));
        assert_eq!(graph.output_shape(), Shape::vector(network.classes));
    }
    assert_eq!(find("efficientnet_lite4").unwrap().native, 300);
}

#[test]
fn every_network_reads_back_as_it_was_written() {
    for name in names() {
        let graph = build(name, &Options::default()).unwrap();
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph, "{name}");
    }
}

#[test]
fn names_are_unique() {
    let mut all: Vec<&str> = names().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), architectures().len());
}

#[test]
fn an_option_out_of_range_is_named() {
    let nan = Some(f64::NAN);
    for (options, expected) in [
        (
            Options { classes: Some(0), ..Options::default() },
            "`resnet20`: classes must lie in 1 to 10000000, is 0",
        ),
        (Options { height: Some(0), ..Options::default() }, "height must lie in 1 to 16384, is 0"),
        (
            Options { dropout: Some(1.0), ..Options::default() },
            "`resnet20`: dropout must lie in [0, 1), is 1",
        ),
        (
            Options { stochastic_depth: nan, ..Options::default() },
            "stochastic depth must lie in [0, 1), is NaN",
        ),
        (Options { batch_norm_eps: Some(0.0), ..Options::default() }, "batch norm eps must be above 0, is 0"),
    ] {
        let error = build("resnet20", &options).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let drop = Options { stochastic_depth: Some(0.1), ..Options::default() };
    assert!(build("plain_cnn", &drop).unwrap_err().to_string().contains("residual branches"));
    let empty = PlainCnn { stages: vec![], ..PlainCnn::default() };
    assert!(matches!(empty.build("empty", &Options::default()), Err(Error::Option { option: "stages", .. })));
}

#[test]
fn dropout_and_stochastic_depth_follow_the_options() {
    let with = |dropout, stochastic_depth| Options {
        dropout: Some(dropout),
        stochastic_depth: Some(stochastic_depth),
        ..Options::new(10, 32)
    };
    assert_eq!(probabilities("efficientnet_b0", &with(0.0, 0.0)), []);
    assert_eq!(probabilities("plain_cnn", &with(0.25, 0.0)), [("dropout".to_owned(), 0.25)]);

    // Huang et al. 2016: from 1/L of the rate at the first block to all of it at the last.
    let drops = probabilities("resnet20", &with(0.5, 0.18));
    assert_eq!(drops.len(), 10);
    assert_eq!(drops[0].0, "layer1.0.stochastic_depth");
    assert!((drops[0].1 - 0.02).abs() < 1e-12 && (drops[8].1 - 0.18).abs() < 1e-12, "{drops:?}");
    assert_eq!(drops[9], ("dropout".to_owned(), 0.5));

    // 16 blocks, of which 9 keep their shape; the first block of all is never dropped.
    let drops = probabilities("efficientnet_lite0", &with(0.1, 0.4));
    assert_eq!(drops.len(), 10);
    assert!((drops[0].1 - 0.4 * 2.0 / 16.0).abs() < 1e-12, "{drops:?}");
    assert_eq!(drops[9], ("classifier.0".to_owned(), 0.1));
}

#[test]
fn lite_pads_as_tensorflow_does_and_has_no_gates() {
    let graph = build("efficientnet_lite0", &Options::default()).unwrap();
    let stem = &graph.node(graph.find("features.0.0").unwrap()).op;
    assert!(
        matches!(stem, Op::Conv2d(conv) if conv.padding == Pads { top: 0, bottom: 1, left: 0, right: 1 })
    );
    assert!(!graph.nodes().iter().any(|node| matches!(node.op, Op::Mul)));

    let options = Options { padding: Some(PaddingStyle::Symmetric), ..Options::default() };
    let graph = build("efficientnet_lite0", &options).unwrap();
    let stem = &graph.node(graph.find("features.0.0").unwrap()).op;
    assert!(matches!(stem, Op::Conv2d(conv) if Padding::from(conv.padding) == Padding::from(1)));
}

#[test]
fn batch_norm_eps_reaches_every_layer() {
    let graph =
        build("efficientnet_b0", &Options { batch_norm_eps: Some(1e-3), ..Options::default() }).unwrap();
    let norms: Vec<f64> = graph
        .nodes()
        .iter()
        .filter_map(|n| match &n.op {
            Op::BatchNorm(bn) => Some(bn.eps),
            _ => None,
        })
        .collect();
    assert_eq!(norms, [1e-3; 49]);
}

#[test]
fn a_residual_network_of_ones_own_builds() {
    let net = ResNet { block: Block::Bottleneck, layers: &[1, 1], planes: 8, stem: Stem::Cifar };
    let graph = net.build("mine", &Options::new(3, 16)).unwrap();
    let last = graph.find("layer2.0.relu").unwrap();
    assert_eq!(graph.node(last).shape, Shape::map(64, 8, 8));
}

/// The side that torchvision's `IMAGENET1K_V1` presets, and Lite's evaluation code, resize to before the crop.
#[test]
fn images_are_resized_as_the_published_weights_want_them() {
    for (name, resized, filter) in [
        ("resnet18", 256, Interpolation::Bilinear),
        ("resnet152", 256, Interpolation::Bilinear),
        ("resnet20", 32, Interpolation::Bilinear),
        ("efficientnet_b0", 256, Interpolation::Bicubic),
        ("efficientnet_b1", 256, Interpolation::Bicubic),
        ("efficientnet_b3", 320, Interpolation::Bicubic),
        ("efficientnet_b4", 384, Interpolation::Bicubic),
        ("efficientnet_b5", 456, Interpolation::Bicubic),
        ("efficientnet_b6", 528, Interpolation::Bicubic),
        ("efficientnet_b7", 600, Interpolation::Bicubic),
        ("efficientnet_lite0", 256, Interpolation::Bicubic),
        ("efficientnet_lite4", 332, Interpolation::Bicubic),
    ] {
        let network = find(name).unwrap();
        let side = network.native as u32;
        let preprocess = network.preprocess(side, side);
        preprocess.validate().unwrap();
        assert_eq!((preprocess.width, preprocess.interpolation), (side, filter), "{name}");
        assert_eq!(preprocess.resized_size(1000, 1000), (resized, resized), "{name}");
    }
    // torchvision's B2 weights are evaluated at 288 pixels without a margin; the paper's resolution is 260.
    assert_eq!(find("efficientnet_b2").unwrap().preprocess(288, 288).resized_size(400, 300), (384, 288));
    let lite = find("efficientnet_lite0").unwrap().preprocess(224, 224);
    assert!((255.0 * lite.mean[0] - 127.0).abs() < 1e-4 && (255.0 * lite.std[2] - 128.0).abs() < 1e-4);
}
