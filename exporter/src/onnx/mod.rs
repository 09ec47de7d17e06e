//! ONNX: the inference graph as one self-describing `.onnx` file.
//! Input `images` [N, C, H, W] f32, output `logits` (or `probabilities`); layers and tensors keep their names.
//! The same network, weights, card and options give the same bytes.

mod encode;
mod half;
mod lower;
mod proto;

use std::path::Path;

use prost::Message;
use tallow_builder::graph::{Op, Shape};
use tallow_builder::{CamHead, Graph, Weights};
use tallow_input::{Dtype, ModelCard, OutputKind};

use crate::atomic::{Existing, write_file};
use crate::error::{Error, Result};
use crate::passes;
use encode::Encoding;
use lower::Ends;
use proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};

/// The oldest operator set that is written.
pub const OLDEST_OPSET: u32 = 15;
/// The newest operator set that is written.
pub const NEWEST_OPSET: u32 = 21;

/// The name of the network's input in the file.
pub const INPUT: &str = "images";
/// The name of the input of a file that normalises images itself.
pub const PIXELS: &str = "pixels";
/// The name of the output that holds scores before softmax.
pub const LOGITS: &str = "logits";
/// The name of the output that holds softmax's.
pub const PROBABILITIES: &str = "probabilities";
/// The name of the output that holds class activation maps.
pub const CAM: &str = "cam";

/// What the file is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Version of ONNX's operator set, [`OLDEST_OPSET`] to [`NEWEST_OPSET`].
    pub opset: u32,
    /// Folds batch norms into the convolutions before them.
    pub fold: bool,
    /// Ends the network in softmax: the output is `probabilities` instead of `logits`.
    pub softmax: bool,
    /// Adds the class activation maps as a second output, [`CAM`]: `[N, classes, rows, columns]` at the resolution of the
    /// last feature map. A map's mean plus the classifier's bias is the logit (Zhou et al. 2016, section 2).
    pub cam: bool,
    /// Puts the normalisation into the graph, which then takes [`PIXELS`], bytes `[N, H, W, 3]` at the network's size, and
    /// ends in softmax. Resizing and cropping stay outside: they depend on each image's size.
    pub embed_preprocessing: bool,
    /// Fixes the batch; `None` leaves it symbolic, as `N`.
    pub batch: Option<usize>,
    /// What the network computes in. In [`Dtype::F16`] weights and layers are float16, the file half as large, and inputs
    /// and outputs float32 all the same; normalisation of bytes, batch normalisation that is not folded, and softmax stay
    /// in float32.
    pub dtype: Dtype,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            opset: 17,
            fold: true,
            softmax: false,
            cam: false,
            embed_preprocessing: false,
            batch: None,
            dtype: Dtype::F32,
        }
    }
}

/// The bytes of an `.onnx` file. With a card, the file describes itself; `card.output`, `card.dtype` and, where it is empty,
/// `card.producer` are filled in here.
///
/// # Errors
/// Where an option is out of range, a weight beyond the numbers of [`OnnxOptions::dtype`], the card describes another network (labels, image size), or the weights are not
/// the graph's.
pub fn export_onnx(
    graph: &Graph,
    weights: &Weights,
    card: Option<&ModelCard>,
    options: &OnnxOptions,
) -> Result<Vec<u8>> {
    let encoding = encode(graph, weights, card, options)?;
    let mut bytes = Vec::with_capacity(encoding.len());
    encoding.write(&mut bytes).map_err(|source| Error::Io { path: "memory".into(), source })?;
    Ok(bytes)
}

/// Writes an `.onnx` file: [`export_onnx`], streamed, so that the weights are not held twice. The file appears whole
/// or not at all.
///
/// # Errors
/// As [`export_onnx`], and where the file is in the way or cannot be written.
pub fn write_onnx(
    path: &Path,
    graph: &Graph,
    weights: &Weights,
    card: Option<&ModelCard>,
    options: &OnnxOptions,
    existing: Existing,
) -> Result<()> {
    let encoding = encode(graph, weights, card, options)?;
    write_file(path, existing, |file| encoding.write(file))
}

/// The card in an `.onnx` file; `None` where the file has none.
///
/// # Errors
/// Where the file cannot be read, is not an ONNX model, or has a card that cannot be understood.
pub fn read_card(path: &Path) -> Result<Option<ModelCard>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let unreadable = |problem: String| Error::Onnx { path: path.to_owned(), problem };
    let model = MetadataOnly::decode(bytes.as_slice()).map_err(|e| unreadable(e.to_string()))?;
    let props = model.metadata_props.into_iter().map(|entry| (entry.key, entry.value));
    ModelCard::from_props(props).map_err(|e| unreadable(e.to_string()))
}

