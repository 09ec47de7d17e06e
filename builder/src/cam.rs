//! Class activation maps: where in an image a network sees a class.
//!
//! [`class_activation_maps`] for networks that end in global average pooling and one fully connected layer (Zhou et al.
//! 2016, "Learning deep features for discriminative localization", section 2); [`grad_cam`] for any (Selvaraju et al.
//! 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization", section 3).

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::exec::Network;
use crate::graph::{Graph, NodeId, Op, Shape};

/// The end of a network that class activation maps can be read off: feature map, global average pool, classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CamHead {
    /// What the global average pool takes.
    pub features: NodeId,
    /// The fully connected layer that gives the logits.
    pub classifier: NodeId,
}

impl CamHead {
    /// The head of a network whose logits, but for a softmax, are a linear function of the means of a feature map.
    pub fn of(graph: &Graph) -> Option<Self> {
        let mut id = graph.output();
        if graph.node(id).op == Op::Softmax {
            id = graph.node(id).inputs[0];
        }
        let classifier = id;
        if !matches!(graph.node(classifier).op, Op::Linear(_)) {
            return None;
        }
        loop {
            id = *graph.node(id).inputs.first()?;
            match graph.node(id).op {
                Op::Flatten | Op::Dropout { .. } => {}
                Op::GlobalAvgPool => return Some(Self { features: graph.node(id).inputs[0], classifier }),
                _ => return None,
            }
        }
    }

    /// The shape of one image's maps: classes × rows × columns.
    pub fn shape(&self, graph: &Graph) -> Shape {
        let classes = graph.node(self.classifier).shape.elements();
        match graph.node(self.features).shape {
            Shape::Map { height, width, .. } => Shape::map(classes, height, width),
            Shape::Vector { .. } => unreachable!("a global average pool takes a map"),
        }
    }
}

/// Logits `[N, classes]` and class activation maps `[N, classes, rows, columns]` of images `[N, C, H, W]`, at the
/// resolution of the last feature map. `None` where the network has no [`CamHead`]. A map's mean over rows and columns,
/// plus the classifier's bias, is the logit. Logits are in the images' type, maps in f32.
///
/// # Errors
/// Where the images do not fit the network.
pub fn class_activation_maps(network: &Network, images: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
    let Some(head) = CamHead::of(network.graph()) else { return Ok(None) };
    let (mut features, mut logits) = (None, None);
    network.forward_watched(images, |id, value| {
        if id == head.features {
            features = Some(value.clone());
        } else if id == head.classifier {
            logits = Some(value.clone());
        }
    })?;
    let (features, logits) = (features.expect("a layer of the graph"), logits.expect("a layer of the graph"));
    let (n, channels, height, width) = features.dims4()?;
    let weight = network.weights().get(&format!("{}.weight", network.graph().node(head.classifier).name));
    let features = features.to_dtype(DType::F32)?.reshape((n, channels, height * width))?.contiguous()?;
    let maps = weight.broadcast_matmul(&features)?;
    Ok(Some((logits, maps.reshape((n, weight.dim(0)?, height, width))?)))
}

/// The layer whose map [`grad_cam`] shows unless another is named: the last that gives a map of more than one pixel.
pub fn last_feature_map(graph: &Graph) -> Option<NodeId> {
    last_map(graph, |_| true)
}

/// The same among the layers of a stage, those whose names begin with the stage's and a dot.
pub fn last_feature_map_of(graph: &Graph, stage: &str) -> Option<NodeId> {
    last_map(graph, |name| name.strip_prefix(stage).is_some_and(|rest| rest.starts_with('.')))
}

fn last_map(graph: &Graph, is_meant: impl Fn(&str) -> bool) -> Option<NodeId> {
    let is_map = |shape: Shape| matches!(shape, Shape::Map { height, width, .. } if height * width > 1);
    let found = graph.iter().rev().find(|(_, n)| n.op != Op::Input && is_map(n.shape) && is_meant(&n.name));
    found.map(|(id, _)| id)
}

/// Grad-CAM of one class: the map `[N, rows, columns]` of images `[N, C, H, W]` at a layer, ReLU(Σ_k α_k·f_k) with α_k
/// the mean over the map of the gradient of the class's logit. Gradients are in the images' type, maps in f32.
///
/// # Errors
/// Where the images do not fit the network, the class is not there, or the layer gives no map.
pub fn grad_cam(network: &Network, images: &Tensor, class: usize, layer: NodeId) -> Result<Tensor> {
    let graph = network.graph();
    let problem = |problem: String| Error::Graph { network: graph.name().to_owned(), problem };
    let classes = graph.output_shape().elements();
    if class >= classes {
        return Err(problem(format!("it has no class {class}: they are 0 to {}", classes - 1)));
    }
    if !matches!(graph.node(layer).shape, Shape::Map { .. }) {
        return Err(problem(format!("layer `{}` gives no feature map", graph.node(layer).name)));
    }
    let tape = network.record_inference(images)?;
    let n = images.dim(0)?;
    let one_hot: Vec<f32> = (0..n * classes).map(|i| f32::from(i % classes == class)).collect();
    let gradient = Tensor::from_vec(one_hot, (n, classes), images.device())?;
    let dtype = tape.value(graph.output()).dtype();
    let gradient = (gradient * scale(dtype))?.to_dtype(dtype)?;
    let features = tape.value(layer).to_dtype(DType::F32)?;
    let gradient = tape.gradient_of(network, &gradient, layer)?.to_dtype(DType::F32)?;
    let importance = (gradient.mean_keepdim((2, 3))? / scale(dtype))?;
    Ok(features.broadcast_mul(&importance)?.sum(1)?.relu()?)
}

/// What gradients are multiplied by on their way back: those of f16 would vanish. A power of two changes none of their
/// bits.
fn scale(dtype: DType) -> f64 {
    if dtype == DType::F16 { 1024.0 } else { 1.0 }
}
