//! Every operation of the layer graph as TensorFlow's, NHWC in 32-bit floating point.
//! The nodes of the layer `layer1.0.conv1` lie in the scope `layer1/0/conv1`.

use tallow_builder::graph::{Activation, Conv2d, Node, Op, Padding, Pool, Shape, Window};
use tallow_builder::{CamHead, Graph, NodeId};
use tallow_tensorflow::proto::DataType;

use super::attributes::{boolean, dtype, float, int, integers, scalar, spatial, string, t};
use super::body::{Body, Value};
use super::training;
use super::variables::{Variable, is_depthwise, layer_variables, scopes};

const FLOAT: DataType = DataType::Float;
/// The channels' axis.
const CHANNELS: i32 = 3;

/// What a lowered network gives.
pub(super) struct Scores {
    pub logits: Value,
    /// Class activation maps [N, rows, columns, classes], where they were asked for.
    pub maps: Option<Value>,
}

/// Adds the layers of `graph` to `body`; `images` is the value of the input. With `training`, batch norms use and track
/// the batch's moments, and dropout and stochastic depth drop. Class activation maps are read off at `cam`; they share
/// the classifier's variable, so that they stay right while it is trained.
pub(super) fn lower(
    body: &mut Body,
    graph: &Graph,
    images: Value,
    training: bool,
    cam: Option<CamHead>,
) -> Scores {
    let mut lowering = Lowering { body, graph, training, scopes: scopes(graph), values: vec![images] };
    for (id, node) in graph.iter().skip(1) {
        let value = lowering.layer(id, node);
        lowering.values.push(value);
    }
    // Softmax is added after the logits by who asks for it.
    let output = graph.node(graph.output());
    let logits = if output.op == Op::Softmax { output.inputs[0] } else { graph.output() };
    let maps = cam.map(|head| lowering.cam(head));
    Scores { logits: lowering.values.swap_remove(logits.index()), maps }
}

struct Lowering<'a> {
    body: &'a mut Body,
    graph: &'a Graph,
    training: bool,
    scopes: Vec<String>,
    /// The value of each layer so far.
    values: Vec<Value>,
}

