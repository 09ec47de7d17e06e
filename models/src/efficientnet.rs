//! EfficientNet (Tan & Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks"), named as
//! torchvision names it. The Lite variants are the same network with other switches.

use tallow_builder::graph::{Activation, BatchNorm, Linear, NodeId};
use tallow_builder::{Graph, Init};

use crate::error::{Built, Result};
use crate::layers::Layers;
use crate::options::{Options, PaddingStyle, Settings};
use crate::scaling::Scaling;
use crate::table::{Stage, Table};

/// A network of the family: the baseline of table 1, scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EfficientNet {
    /// Width and depth against the baseline.
    pub scaling: Scaling,
    /// Probability to drop a feature before the last layer.
    pub dropout: f64,
    /// Probability to drop the deepest residual branch.
    pub stochastic_depth: f64,
    /// Batch normalisation's eps.
    pub eps: f64,
    /// Batch normalisation's momentum, in PyTorch's convention.
    pub momentum: f64,
    /// The nonlinearity everywhere but in the gates.
    pub activation: Activation,
    /// Width of the squeeze-and-excitation (Hu et al. 2018) over that of a block's input; 0 for none.
    pub squeeze: f64,
    /// Whether the stem's and head's widths, and the first and last stage's repeats, are scaled too.
    pub scale_ends: bool,
    /// How convolutions pad.
    pub padding: PaddingStyle,
}

/// Channels of the 3×3 convolution before the stages, and of the 1×1 convolution after them (table 1).
const STEM: usize = 32;
const HEAD: usize = 1280;

/// Table 1, stages 2 to 8: expansion, kernel, stride, channels, repeats.
const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];

