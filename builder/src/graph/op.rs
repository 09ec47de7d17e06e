//! The operations a layer can be, with their attributes. Pairs are [height, width].

use serde::{Deserialize, Serialize};

use super::shape::{Padding, Pads, Window};
use crate::init::Init;

/// What a node does with its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// The images, first in every graph.
    Input,
    /// Convolution, with weight `[out_channels, in_channels / groups, kernel h, kernel w]`.
    Conv2d(Conv2d),
    /// Batch normalisation over the batch and both spatial axes.
    BatchNorm(BatchNorm),
    /// An elementwise nonlinearity.
    Activation(Activation),
    /// Maximum over a window; padding never wins.
    MaxPool(Pool),
    /// Mean over a window, padding counted as zeros in the mean (PyTorch's `count_include_pad=True`).
    AvgPool(Pool),
    /// Mean over both spatial axes: C×H×W to C×1×1.
    GlobalAvgPool,
    /// Matrix product with weight `[out_features, in_features]`, plus a bias.
    Linear(Linear),
    /// Elementwise sum of two equal shapes.
    Add,
    /// Channel-wise product of C×H×W with C×1×1, as in squeeze-and-excitation.
    Mul,
    /// C×H×W to a vector, in that order.
    Flatten,
    /// Zeroes elements with probability `p` while training and scales the rest by 1/(1−p).
    Dropout {
        /// Probability to drop an element.
        p: f64,
    },
    /// Zeroes whole samples of a residual branch with probability `p` while training (Huang et al. 2016).
    StochasticDepth {
        /// Probability to drop the branch.
        p: f64,
    },
    /// Softmax over the features of a vector.
    Softmax,
}

impl Op {
    /// The operation's name for messages and tables.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Conv2d(_) => "conv2d",
            Self::BatchNorm(_) => "batch_norm",
            Self::Activation(activation) => activation.kind(),
            Self::MaxPool(_) => "max_pool",
            Self::AvgPool(_) => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Linear(_) => "linear",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::Flatten => "flatten",
            Self::Dropout { .. } => "dropout",
            Self::StochasticDepth { .. } => "stochastic_depth",
            Self::Softmax => "softmax",
        }
    }
}

/// Attributes of a convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conv2d {
    /// Number of filters.
    pub out_channels: usize,
    /// Size of the kernel.
    pub kernel: [usize; 2],
    /// Step between places.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: Pads,
    /// Step between the kernel's elements.
    pub dilation: [usize; 2],
    /// Channel groups; equal to the channels for a depthwise convolution.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// How the weight starts.
    pub weight_init: Init,
    /// How the bias starts.
    pub bias_init: Init,
}

impl Conv2d {
    /// The window that slides over the input.
    pub fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, dilation: self.dilation, pads: self.padding }
    }
}

/// Attributes of a convolution as its author writes them: the padding may still be SAME or VALID.
#[derive(Clone, Debug)]
pub struct ConvSpec {
    pub(crate) conv: Conv2d,
    pub(crate) padding: Padding,
}

impl ConvSpec {
    /// A square kernel, stride 1, no padding, no bias, He initialisation (normal, fan-out).
    pub fn new(out_channels: usize, kernel: usize) -> Self {
        let conv = Conv2d {
            out_channels,
            kernel: [kernel; 2],
            stride: [1; 2],
            padding: Pads::default(),
            dilation: [1; 2],
            groups: 1,
            bias: false,
            weight_init: Init::HE_NORMAL_FAN_OUT,
            bias_init: Init::Zeros,
        };
        Self { conv, padding: Padding::Valid }
    }

    /// A kernel of height × width.
    pub fn kernel(mut self, height: usize, width: usize) -> Self {
        self.conv.kernel = [height, width];
        self
    }

    /// The same stride along both axes.
    pub fn stride(mut self, stride: usize) -> Self {
        self.conv.stride = [stride; 2];
        self
    }

    /// A stride for each axis.
    pub fn strides(mut self, height: usize, width: usize) -> Self {
        self.conv.stride = [height, width];
        self
    }

    /// A number of pixels on every side, [`Pads`], or [`Padding`].
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.padding = padding.into();
        self
    }

    /// The same dilation along both axes.
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.conv.dilation = [dilation; 2];
        self
    }

    /// Channel groups.
    pub fn groups(mut self, groups: usize) -> Self {
        self.conv.groups = groups;
        self
    }

    /// Adds a bias that starts at zero.
    pub fn bias(mut self) -> Self {
        self.conv.bias = true;
        self
    }

    /// How the weight starts.
    pub fn weight_init(mut self, init: Init) -> Self {
        self.conv.weight_init = init;
        self
    }

    /// Adds a bias and says how it starts.
    pub fn bias_init(mut self, init: Init) -> Self {
        self.conv.bias = true;
        self.conv.bias_init = init;
        self
    }
}

/// Attributes of batch normalisation (Ioffe & Szegedy 2015): y = γ·(x − μ)/√(σ² + eps) + β.
///
/// The batch is normalised with the biased variance; the running average takes the unbiased one, as in PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f64,
    /// The share of the new sample: running = (1 − momentum)·running + momentum·batch. This is PyTorch's
    /// convention: its 0.1 is TensorFlow's `momentum=0.9` and the form 0.9·old + 0.1·sample. A text that writes
    /// 0.1·old + 0.9·sample means 0.9 here.
    pub momentum: f64,
    /// How γ starts; zeros for the last normalisation of a residual branch makes the block start as identity.
    pub weight_init: Init,
}

impl Default for BatchNorm {
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1, weight_init: Init::Ones }
    }
}

/// Attributes of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step between places.
    pub stride: [usize; 2],
    /// Padding around the input, less than the kernel on each side.
    pub padding: Pads,
}

impl Pool {
    /// The window that slides over the input.
    pub fn window(&self) -> Window {
        Window { kernel: self.kernel, stride: self.stride, dilation: [1; 2], pads: self.padding }
    }
}

/// Attributes of a fully connected layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Length of the output.
    pub out_features: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// How the weight starts.
    pub weight_init: Init,
    /// How the bias starts.
    pub bias_init: Init,
}

impl Linear {
    /// With a bias, both initialised uniformly in ±bound.
    pub fn uniform(out_features: usize, bound: f64) -> Self {
        let init = Init::Uniform { bound };
        Self { out_features, bias: true, weight_init: init, bias_init: init }
    }
}

/// Elementwise nonlinearities.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "activation", rename_all = "snake_case")]
pub enum Activation {
    /// max(0, x); its derivative at 0 is 0, as in PyTorch.
    Relu,
    /// min(max(0, x), 6) (Krizhevsky 2010).
    Relu6,
    /// x where positive, slope·x elsewhere (Maas et al. 2013).
    LeakyRelu {
        /// Slope for negative x.
        slope: f64,
    },
    /// 1/(1 + exp(−slope·x)).
    Sigmoid {
        /// Steepness; 1 for the usual sigmoid.
        slope: f64,
    },
    /// Hyperbolic tangent.
    Tanh,
    /// x·sigmoid(x), also called Swish (Ramachandran et al. 2017; Elfwing et al. 2018).
    Silu,
    /// x·ReLU6(x + 3)/6 (Howard et al. 2019).
    HardSwish,
}

impl Activation {
    /// The plain sigmoid.
    pub const SIGMOID: Self = Self::Sigmoid { slope: 1.0 };

    /// The name for messages and tables.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::LeakyRelu { .. } => "leaky_relu",
            Self::Sigmoid { .. } => "sigmoid",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::HardSwish => "hard_swish",
        }
    }
}