/// A [`ModelProto`] of which all but the metadata is skipped.
#[derive(Clone, PartialEq, Message)]
struct MetadataOnly {
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

/// Checks everything and lowers the network; nothing can go wrong after that but the writing.
fn encode(
    graph: &Graph,
    weights: &Weights,
    card: Option<&ModelCard>,
    options: &OnnxOptions,
) -> Result<Encoding> {
    let refuse = |problem: &str| Error::Option { network: graph.name().to_owned(), problem: problem.into() };
    let Some(ir_version) = ir_version(options.opset) else {
        return Err(Error::Opset { requested: options.opset, min: OLDEST_OPSET, max: NEWEST_OPSET });
    };
    if options.batch == Some(0) {
        return Err(refuse("a batch of 0 images is no batch"));
    }
    let pixels = match (options.embed_preprocessing, card) {
        (false, _) => None,
        (true, Some(card)) => Some(&card.preprocess),
        (true, None) => {
            return Err(refuse("nothing says how its images are normalised: give it a model card"));
        }
    };
    let softmax = options.softmax || options.embed_preprocessing;
    let (inference, weights) = passes::inference(graph, weights, options.fold, softmax)?;
    let kind = match inference.node(inference.output()).op {
        Op::Softmax => OutputKind::Probabilities,
        _ => OutputKind::Logits,
    };
    let metadata_props = match card {
        Some(card) => metadata(&inference, card, kind, options.dtype)?,
        None => vec![],
    };
    let output = match kind {
        OutputKind::Logits => LOGITS,
        OutputKind::Probabilities => PROBABILITIES,
    };
    let cam = if options.cam { Some(cam_head(&inference)?) } else { None };
    let ends = Ends { output, cam, pixels, batch: options.batch, opset: options.opset };
    let (mut proto, mut initializers) = lower::lower(&inference, &weights, &ends);
    if options.dtype == Dtype::F16 {
        (proto, initializers) = half::halve(proto, initializers)?;
    }
    let head = ModelProto {
        ir_version,
        producer_name: "tallow".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: None,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: i64::from(options.opset) }],
        metadata_props,
    };
    let encoding = Encoding::new(&head, &proto, initializers)?;
    // Protocol buffers end at 2 GiB.
    if encoding.len() > i32::MAX as usize {
        return Err(refuse("its weights do not fit into an ONNX file, which ends at 2 GiB"));
    }
    Ok(encoding)
}

/// Where class activation maps are read off.
pub(crate) fn cam_head(graph: &Graph) -> Result<CamHead> {
    CamHead::of(graph).ok_or_else(|| Error::Option {
        network: graph.name().to_owned(),
        problem: "class activation maps need a network that ends in global average pooling and one fully connected \
                  layer; `tallow cam` shows Grad-CAM for others"
            .into(),
    })
}

/// The IR version that came with an operator set (ONNX's versioning table), or `None` where it is not written here.
fn ir_version(opset: u32) -> Option<i64> {
    match opset {
        15..=18 => Some(8),
        19 | 20 => Some(9),
        21 => Some(10),
        _ => None,
    }
}

fn metadata(
    graph: &Graph,
    card: &ModelCard,
    output: OutputKind,
    dtype: Dtype,
) -> Result<Vec<StringStringEntryProto>> {
    let refuse = |problem: String| Err(Error::Card { network: graph.name().to_owned(), problem });
    let size = Shape::map(3, card.preprocess.height as usize, card.preprocess.width as usize);
    if size != graph.input_shape() {
        return refuse(format!("it prepares images of {size}, the network takes {}", graph.input_shape()));
    }
    let (labels, outputs) = (card.labels.len(), graph.output_shape().elements());
    if labels != outputs {
        return refuse(format!("it has {labels} labels, the network {outputs} outputs"));
    }
    let mut card = ModelCard { output, dtype, ..card.clone() };
    card.producer.get_or_insert_with(|| concat!("tallow ", env!("CARGO_PKG_VERSION")).into());
    let props = card.to_props().into_iter();
    Ok(props.map(|(key, value)| StringStringEntryProto { key, value }).collect())
}

#[cfg(test)]
mod tests;
