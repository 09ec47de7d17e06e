//! A plain convolutional network: stages of convolutions with a max pool between them, then a linear layer.
//! It has no skip connections, so it is also what shows why the other families have them.

use tallow_builder::graph::{Activation, BatchNorm, Linear, NodeId};
use tallow_builder::{Graph, Init};

use crate::error::{Built, Error, Result};
use crate::layers::Layers;
use crate::options::{Options, PaddingStyle, Settings};

/// A plain network. Its default is a VGG-like net (Simonyan & Zisserman 2014) of 0.3 M parameters.
///
/// ```
/// use tallow_models::{Options, PlainCnn};
///
/// let net = PlainCnn { stages: vec![16, 32], ..PlainCnn::default() };
/// let graph = net.build("tiny", &Options::new(10, 8))?;
/// assert!(graph.find("stage2.1.conv").is_some());
/// # Ok::<(), tallow_models::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PlainCnn {
    /// Channels of each stage; a 2×2 max pool at stride 2 stands between two stages.
    pub stages: Vec<usize>,
    /// Convolutions in each stage.
    pub convs: usize,
    /// Size of the kernels; an odd one keeps the map's size.
    pub kernel: usize,
    /// The nonlinearity after each convolution.
    pub activation: Activation,
    /// Whether each convolution is normalised; without that it has a bias.
    pub batch_norm: bool,
    /// How the convolutions' weights start.
    pub init: Init,
}

impl Default for PlainCnn {
    fn default() -> Self {
        Self {
            stages: vec![32, 64, 128],
            convs: 2,
            kernel: 3,
            activation: Activation::Relu,
            batch_norm: true,
            init: Init::HE_NORMAL_FAN_OUT,
        }
    }
}

impl PlainCnn {
    /// The graph, called `name`; for 10 classes and 32×32 pixels unless `options` say otherwise.
    ///
    /// # Errors
    /// Where an option or a field is out of range, or the image is too small for the pools.
    pub fn build(&self, name: &str, options: &Options) -> Result<Graph> {
        let wrong = |option, problem: &str| Error::Option {
            network: name.to_owned(),
            option,
            problem: problem.to_owned(),
        };
        if self.stages.is_empty() || self.convs == 0 {
            return Err(wrong("stages", "must be at least one, of at least one convolution"));
        }
        if options.stochastic_depth.is_some_and(|p| p != 0.0) {
            return Err(wrong("stochastic depth", "needs residual branches, which a plain network has not"));
        }
        let settings = Settings::new(10, 32, PaddingStyle::Symmetric, BatchNorm::default());
        settings.with(name, options)?.build(name, |settings| self.graph(name, settings))
    }

    fn graph(&self, name: &str, settings: &Settings) -> Built<Graph> {
        let mut net = Layers::new(name, settings);
        let mut x = net.graph.input();
        for (i, &channels) in self.stages.iter().enumerate() {
            if i > 0 {
                x = net.graph.max_pool(&format!("stage{i}.pool"), x, 2, 2, 0)?;
            }
            for conv in 0..settings.scaling.repeats(self.convs) {
                x = self.layer(
                    &mut net,
                    &format!("stage{}.{conv}", i + 1),
                    x,
                    settings.scaling.channels(channels),
                )?;
            }
        }
        let linear = Linear::uniform(settings.classes, 1.0 / (net.channels(x) as f64).sqrt());
        net.classify(x, ("dropout", settings.dropout), "fc", linear)
    }

    fn layer(&self, net: &mut Layers, at: &str, x: NodeId, channels: usize) -> Built<NodeId> {
        let spec = net.conv(channels, self.kernel, 1).weight_init(self.init);
        let conv = format!("{at}.conv");
        let x = if self.batch_norm {
            net.conv_bn(&conv, &format!("{at}.bn"), x, spec)?
        } else {
            net.graph.conv2d(&conv, x, spec.bias())?
        };
        Ok(net.graph.activation(&format!("{at}.{}", self.activation.kind()), x, self.activation)?)
    }
}