impl Lowering<'_> {
    /// A 1×1 convolution of the features with the classifier's kernel [channels, classes].
    fn cam(&mut self, head: CamHead) -> Value {
        let scope = self.scopes[head.classifier.index()].clone();
        let kernel = self.body.read(&layer_variables(self.graph, head.classifier, &scope)[0]);
        let channels = self.graph.node(head.features).shape.channels() as i32;
        let classes = self.graph.node(head.classifier).shape.elements() as i32;
        let shape = self.body.constant("cam/shape", integers(&[4], &[1, 1, channels, classes]));
        let attributes = vec![t(FLOAT), dtype("Tshape", DataType::Int32)];
        let filters = self.body.node("Reshape", "cam/filters", &[&kernel, &shape], attributes);
        let features = self.values[head.features.index()].clone();
        let attributes = vec![
            t(FLOAT),
            spatial("strides", [1, 1]),
            spatial("dilations", [1, 1]),
            string("padding", "VALID"),
        ];
        self.body.node("Conv2D", "cam", &[&features, &filters], attributes)
    }

    fn layer(&mut self, id: NodeId, node: &Node) -> Value {
        let inputs: Vec<Value> = node.inputs.iter().map(|id| self.values[id.index()].clone()).collect();
        let shape = self.graph.node(node.inputs[0]).shape;
        let scope = self.scopes[id.index()].clone();
        let variables = layer_variables(self.graph, id, &scope);
        let x = inputs[0].as_str();
        match &node.op {
            Op::Conv2d(conv) => self.convolution(conv, &scope, x, shape, &variables),
            Op::BatchNorm(bn) if self.training => training::batch_norm(self.body, bn, &scope, x, &variables),
            Op::BatchNorm(bn) => {
                let parameters: Vec<Value> = variables.iter().map(|v| self.body.read(v)).collect();
                let [gamma, beta, mean, variance] = [0, 1, 2, 3].map(|i| parameters[i].as_str());
                let attributes = vec![
                    t(FLOAT),
                    dtype("U", FLOAT),
                    float("epsilon", bn.eps),
                    boolean("is_training", false),
                ];
                self.op("FusedBatchNormV3", &scope, &[x, gamma, beta, mean, variance], attributes)
            }
            Op::Linear(_) => {
                let kernel = self.body.read(&variables[0]);
                let y = self.op("MatMul", &scope, &[x, &kernel], vec![t(FLOAT)]);
                self.bias(&scope, y, variables.get(1))
            }
            Op::Activation(activation) => self.activation(*activation, &scope, x),
            Op::MaxPool(pool) => {
                // Padding must never win, whatever the signs.
                let (x, padding) = self.padded(&scope, x, shape, &pool.window(), Some(f32::MIN));
                self.pool("MaxPool", &scope, &x, pool, padding)
            }
            Op::AvgPool(pool) => {
                // TensorFlow's SAME leaves the padding out of the mean, the layer graph counts it.
                let (x, padding) = self.explicitly_padded(&scope, x, &pool.window(), None);
                self.pool("AvgPool", &scope, &x, pool, padding)
            }
            Op::GlobalAvgPool => {
                let axes = self.body.constant(&format!("{scope}/axes"), integers(&[2], &[1, 2]));
                let attributes = vec![t(FLOAT), dtype("Tidx", DataType::Int32), boolean("keep_dims", true)];
                self.op("Mean", &scope, &[x, &axes], attributes)
            }
            Op::Add => self.op("AddV2", &scope, &[x, &inputs[1]], vec![t(FLOAT)]),
            Op::Mul => self.op("Mul", &scope, &[x, &inputs[1]], vec![t(FLOAT)]),
            Op::Flatten => self.flatten(&scope, x, shape),
            Op::Softmax => self.op("Softmax", &scope, &[x], vec![t(FLOAT)]),
            Op::Dropout { p } if self.training && *p > 0.0 => training::dropout(self.body, &scope, x, *p),
            Op::StochasticDepth { p } if self.training && *p > 0.0 => {
                training::stochastic_depth(self.body, &scope, x, *p, shape.dims().len())
            }
            Op::Input | Op::Dropout { .. } | Op::StochasticDepth { .. } => inputs[0].clone(),
        }
    }

    fn convolution(
        &mut self,
        conv: &Conv2d,
        scope: &str,
        x: &str,
        shape: Shape,
        variables: &[Variable],
    ) -> Value {
        let kernel = self.body.read(&variables[0]);
        let y = match is_depthwise(conv, shape.channels()) {
            true => self.depthwise(conv, scope, x, shape, &kernel),
            false => self.grouped(conv, scope, x, shape, &kernel),
        };
        self.bias(scope, y, variables.get(1))
    }

    /// TensorFlow's depthwise convolution has one stride for both axes and no dilation on the CPU. Other strides take
    /// every so many rows and columns of the result at stride 1; dilation is a convolution in groups.
    fn depthwise(&mut self, conv: &Conv2d, scope: &str, x: &str, shape: Shape, kernel: &str) -> Value {
        if conv.dilation != [1, 1] {
            // [h, w, channels, multiplier] has the filters of a channel side by side, as a grouped convolution does.
            let [kh, kw] = conv.kernel;
            let kernel = self.reshape(scope, kernel, &[kh, kw, 1, conv.out_channels].map(|dim| dim as i32));
            return self.grouped(conv, scope, x, shape, &kernel);
        }
        let square = conv.stride[0] == conv.stride[1];
        let (x, padding) = if square {
            self.padded(scope, x, shape, &conv.window(), None)
        } else {
            self.explicitly_padded(scope, x, &conv.window(), None)
        };
        let stride = if square { conv.stride } else { [1, 1] };
        let attributes = vec![t(FLOAT), spatial("strides", stride), string("padding", padding)];
        let y = self.op("DepthwiseConv2dNative", scope, &[&x, kernel], attributes);
        if square { y } else { self.every(scope, &y, conv.stride) }
    }

    /// A convolution for each group: TensorFlow's own grouped one has no gradient on the CPU.
    fn grouped(&mut self, conv: &Conv2d, scope: &str, x: &str, shape: Shape, kernel: &str) -> Value {
        let (x, padding) = self.padded(scope, x, shape, &conv.window(), None);
        let attributes = vec![
            t(FLOAT),
            spatial("strides", conv.stride),
            spatial("dilations", conv.dilation),
            string("padding", padding),
        ];
        let groups = conv.groups;
        if groups == 1 {
            return self.op("Conv2D", scope, &[&x, kernel], attributes);
        }
        let axis = self.body.constant(&format!("{scope}/axis"), integers(&[], &[CHANNELS]));
        let outputs: Vec<(&str, usize)> = (0..groups).map(|group| ("output", group)).collect();
        let mut split = |value: &str| {
            let attributes = vec![t(FLOAT), int("num_split", groups)];
            self.body.node_outputs("Split", &format!("{scope}/split"), &[&axis, value], attributes, &outputs)
        };
        let (inputs, kernels) = (split(&x), split(kernel));
        let parts = inputs.iter().zip(&kernels);
        let parts = parts.map(|(x, kernel)| self.op("Conv2D", scope, &[x, kernel], attributes.clone()));
        let mut parts: Vec<Value> = parts.collect();
        parts.push(axis);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let attributes = vec![t(FLOAT), dtype("Tidx", DataType::Int32), int("N", groups)];
        self.op("ConcatV2", scope, &parts, attributes)
    }

    fn bias(&mut self, scope: &str, y: Value, bias: Option<&Variable>) -> Value {
        let Some(bias) = bias else { return y };
        let bias = self.body.read(bias);
        self.op("BiasAdd", scope, &[&y, &bias], vec![t(FLOAT)])
    }

    fn pool(&mut self, op: &str, scope: &str, x: &str, pool: &Pool, padding: &str) -> Value {
        let attributes = vec![
            t(FLOAT),
            spatial("ksize", pool.kernel),
            spatial("strides", pool.stride),
            string("padding", padding),
        ];
        self.op(op, scope, &[x], attributes)
    }

    /// What a window slides over, and the name of the padding that is left to its operation: SAME where TensorFlow
    /// pads this very input as the layer does.
    fn padded(
        &mut self,
        scope: &str,
        x: &str,
        shape: Shape,
        window: &Window,
        fill: Option<f32>,
    ) -> (Value, &'static str) {
        if let Shape::Map { height, width, .. } = shape
            && !window.pads.is_zero()
            && Padding::Same.resolve([height, width], window) == window.pads
        {
            return (x.to_owned(), "SAME");
        }
        self.explicitly_padded(scope, x, window, fill)
    }

    /// As [`Self::padded`], always with an operation of its own; `fill` is what it pads with, zeros by default.
    fn explicitly_padded(
        &mut self,
        scope: &str,
        x: &str,
        window: &Window,
        fill: Option<f32>,
    ) -> (Value, &'static str) {
        let pads = window.pads;
        if pads.is_zero() {
            return (x.to_owned(), "VALID");
        }
        let sides = [0, 0, pads.top, pads.bottom, pads.left, pads.right, 0, 0].map(|pad| pad as i32);
        let sides = self.body.constant(&format!("{scope}/paddings"), integers(&[4, 2], &sides));
        let attributes = vec![t(FLOAT), dtype("Tpaddings", DataType::Int32)];
        let padded = match fill {
            None => self.op("Pad", scope, &[x, &sides], attributes),
            Some(value) => {
                let value = self.body.constant(&format!("{scope}/fill"), scalar(value));
                self.op("PadV2", scope, &[x, &sides, &value], attributes)
            }
        };
        (padded, "VALID")
    }

    /// Every so many rows and columns.
    fn every(&mut self, scope: &str, x: &str, [rows, columns]: [usize; 2]) -> Value {
        let mut vector = |name: &str, values: [i32; 4]| {
            self.body.constant(&format!("{scope}/{name}"), integers(&[4], &values))
        };
        let (begin, end) = (vector("begin", [0; 4]), vector("end", [0; 4]));
        let strides = vector("strides", [1, rows as i32, columns as i32, 1]);
        // All four axes from their beginning to their end.
        let attributes =
            vec![t(FLOAT), dtype("Index", DataType::Int32), int("begin_mask", 15), int("end_mask", 15)];
        self.op("StridedSlice", scope, &[x, &begin, &end, &strides], attributes)
    }

    /// To a vector in the layer graph's order: channels, rows, columns.
    fn flatten(&mut self, scope: &str, x: &str, shape: Shape) -> Value {
        let mut x = x.to_owned();
        if let Shape::Map { height, width, .. } = shape
            && height * width > 1
        {
            let order = self.body.constant(&format!("{scope}/order"), integers(&[4], &[0, 3, 1, 2]));
            let attributes = vec![t(FLOAT), dtype("Tperm", DataType::Int32)];
            x = self.op("Transpose", scope, &[&x, &order], attributes);
        }
        self.reshape(scope, &x, &[-1, shape.elements() as i32])
    }

    fn reshape(&mut self, scope: &str, x: &str, dims: &[i32]) -> Value {
        let dims = self.body.constant(&format!("{scope}/shape"), integers(&[dims.len()], dims));
        self.op("Reshape", scope, &[x, &dims], vec![t(FLOAT), dtype("Tshape", DataType::Int32)])
    }

    fn activation(&mut self, activation: Activation, scope: &str, x: &str) -> Value {
        match activation {
            Activation::Relu => self.op("Relu", scope, &[x], vec![t(FLOAT)]),
            Activation::Relu6 => self.op("Relu6", scope, &[x], vec![t(FLOAT)]),
            Activation::LeakyRelu { slope } => {
                self.op("LeakyRelu", scope, &[x], vec![t(FLOAT), float("alpha", slope)])
            }
            Activation::Sigmoid { slope: 1.0 } => self.op("Sigmoid", scope, &[x], vec![t(FLOAT)]),
            Activation::Sigmoid { slope } => {
                let scaled = self.times(scope, x, slope);
                self.op("Sigmoid", scope, &[&scaled], vec![t(FLOAT)])
            }
            Activation::Tanh => self.op("Tanh", scope, &[x], vec![t(FLOAT)]),
            Activation::Silu => {
                let gate = self.op("Sigmoid", scope, &[x], vec![t(FLOAT)]);
                self.op("Mul", scope, &[x, &gate], vec![t(FLOAT)])
            }
            Activation::HardSwish => {
                let three = self.body.constant(&format!("{scope}/three"), scalar(3.0));
                let shifted = self.op("AddV2", scope, &[x, &three], vec![t(FLOAT)]);
                let gate = self.op("Relu6", scope, &[&shifted], vec![t(FLOAT)]);
                let product = self.op("Mul", scope, &[x, &gate], vec![t(FLOAT)]);
                self.times(scope, &product, 1.0 / 6.0)
            }
        }
    }

    fn times(&mut self, scope: &str, x: &str, factor: f64) -> Value {
        let factor = self.body.constant(&format!("{scope}/factor"), scalar(factor as f32));
        self.op("Mul", scope, &[x, &factor], vec![t(FLOAT)])
    }

    /// A node of the layer, named as its operation.
    fn op(
        &mut self,
        op: &str,
        scope: &str,
        inputs: &[&str],
        attributes: Vec<super::attributes::Attribute>,
    ) -> Value {
        self.body.node(op, &format!("{scope}/{op}"), inputs, attributes)
    }
}
