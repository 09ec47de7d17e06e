//! The graph that servers and sessions run, with its signature, its saver and its collections.

use tallow_builder::graph::Shape;
use tallow_builder::{CamHead, Graph};
use tallow_tensorflow::proto::tensor_info::Encoding;
use tallow_tensorflow::proto::{
    AssetFileDef, DataType, GraphDef, MetaGraphDef, MetaInfoDef, SignatureDef, TensorInfo, TensorShape,
    VersionDef,
};

use super::attributes::{dtype, shape, strings};
use super::body::{Body, Place};
use super::functions::{IMAGES, outputs, signature_outputs};
use super::lower::lower;
use super::saver::{self, Stored};

/// The file in `assets/` with the class names, one a line.
pub(super) const LABELS: &str = "labels.txt";
/// The version of graphs that TensorFlow 2.9 wrote, and the oldest consumer: every operation here is older.
const VERSIONS: VersionDef = VersionDef { producer: 1087, min_consumer: 12 };
/// The writer, as far as loaders are concerned: some parse it as a version to know which defaults were left out.
const TENSORFLOW: &str = "2.9.0";

/// The shape of a batch of images [N, H, W, C]; −1 where the batch is free.
pub(super) fn images_shape(graph: &Graph, batch: Option<usize>) -> TensorShape {
    let dims = match graph.input_shape() {
        Shape::Map { channels, height, width } => vec![height, width, channels],
        Shape::Vector { features } => vec![features],
    };
    let batch = batch.map_or(-1, |batch| batch as i64);
    TensorShape::of(std::iter::once(batch).chain(dims.into_iter().map(|dim| dim as i64)))
}

/// The inference graph. A loader fills `variables` from the bundle; `labels` adds the asset.
pub(super) fn meta_graph(
    graph: &Graph,
    variables: &[Stored],
    batch: Option<usize>,
    cam: Option<CamHead>,
    labels: bool,
) -> MetaGraphDef {
    let images = images_shape(graph, batch);
    let mut body = Body::new(Place::Graph);
    let float = DataType::Float;
    let attributes = vec![dtype("dtype", float), shape("shape", images.clone())];
    let input = body.node("Placeholder", IMAGES, &[], attributes);
    let scores = lower(&mut body, graph, input.clone(), false, cam);
    let values = outputs(&mut body, &scores).into_iter().map(|(_, _, value)| value);
    let outputs = signature_outputs(graph, batch, cam)
        .into_iter()
        .zip(values)
        .map(|(output, value)| (output.name.to_owned(), tensor_info(&value, output.dtype, output.shape)));
    let outputs = outputs.collect();
    let saver = saver::add(&mut body, variables);
    let mut assets = vec![];
    if labels {
        let path = body.constant("asset_path/labels", strings(&[], [LABELS.to_owned()]));
        let tensor_info = Some(tensor_info(&path, DataType::String, TensorShape::default()));
        assets.push(AssetFileDef { tensor_info, filename: LABELS.into() });
    }
    let signature = SignatureDef {
        inputs: [(IMAGES.to_owned(), tensor_info(&input, float, images))].into(),
        outputs,
        method_name: "tensorflow/serving/predict".into(),
    };
    let collections = [
        ("variables", saver::collection(variables.iter())),
        ("trainable_variables", saver::collection(variables.iter().filter(|v| v.trainable))),
    ];
    let info = MetaInfoDef { tags: vec!["serve".into()], tensorflow_version: TENSORFLOW.into() };
    MetaGraphDef {
        meta_info_def: Some(info),
        graph_def: Some(GraphDef { node: body.finish().nodes, library: None, versions: Some(VERSIONS) }),
        saver_def: Some(saver),
        collection_def: collections.map(|(name, collection)| (name.to_owned(), collection)).into(),
        signature_def: [("serving_default".to_owned(), signature)].into(),
        asset_file_def: assets,
        object_graph_def: None,
    }
}

fn tensor_info(node: &str, dtype: DataType, shape: TensorShape) -> TensorInfo {
    TensorInfo {
        encoding: Some(Encoding::Name(format!("{node}:0"))),
        dtype: dtype.into(),
        tensor_shape: Some(shape),
    }
}
