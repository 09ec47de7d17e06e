//! ResNet (He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition"), named as torchvision names it.
//! The stride of a bottleneck is on its 3×3 convolution, as in torchvision's networks; the paper has it on the first.

use tallow_builder::Graph;
use tallow_builder::graph::{Activation::Relu, BatchNorm, Linear, NodeId};

use crate::error::{Built, Result};
use crate::layers::Layers;
use crate::options::{Options, PaddingStyle, Settings};

/// A residual network: a stem, stages of residual blocks that halve the map and double the width, a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNet {
    /// The block that all stages repeat.
    pub block: Block,
    /// Blocks in each stage.
    pub layers: &'static [usize],
    /// Width of the stem and of the first stage.
    pub planes: usize,
    /// What comes before the stages.
    pub stem: Stem,
}

/// A residual block (figure 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions, the last with four times the width.
    Bottleneck,
}

/// What an image meets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 7×7 at stride 2, then a 3×3 max pool at stride 2: a quarter of the resolution (table 1).
    ImageNet,
    /// 3×3 at stride 1: for images of some 32 pixels (section 4.2).
    Cifar,
}

// Table 1.
pub(crate) const RESNET18: ResNet = imagenet(Block::Basic, &[2, 2, 2, 2]);
pub(crate) const RESNET34: ResNet = imagenet(Block::Basic, &[3, 4, 6, 3]);
pub(crate) const RESNET50: ResNet = imagenet(Block::Bottleneck, &[3, 4, 6, 3]);
pub(crate) const RESNET101: ResNet = imagenet(Block::Bottleneck, &[3, 4, 23, 3]);
pub(crate) const RESNET152: ResNet = imagenet(Block::Bottleneck, &[3, 8, 36, 3]);

// Section 4.2: 6n + 2 layers, widths 16, 32, 64. A shortcut that changes shape is a 1×1 convolution (option B of
// section 3.3); the paper's pads with zero channels there (option A), some 2,700 parameters fewer.
pub(crate) const RESNET20: ResNet = cifar(&[3; 3]);
pub(crate) const RESNET32: ResNet = cifar(&[5; 3]);
pub(crate) const RESNET44: ResNet = cifar(&[7; 3]);
pub(crate) const RESNET56: ResNet = cifar(&[9; 3]);
pub(crate) const RESNET110: ResNet = cifar(&[18; 3]);

const fn imagenet(block: Block, layers: &'static [usize]) -> ResNet {
    ResNet { block, layers, planes: 64, stem: Stem::ImageNet }
}

const fn cifar(layers: &'static [usize]) -> ResNet {
    ResNet { block: Block::Basic, layers, planes: 16, stem: Stem::Cifar }
}

impl ResNet {
    /// The same network for small images.
    pub const fn with_cifar_stem(self) -> Self {
        Self { stem: Stem::Cifar, ..self }
    }

    /// The graph, called `name`; for 1000 classes and 224×224 pixels unless `options` say otherwise.
    ///
    /// # Errors
    /// Where an option is out of range, or the image is too small for the network.
    pub fn build(&self, name: &str, options: &Options) -> Result<Graph> {
        let settings = Settings::new(1000, 224, PaddingStyle::Symmetric, BatchNorm::default());
        settings.with(name, options)?.build(name, |settings| self.graph(name, settings))
    }

    fn graph(&self, name: &str, settings: &Settings) -> Built<Graph> {
        let mut net = Layers::new(name, settings);
        let mut x = self.stem(&mut net, settings.scaling.channels(self.planes))?;
        let repeats = |stage: usize| settings.scaling.repeats(self.layers[stage]);
        let blocks: usize = (0..self.layers.len()).map(repeats).sum();
        let mut nth = 0;
        for stage in 0..self.layers.len() {
            for repeat in 0..repeats(stage) {
                nth += 1;
                let at = Place {
                    name: format!("layer{}.{repeat}", stage + 1),
                    planes: settings.scaling.channels(self.planes << stage),
                    stride: if stage > 0 && repeat == 0 { 2 } else { 1 },
                    // Huang et al. 2016, "Deep networks with stochastic depth", equation 4.
                    drop: settings.stochastic_depth * nth as f64 / blocks as f64,
                };
                x = match self.block {
                    Block::Basic => basic(&mut net, x, &at)?,
                    Block::Bottleneck => bottleneck(&mut net, x, &at)?,
                };
            }
        }
        // PyTorch's default for a linear layer.
        let linear = Linear::uniform(settings.classes, 1.0 / (net.channels(x) as f64).sqrt());
        net.classify(x, ("dropout", settings.dropout), "fc", linear)
    }

    fn stem(&self, net: &mut Layers, planes: usize) -> Built<NodeId> {
        let x = net.graph.input();
        let spec = match self.stem {
            Stem::ImageNet => net.conv(planes, 7, 2),
            Stem::Cifar => net.conv(planes, 3, 1),
        };
        let x = net.conv_bn("conv1", "bn1", x, spec)?;
        let x = net.graph.activation("relu", x, Relu)?;
        match self.stem {
            Stem::ImageNet => Ok(net.graph.max_pool("maxpool", x, 3, 2, net.padding(3))?),
            Stem::Cifar => Ok(x),
        }
    }
}

/// One block's place in the network.
struct Place {
    name: String,
    planes: usize,
    stride: usize,
    drop: f64,
}

fn basic(net: &mut Layers, x: NodeId, at: &Place) -> Built<NodeId> {
    let y = conv_bn(net, x, at, 1, (at.planes, 3, at.stride))?;
    let y = relu(net, y, at, "relu1")?;
    let y = conv_bn(net, y, at, 2, (at.planes, 3, 1))?;
    let shortcut = shortcut(net, x, at, at.planes)?;
    let y = net.join(&at.name, y, shortcut, at.drop)?;
    relu(net, y, at, "relu")
}

fn bottleneck(net: &mut Layers, x: NodeId, at: &Place) -> Built<NodeId> {
    let y = conv_bn(net, x, at, 1, (at.planes, 1, 1))?;
    let y = relu(net, y, at, "relu1")?;
    let y = conv_bn(net, y, at, 2, (at.planes, 3, at.stride))?;
    let y = relu(net, y, at, "relu2")?;
    let y = conv_bn(net, y, at, 3, (4 * at.planes, 1, 1))?;
    let shortcut = shortcut(net, x, at, 4 * at.planes)?;
    let y = net.join(&at.name, y, shortcut, at.drop)?;
    relu(net, y, at, "relu")
}

/// The identity where shapes agree, else a 1×1 convolution.
fn shortcut(net: &mut Layers, x: NodeId, at: &Place, filters: usize) -> Built<NodeId> {
    if at.stride == 1 && net.channels(x) == filters {
        return Ok(x);
    }
    let spec = net.conv(filters, 1, at.stride);
    net.conv_bn(&format!("{}.downsample.0", at.name), &format!("{}.downsample.1", at.name), x, spec)
}

/// The block's nth convolution (filters, kernel, stride) and its batch normalisation.
fn conv_bn(
    net: &mut Layers,
    x: NodeId,
    at: &Place,
    nth: usize,
    (filters, kernel, stride): (usize, usize, usize),
) -> Built<NodeId> {
    let spec = net.conv(filters, kernel, stride);
    net.conv_bn(&format!("{}.conv{nth}", at.name), &format!("{}.bn{nth}", at.name), x, spec)
}

fn relu(net: &mut Layers, x: NodeId, at: &Place, name: &str) -> Built<NodeId> {
    Ok(net.graph.activation(&format!("{}.{name}", at.name), x, Relu)?)
}
