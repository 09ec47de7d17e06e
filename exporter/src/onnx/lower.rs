//! Every operation of the layer graph as ONNX nodes, the same operators in each set from 15 to 21.
//! A node and its value are called as the layer is; what a layer needs besides (a sigmoid in SiLU) adds a suffix.
//! There is no `value_info`: shapes with a symbolic batch inside the graph keep tract from fixing the batch.

use std::collections::HashSet;

use candle_core::{Device, Tensor};
use tallow_builder::graph::{Activation, Node, Op, Pads, Pool, Shape};
use tallow_builder::{CamHead, Graph, NodeId, Weights};
use tallow_input::Preprocess;

use super::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, FLOAT, GraphProto, NodeProto, TensorShapeProto,
    TensorType, TypeProto, UINT8, ValueInfoProto,
};
use super::{CAM, INPUT, PIXELS};

/// What comes before the layers and after them.
pub(super) struct Ends<'a> {
    /// The name of the network's output.
    pub output: &'a str,
    /// Where class activation maps, the second output, are read off.
    pub cam: Option<CamHead>,
    /// How bytes become the network's input, where the graph does that itself.
    pub pixels: Option<&'a Preprocess>,
    /// The number of images in a run, where it is fixed.
    pub batch: Option<usize>,
    /// The version of the operator set.
    pub opset: u32,
}

/// The graph without its initializers, and these in the order of their first use.
pub(super) fn lower(
    graph: &Graph,
    weights: &Weights,
    ends: &Ends<'_>,
) -> (GraphProto, Vec<(String, Tensor)>) {
    let output = ends.output;
    let mut lowering = Lowering {
        graph,
        weights,
        opset: ends.opset,
        spatial_axes: None,
        nodes: vec![],
        initializers: vec![],
        names: graph.parameters().into_iter().map(|parameter| parameter.name).collect(),
        values: vec![INPUT.into()],
    };
    lowering.names.extend([INPUT, PIXELS, output, CAM].map(str::to_owned));
    if let Some(preprocess) = ends.pixels {
        lowering.normalise(preprocess);
    }
    for (id, node) in graph.iter().skip(1) {
        let value = if id == graph.output() { output.to_owned() } else { lowering.unique(&node.name) };
        lowering.layer(id, node, &value);
        lowering.values.push(value);
    }
    if graph.output().index() == 0 {
        lowering.node("Identity", "identity", &[INPUT], output, vec![]);
    }
    let floats = |name: &str, shape: Shape| value_info(name, FLOAT, shape.dims(), ends.batch);
    let mut outputs = vec![floats(output, graph.output_shape())];
    if let Some(head) = ends.cam {
        lowering.cam(head);
        outputs.push(floats(CAM, head.shape(graph)));
    }
    let input = match (ends.pixels, graph.input_shape()) {
        (Some(_), Shape::Map { channels, height, width }) => {
            value_info(PIXELS, UINT8, vec![height, width, channels], ends.batch)
        }
        (_, shape) => floats(INPUT, shape),
    };
    let proto = GraphProto {
        node: lowering.nodes,
        name: graph.name().into(),
        initializer: vec![],
        input: vec![input],
        output: outputs,
    };
    (proto, lowering.initializers)
}

/// From this operator set on, `ReduceMean` takes its axes as an input instead of an attribute.
const REDUCE_AXES_AS_INPUT: u32 = 18;

struct Lowering<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    opset: u32,
    /// The initializer with the axes of rows and columns, once something has needed it.
    spatial_axes: Option<String>,
    nodes: Vec<NodeProto>,
    initializers: Vec<(String, Tensor)>,
    /// Names taken by values and initializers, which share one namespace.
    names: HashSet<String>,
    /// The value of each layer so far.
    values: Vec<String>,
}