const fn stage(expand: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Stage {
    Stage { kernel, stride, expand, channels, repeats, se: None }
}

impl Default for Table {
    /// Table 1, the baseline B0.
    fn default() -> Self {
        Self { stem: STEM, stem_stride: 2, head: HEAD, stages: STAGES.to_vec() }
    }
}

// Width, depth and dropout of the paper's code. torchvision's B5 to B7 carry TensorFlow's eps and momentum.
pub(crate) const B0: EfficientNet = variant(1.0, 1.0, 0.2);
pub(crate) const B1: EfficientNet = variant(1.0, 1.1, 0.2);
pub(crate) const B2: EfficientNet = variant(1.1, 1.2, 0.3);
pub(crate) const B3: EfficientNet = variant(1.2, 1.4, 0.3);
pub(crate) const B4: EfficientNet = variant(1.4, 1.8, 0.4);
pub(crate) const B5: EfficientNet = EfficientNet { eps: 1e-3, momentum: 0.01, ..variant(1.6, 2.2, 0.4) };
pub(crate) const B6: EfficientNet = EfficientNet { eps: 1e-3, momentum: 0.01, ..variant(1.8, 2.6, 0.5) };
pub(crate) const B7: EfficientNet = EfficientNet { eps: 1e-3, momentum: 0.01, ..variant(2.0, 3.1, 0.5) };

const fn variant(width: f64, depth: f64, dropout: f64) -> EfficientNet {
    EfficientNet {
        scaling: Scaling { width, depth },
        dropout,
        stochastic_depth: 0.2,
        eps: 1e-5,
        momentum: 0.1,
        activation: Activation::Silu,
        squeeze: 0.25,
        scale_ends: true,
        padding: PaddingStyle::Symmetric,
    }
}

impl EfficientNet {
    /// The graph, called `name`; for 1000 classes and 224×224 pixels unless `options` say otherwise.
    ///
    /// # Errors
    /// Where an option is out of range.
    pub fn build(&self, name: &str, options: &Options) -> Result<Graph> {
        let batch_norm = BatchNorm { eps: self.eps, momentum: self.momentum, ..BatchNorm::default() };
        let settings = Settings {
            dropout: self.dropout,
            stochastic_depth: self.stochastic_depth,
            ..Settings::new(1000, 224, self.padding, batch_norm)
        };
        settings.with(name, options)?.build(name, |settings| self.graph(name, settings))
    }

    fn graph(&self, name: &str, settings: &Settings) -> Built<Graph> {
        let table = settings.table.clone().unwrap_or_default();
        let stages = &table.stages;
        let scaling = self.scaling.times(settings.scaling);
        let ends = if self.scale_ends { scaling } else { Scaling::NONE };
        let repeats = |i: usize| {
            let end = i == 0 || i + 1 == stages.len();
            if end { ends } else { scaling }.repeats(stages[i].repeats)
        };
        let blocks: usize = (0..stages.len()).map(repeats).sum();

        let mut net = Layers::new(name, settings);
        let x = net.graph.input();
        let spec = net.conv(ends.channels(table.stem), 3, table.stem_stride);
        let mut x = net.conv_bn_act("features.0", x, spec, Some(self.activation))?;
        let mut nth = 0;
        for (i, stage) in stages.iter().enumerate() {
            for repeat in 0..repeats(i) {
                let block = MbConv {
                    at: format!("features.{}.{repeat}", i + 1),
                    expand: stage.expand,
                    kernel: stage.kernel,
                    stride: if repeat == 0 { stage.stride } else { 1 },
                    channels: scaling.channels(stage.channels),
                    squeeze: stage.se.unwrap_or(self.squeeze),
                    drop: settings.stochastic_depth * nth as f64 / blocks as f64,
                };
                x = self.mbconv(&mut net, x, &block)?;
                nth += 1;
            }
        }
        let spec = net.conv(ends.channels(table.head), 1, 1);
        let x = net.conv_bn_act(&format!("features.{}", stages.len() + 1), x, spec, Some(self.activation))?;
        let linear = Linear {
            out_features: settings.classes,
            bias: true,
            weight_init: Init::Uniform { bound: 1.0 / (settings.classes as f64).sqrt() },
            bias_init: Init::Zeros,
        };
        net.classify(x, ("classifier.0", settings.dropout), "classifier.1", linear)
    }

    /// Expand, depthwise, squeeze-and-excitation, project; the sum with the input where the shape stays.
    fn mbconv(&self, net: &mut Layers, x: NodeId, block: &MbConv) -> Built<NodeId> {
        let channels = net.channels(x);
        let expanded = channels * block.expand;
        let mut parts = (0..).map(|part| format!("{}.block.{part}", block.at));
        let mut part = || parts.next().expect("the range has no end");

        let mut y = x;
        if expanded != channels {
            let spec = net.conv(expanded, 1, 1);
            y = net.conv_bn_act(&part(), y, spec, Some(self.activation))?;
        }
        let spec = net.conv(expanded, block.kernel, block.stride).groups(expanded);
        y = net.conv_bn_act(&part(), y, spec, Some(self.activation))?;
        if block.squeeze > 0.0 {
            // The paper's code cuts off, and keeps one.
            let squeezed = (channels as f64 * block.squeeze) as usize;
            y = self.squeeze_excitation(net, &part(), y, squeezed.max(1))?;
        }
        let spec = net.conv(block.channels, 1, 1);
        y = net.conv_bn_act(&part(), y, spec, None)?;
        if block.stride == 1 && channels == block.channels {
            y = net.join(&block.at, y, x, block.drop)?;
        }
        Ok(y)
    }

    /// Weighs each channel by what a small network makes of all channels' means (Hu et al. 2018, section 3).
    fn squeeze_excitation(&self, net: &mut Layers, at: &str, x: NodeId, squeezed: usize) -> Built<NodeId> {
        let channels = net.channels(x);
        let name = |layer: &str| format!("{at}.{layer}");
        let reduce = net.conv(squeezed, 1, 1).bias();
        let expand = net.conv(channels, 1, 1).bias();
        let g = &mut net.graph;
        let y = g.global_avg_pool(&name("avgpool"), x)?;
        let y = g.conv2d(&name("fc1"), y, reduce)?;
        let y = g.activation(&name("activation"), y, self.activation)?;
        let y = g.conv2d(&name("fc2"), y, expand)?;
        let y = g.activation(&name("scale_activation"), y, Activation::SIGMOID)?;
        Ok(g.scale(&name("mul"), x, y)?)
    }
}

/// One block and its place in the network.
struct MbConv {
    at: String,
    expand: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    squeeze: f64,
    drop: f64,
}
