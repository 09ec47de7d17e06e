//! Small networks around every operation, activation and kind of padding, with sizes that are odd and not square.
//! Each comes with the operator that candle-onnx lacks for it.

use tallow_builder::graph::{Activation, BatchNorm, ConvSpec, Linear, Op, Padding, Pads, Pool, Shape};
use tallow_builder::{Graph, GraphBuilder, NodeId, Result};

/// A network, and what candle-onnx lacks for it.
pub type Case = (Graph, Option<&'static str>);

/// Channels that the constructions get.
const CHANNELS: usize = 4;

/// A network of 11×14 images around one construction. Images of another number of channels than the constructions take
/// pass through a convolution first.
pub fn network(
    name: &str,
    channels: usize,
    layers: impl FnOnce(&mut GraphBuilder, NodeId) -> Result<NodeId>,
) -> Graph {
    let mut g = GraphBuilder::new(name, Shape::map(channels, 11, 14));
    let mut x = g.input();
    if channels != CHANNELS {
        x = g.conv2d("stem", x, ConvSpec::new(CHANNELS, 1).bias()).unwrap();
    }
    let x = layers(&mut g, x).unwrap();
    g.finish(x).unwrap()
}

/// Convolutions of every kind.
pub fn convolutions(channels: usize) -> Vec<Case> {
    let asymmetric = Pads { top: 2, bottom: 0, left: 1, right: 3 };
    let cases = [
        ("conv_1x1", ConvSpec::new(6, 1).bias(), None),
        ("conv_valid", ConvSpec::new(6, 3), None),
        ("conv_symmetric", ConvSpec::new(6, 3).padding(1).bias(), None),
        ("conv_asymmetric", ConvSpec::new(6, 3).padding(asymmetric), None),
        ("conv_same_stride", ConvSpec::new(6, 3).stride(2).padding(Padding::Same), None),
        ("conv_same_even", ConvSpec::new(6, 4).padding(Padding::Same), None),
        ("conv_stride_above_kernel", ConvSpec::new(6, 1).stride(3), None),
        ("conv_dilation", ConvSpec::new(6, 3).dilation(2).padding(2), None),
        ("conv_groups", ConvSpec::new(6, 3).groups(2).padding(1).bias(), None),
        ("conv_depthwise", ConvSpec::new(4, 5).groups(4).padding(2).stride(2), None),
        ("conv_depthwise_multiplier", ConvSpec::new(12, 3).groups(4).padding(Padding::Same), None),
        ("conv_kernel_above_image", ConvSpec::new(3, 15).padding(7), None),
        ("conv_wide_kernel", ConvSpec::new(6, 1).kernel(3, 5).padding(Padding::Same), None),
        (
            "conv_depthwise_strides",
            ConvSpec::new(4, 3).groups(4).strides(2, 1).padding(1),
            Some("Conv strides, unequal"),
        ),
        ("conv_depthwise_dilation", ConvSpec::new(8, 3).groups(4).dilation(2).padding(2), None),
        ("conv_strides", ConvSpec::new(6, 3).strides(2, 3).padding(1), Some("Conv strides, unequal")),
    ];
    let case = |(name, spec, missing)| {
        let graph = network(name, channels, |g, x| {
            let x = g.conv2d("conv", x, spec)?;
            g.flatten("flatten", x)
        });
        (graph, missing)
    };
    cases.map(case).into()
}

/// Pools of every kind.
pub fn pools(channels: usize) -> Vec<Case> {
    let asymmetric = Pads { top: 1, bottom: 0, left: 0, right: 2 };
    let pool = |kernel, stride, padding: Pads| Pool { kernel: [kernel; 2], stride: [stride; 2], padding };
    let wide = Pool { kernel: [2, 3], stride: [1, 2], padding: Pads { right: 1, ..Pads::default() } };
    let much = Some("MaxPool pads, of more than half the window");
    let cases = [
        ("valid", pool(2, 2, Pads::default()), None, false),
        ("overlapping", pool(3, 2, Pads::all(1)), None, true),
        ("asymmetric", pool(3, 2, asymmetric), much, true),
        ("stride_above_kernel", pool(2, 3, Pads::all(1)), much, true),
        ("wide", wide, None, true),
    ];
    let mut found = vec![];
    for (name, pool, max_missing, padded) in cases {
        let average_missing = padded.then_some("AveragePool pads");
        for (op, missing) in [(Op::MaxPool(pool.clone()), max_missing), (Op::AvgPool(pool), average_missing)]
        {
            let graph = network(&format!("{}_{name}", op.kind()), channels, |g, x| {
                // Negative values everywhere tell padding that never wins from padding with zeros.
                let x = g.conv2d("conv", x, ConvSpec::new(4, 1).bias())?;
                let x = g.add("pool", op, &[x])?;
                g.flatten("flatten", x)
            });
            found.push((graph, missing));
        }
    }
    found
}

/// Every activation, twice in a row.
pub fn activations(channels: usize) -> Vec<Case> {
    let activations = [
        ("relu", Activation::Relu),
        ("relu6", Activation::Relu6),
        ("leaky_relu", Activation::LeakyRelu { slope: 0.1 }),
        ("sigmoid", Activation::SIGMOID),
        ("sigmoid_steep", Activation::Sigmoid { slope: 2.5 }),
        ("tanh", Activation::Tanh),
        ("silu", Activation::Silu),
        ("hard_swish", Activation::HardSwish),
    ];
    let case = |(name, activation)| {
        let graph = network(name, channels, |g, x| {
            // Large enough a scale to reach both ends of every piece.
            let x = g.batch_norm("bn", x, BatchNorm { eps: 1e-3, ..Default::default() })?;
            let x = g.conv2d("conv", x, ConvSpec::new(6, 3).padding(1).bias())?;
            let x = g.activation("first", x, activation)?;
            let x = g.activation("second", x, activation)?;
            let x = g.flatten("flatten", x)?;
            g.linear("fc", x, Linear::uniform(5, 0.1))
        });
        (graph, None)
    };
    activations.map(case).into()
}

/// Batch norms that no convolution can take over.
pub fn unfoldable(channels: usize) -> Graph {
    network("unfolded", channels, |g, x| {
        let x = g.batch_norm("bn0", x, BatchNorm { eps: 1e-3, ..Default::default() })?;
        let conv = g.conv2d("conv1", x, ConvSpec::new(4, 3).padding(1))?;
        let bn = g.batch_norm("bn1", conv, BatchNorm::default())?;
        let x = g.sum("add", conv, bn)?;
        let x = g.max_pool("pool", x, 2, 2, 0)?;
        let x = g.batch_norm("bn2", x, BatchNorm::default())?;
        g.flatten("flatten", x)
    })
}

/// Squeeze-and-excitation, a residual branch, a mean pool, a linear layer without bias and softmax.
pub fn branches(channels: usize) -> Graph {
    network("branches", channels, |g, x| {
        let x = g.conv2d("conv", x, ConvSpec::new(8, 3).padding(1).bias())?;
        let squeezed = g.global_avg_pool("squeeze", x)?;
        let squeezed = g.conv2d("fc1", squeezed, ConvSpec::new(2, 1).bias())?;
        let squeezed = g.activation("silu", squeezed, Activation::Silu)?;
        let squeezed = g.conv2d("fc2", squeezed, ConvSpec::new(8, 1).bias())?;
        let gate = g.activation("gate", squeezed, Activation::SIGMOID)?;
        let scaled = g.scale("scale", x, gate)?;
        let branch = g.stochastic_depth("drop_path", scaled, 0.3)?;
        let x = g.sum("add", branch, x)?;
        let x = g.avg_pool("avg", x, 2, 2, 0)?;
        let x = g.flatten("flatten", x)?;
        let x = g.dropout("dropout", x, 0.5)?;
        let x = g.add("linear", Op::Linear(Linear { bias: false, ..Linear::uniform(6, 0.1) }), &[x])?;
        g.add("softmax", Op::Softmax, &[x])
    })
}