impl Lowering<'_> {
    fn layer(&mut self, id: NodeId, node: &Node, output: &str) {
        let inputs: Vec<String> = node.inputs.iter().map(|id| self.values[id.index()].clone()).collect();
        let x = inputs.first().map_or(INPUT, String::as_str);
        let name = &node.name;
        match &node.op {
            Op::Conv2d(conv) => {
                let attributes = vec![
                    ints("dilations", &conv.dilation),
                    int("group", conv.groups),
                    ints("kernel_shape", &conv.kernel),
                    pads(&conv.padding),
                    ints("strides", &conv.stride),
                ];
                self.with_parameters("Conv", id, x, output, attributes);
            }
            Op::BatchNorm(bn) => {
                // ONNX's momentum is the share of the old average.
                let attributes = vec![float("epsilon", bn.eps), float("momentum", 1.0 - bn.momentum)];
                self.with_parameters("BatchNormalization", id, x, output, attributes);
            }
            Op::Linear(_) => self.with_parameters("Gemm", id, x, output, vec![int("transB", 1)]),
            Op::Activation(activation) => self.activation(*activation, name, x, output),
            Op::MaxPool(pool) => self.node("MaxPool", name, &[x], output, window(pool)),
            Op::AvgPool(pool) => {
                let mut attributes = window(pool);
                attributes.insert(0, int("count_include_pad", 1));
                self.node("AveragePool", name, &[x], output, attributes);
            }
            Op::GlobalAvgPool => self.global_mean(name, x, output),
            Op::Add => self.node("Add", name, &[x, &inputs[1]], output, vec![]),
            Op::Mul => self.node("Mul", name, &[x, &inputs[1]], output, vec![]),
            Op::Flatten => self.node("Flatten", name, &[x], output, vec![int("axis", 1)]),
            Op::Softmax => self.node("Softmax", name, &[x], output, vec![int("axis", 1)]),
            Op::Input | Op::Dropout { .. } | Op::StochasticDepth { .. } => {
                self.node("Identity", name, &[x], output, vec![]);
            }
        }
    }

    /// ONNX Runtime sums a `GlobalAveragePool` in blocked layout one pixel after the other, which costs networks with
    /// many gates a digit (EfficientNet-B2: 2.6e-4 from f64 instead of 2.4e-5); its `ReduceMean` sums as exactly as
    /// the other engines do, and is as fast.
    fn global_mean(&mut self, name: &str, x: &str, output: &str) {
        if self.opset < REDUCE_AXES_AS_INPUT {
            self.node("ReduceMean", name, &[x], output, vec![ints("axes", &[2, 3])]);
            return;
        }
        let axes = match &self.spatial_axes {
            Some(axes) => axes.clone(),
            None => {
                let name = self.unique("spatial_axes");
                let axes = Tensor::new(&[2i64, 3], &Device::Cpu).expect("numbers on the CPU need no device");
                self.initializers.push((name.clone(), axes));
                self.spatial_axes.insert(name).clone()
            }
        };
        self.node("ReduceMean", name, &[x, &axes], output, vec![]);
    }

    fn activation(&mut self, activation: Activation, name: &str, x: &str, output: &str) {
        match activation {
            Activation::Relu => self.node("Relu", name, &[x], output, vec![]),
            Activation::Relu6 => {
                let (low, high) = (self.constant("relu6.min", 0.0), self.constant("relu6.max", 6.0));
                self.node("Clip", name, &[x, &low, &high], output, vec![]);
            }
            Activation::LeakyRelu { slope } => {
                self.node("LeakyRelu", name, &[x], output, vec![float("alpha", slope)]);
            }
            Activation::Sigmoid { slope: 1.0 } => self.node("Sigmoid", name, &[x], output, vec![]),
            Activation::Sigmoid { slope } => {
                let slope = self.constant(&format!("{name}.slope"), slope as f32);
                let scaled = self.unique(&format!("{name}/scaled"));
                self.node("Mul", &scaled, &[x, &slope], &scaled, vec![]);
                self.node("Sigmoid", name, &[&scaled], output, vec![]);
            }
            Activation::Tanh => self.node("Tanh", name, &[x], output, vec![]),
            Activation::Silu => {
                let gate = self.unique(&format!("{name}/sigmoid"));
                self.node("Sigmoid", &gate, &[x], &gate, vec![]);
                self.node("Mul", name, &[x, &gate], output, vec![]);
            }
            Activation::HardSwish => self.node("HardSwish", name, &[x], output, vec![]),
        }
    }

    /// Bytes [N, H, W, 3] to what the network takes, [N, 3, H, W]: (x / 255 − mean) / std as one product and one sum.
    fn normalise(&mut self, preprocess: &Preprocess) {
        let cast = self.unique("pixels/float");
        self.node("Cast", &cast, &[PIXELS], &cast, vec![int("to", FLOAT as usize)]);
        let planes = self.unique("pixels/planes");
        self.node("Transpose", &planes, &[&cast], &planes, vec![ints("perm", &[0, 3, 1, 2])]);
        let channels = |value: &dyn Fn(f64, f64) -> f64| {
            let values = preprocess.mean.iter().zip(&preprocess.std);
            let values = values.map(|(&mean, &std)| value(f64::from(mean), f64::from(std)) as f32);
            Tensor::from_vec(values.collect::<Vec<_>>(), (1, 3, 1, 1), &Device::Cpu)
                .expect("numbers on the CPU need no device")
        };
        let (scale, shift) = (self.unique("pixels/scale"), self.unique("pixels/shift"));
        self.initializers.push((scale.clone(), channels(&|_, std| 1.0 / (255.0 * std))));
        self.initializers.push((shift.clone(), channels(&|mean, std| -mean / std)));
        let scaled = self.unique("pixels/scaled");
        self.node("Mul", &scaled, &[&planes, &scale], &scaled, vec![]);
        self.node("Add", "pixels/normalised", &[&scaled, &shift], INPUT, vec![]);
    }

    /// A 1×1 convolution of the features with the classifier's weights, which are in the file once.
    fn cam(&mut self, head: CamHead) {
        let classifier = self.graph.node(head.classifier);
        let channels = self.graph.node(head.features).shape.channels();
        let (classes, channels) = (classifier.shape.elements() as i64, channels as i64);
        let shape = self.unique("cam/shape");
        let dims =
            Tensor::new(&[classes, channels, 1, 1], &Device::Cpu).expect("numbers on the CPU need no device");
        self.initializers.push((shape.clone(), dims));
        let filters = self.unique("cam/filters");
        let weight = format!("{}.weight", classifier.name);
        self.node("Reshape", &filters, &[&weight, &shape], &filters, vec![]);
        let features = self.values[head.features.index()].clone();
        self.node("Conv", CAM, &[&features, &filters], CAM, vec![ints("kernel_shape", &[1, 1])]);
    }

    /// A node that takes its layer's tensors after `x`, in the order of [`Graph::layer_parameters`], which is ONNX's.
    fn with_parameters(
        &mut self,
        op: &str,
        id: NodeId,
        x: &str,
        output: &str,
        attributes: Vec<AttributeProto>,
    ) {
        let mut inputs = vec![x.to_owned()];
        for parameter in self.graph.layer_parameters(id) {
            // The counter of a batch norm's batches is PyTorch's own.
            if !parameter.shape.is_empty() {
                let tensor = self.weights.get(&parameter.name).clone();
                inputs.push(parameter.name.clone());
                self.initializers.push((parameter.name, tensor));
            }
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let graph = self.graph;
        self.node(op, &graph.node(id).name, &inputs, output, attributes);
    }

    fn node(&mut self, op: &str, name: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            name: name.into(),
            op_type: op.into(),
            attribute,
        });
    }

    /// The name of a scalar, made on its first use.
    fn constant(&mut self, name: &str, value: f32) -> String {
        let known = |(other, tensor): &&(String, Tensor)| other == name && tensor.dims().is_empty();
        if let Some((name, _)) = self.initializers.iter().find(known) {
            return name.clone();
        }
        let name = self.unique(name);
        let scalar = Tensor::new(value, &Device::Cpu).expect("a number on the CPU needs no device");
        self.initializers.push((name.clone(), scalar));
        name
    }

    /// A name that nothing has yet: the one asked for unless a layer is called as another's tensor.
    fn unique(&mut self, name: &str) -> String {
        let mut name = name.to_owned();
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}

fn window(pool: &Pool) -> Vec<AttributeProto> {
    vec![ints("kernel_shape", &pool.kernel), pads(&pool.padding), ints("strides", &pool.stride)]
}

fn pads(padding: &Pads) -> AttributeProto {
    ints("pads", &padding.onnx())
}

fn attribute(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: r#type.into(), ..Default::default() }
}

fn int(name: &str, value: usize) -> AttributeProto {
    AttributeProto { i: Some(value as i64), ..attribute(name, AttributeType::Int) }
}

fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        ints: values.iter().map(|&v| v as i64).collect(),
        ..attribute(name, AttributeType::Ints)
    }
}

fn float(name: &str, value: f64) -> AttributeProto {
    AttributeProto { f: Some(value as f32), ..attribute(name, AttributeType::Float) }
}

fn value_info(name: &str, elem_type: i32, sample: Vec<usize>, batch: Option<usize>) -> ValueInfoProto {
    let fixed = |size: usize| DimensionValue::Fixed(size as i64);
    let batch = batch.map_or(DimensionValue::Symbol("N".into()), fixed);
    let values = std::iter::once(batch).chain(sample.into_iter().map(fixed));
    let shape = TensorShapeProto { dim: values.map(|value| Dimension { value: Some(value) }).collect() };
    let tensor = TensorType { elem_type, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
