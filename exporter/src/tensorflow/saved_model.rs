//! A SavedModel directory: everything about one trained network in one place, loaded by TensorFlow as it is.
//!
//! `<model>/<version>/` holds `saved_model.pb`, the weights in `variables/`, the class names in `assets/labels.txt`, and in
//! `assets.extra/` what only Tallow and `.onnx` engines read: `model.onnx`, `network.json` (the layer graph) and
//! `preprocess.json`. It appears whole or not at all.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use prost::Message;
use tallow_builder::{Graph, Weights};
use tallow_input::{Dtype, ModelCard};
use tallow_tensorflow::bundle::{BundleWriter, data_path, index_path};
use tallow_tensorflow::proto::{self, FunctionDefLibrary};

use super::functions::{call, signature, signature_outputs};
use super::import::read_variables;
use super::meta_graph::{LABELS, images_shape, meta_graph};
use super::objects::{Offered, key, object_graph, trackable_objects};
use super::saver::Stored;
use super::variables::variables;
use crate::adopt::Head;
use crate::atomic::{Existing, write_directory};
use crate::error::{Error, Result};
use crate::onnx::{OnnxOptions, cam_head, read_card, write_onnx};
use crate::passes;

const GRAPH: &str = "saved_model.pb";
/// The prefix of its tensor bundle.
pub(super) const VARIABLES: &str = "variables/variables";
const ASSETS: &str = "assets";
const EXTRA: &str = "assets.extra";
const ONNX: &str = "assets.extra/model.onnx";
const NETWORK: &str = "assets.extra/network.json";
const PREPROCESS: &str = "assets.extra/preprocess.json";

/// What a SavedModel is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedModelOptions {
    /// The version's number: the directory inside the model's.
    pub version: u64,
    /// Folds batch norms into the convolutions before them. They are gone then, and fine-tuning cannot train them.
    pub fold: bool,
    /// The `.onnx` file in `assets.extra/`. Its fixed batch and its class activation maps are those of the signature too,
    /// where the maps are [N, rows, columns, classes].
    pub onnx: OnnxOptions,
}

impl Default for SavedModelOptions {
    fn default() -> Self {
        Self { version: 1, fold: false, onnx: OnnxOptions::default() }
    }
}

/// A version of a SavedModel that has been written or opened.
#[derive(Clone, Debug)]
pub struct SavedModel {
    path: PathBuf,
    graph: Graph,
    card: ModelCard,
}

impl SavedModel {
    /// Writes `<path>/<version>/`. The weights are as they were trained, batch norms unfolded unless `options.fold`,
    /// so that training can go on from them here and in TensorFlow; the network there takes images [N, H, W, C].
    ///
    /// # Errors
    /// As [`write_onnx`]; where `options.onnx.dtype` is not float32; where a label has a line break; where something is in the way: only another SavedModel of
    /// Tallow's is ever replaced.
    pub fn write(
        path: &Path,
        graph: &Graph,
        weights: &Weights,
        card: &ModelCard,
        options: &SavedModelOptions,
        existing: Existing,
    ) -> Result<Self> {
        if options.onnx.dtype != Dtype::F32 {
            let problem = "a SavedModel holds float32 weights, which TensorFlow can train on: write float16 as an .onnx file";
            return Err(Error::Option { network: graph.name().to_owned(), problem: problem.into() });
        }
        let labels = labels_text(graph, &card.labels)?;
        let (graph, weights) = match options.fold {
            true => passes::fold_batch_norm(graph, weights)?,
            false => (graph.clone(), weights.clone()),
        };
        let directory = path.join(options.version.to_string());
        if existing == Existing::Replace && directory.exists() && !is_version(&directory) {
            let problem = "is no SavedModel of Tallow's, so it is not replaced; choose another path".into();
            return Err(Error::SavedModel { path: directory, problem });
        }
        check_place(path)?;
        let made = !path.exists();
        if made {
            fs::create_dir(path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => Error::NoFolder {
                    path: path.to_owned(),
                    folder: path.parent().unwrap_or(Path::new(".")).to_owned(),
                },
                _ => Error::Io { path: path.to_owned(), source },
            })?;
        }
        let written = write_directory(&directory, existing, |dir| {
            for folder in ["variables", ASSETS, EXTRA] {
                fs::create_dir(dir.join(folder)).map_err(|source| io(&dir.join(folder), source))?;
            }
            write_onnx(&dir.join(ONNX), &graph, &weights, Some(card), &options.onnx, Existing::Keep)?;
            write_model(dir, &graph, &weights, options)?;
            write_text(&dir.join(NETWORK), &json(&graph)?)?;
            write_text(&dir.join(ASSETS).join(LABELS), &labels)?;
            write_text(&dir.join(PREPROCESS), &json(&card.preprocess)?)
        });
        if written.is_err() && made {
            // Empty, for the version appears whole or not at all; where it is not, it stays.
            let _ = fs::remove_dir(path);
        }
        written?;
        Self::open(&directory)
    }

    /// Opens a SavedModel of Tallow's, the newest version where `path` has several, or the version that `path` is the
    /// `variables/` or the `saved_model.pb` of: reads its layer graph and its card. The weights are left on disk.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or `assets/` says something else than `model.onnx` does.
    pub fn open(path: &Path) -> Result<Self> {
        let Some(path) = version_at(path).filter(|path| is_version(path)) else {
            let problem = format!("is no SavedModel of Tallow's: it has no {NETWORK} beside a {GRAPH}");
            return Err(Error::SavedModel { path: path.to_owned(), problem });
        };
        let graph: Graph = read_json(&path.join(NETWORK))?;
        // Nothing here needs it, but whoever finds the model damaged should find it out before it is deployed.
        let bytes = fs::read(path.join(GRAPH)).map_err(|source| io(&path.join(GRAPH), source))?;
        let has_graph =
            proto::SavedModel::decode(&bytes[..]).is_ok_and(|model| !model.meta_graphs.is_empty());
        if !has_graph {
            let problem = "is damaged: export the model again".into();
            return Err(Error::SavedModel { path: path.join(GRAPH), problem });
        }
        let onnx = path.join(ONNX);
        let Some(card) = read_card(&onnx)? else {
            return Err(Error::Onnx { path: onnx, problem: "it has no tallow metadata".into() });
        };
        // The assets repeat what the card says, for people and for other tools: an edit there would be ignored.
        let labels = path.join(ASSETS).join(LABELS);
        if read_text(&labels)?.lines().ne(card.labels.iter().map(String::as_str)) {
            return Err(differs(labels));
        }
        if read_json::<tallow_input::Preprocess>(&path.join(PREPROCESS))? != card.preprocess {
            return Err(differs(path.join(PREPROCESS)));
        }
        Ok(Self { path, graph, card })
    }

    /// Whether `path` looks like a SavedModel of Tallow's, or like a version of one.
    pub fn is_at(path: &Path) -> bool {
        version_at(path).is_some_and(|path| is_version(&path))
    }

    /// The SavedModel that the `.onnx` file lies in, if it does.
    pub fn around(onnx: &Path) -> Option<PathBuf> {
        let folder = std::path::absolute(onnx).ok()?.parent()?.to_owned();
        let version = folder.parent().filter(|version| folder.ends_with(EXTRA) && is_version(version));
        version.map(Path::to_owned)
    }

    /// The version's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layer graph as it was trained.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the model says about itself; `card().output` is that of the `.onnx` file.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// The class names, in the order of the network's outputs.
    pub fn labels(&self) -> &[String] {
        &self.card.labels
    }

    /// The file that inference engines run.
    pub fn onnx_path(&self) -> PathBuf {
        self.path.join(ONNX)
    }

    /// Its large files: graph, variables and `.onnx`.
    pub fn files(&self) -> [PathBuf; 4] {
        let variables = self.path.join(VARIABLES);
        [self.path.join(GRAPH), index_path(&variables), data_path(&variables, 0, 1), self.onnx_path()]
    }

    /// Reads the trained weights out of `variables/`.
    ///
    /// # Errors
    /// Where a file is damaged or does not fit the graph.
    pub fn load_weights(&self, device: &Device) -> Result<Weights> {
        Ok(read_variables(&self.graph, &self.path.join(VARIABLES), Head::Kept, device)?.weights)
    }
}

/// Whether versions of a SavedModel may stand in `path`.
fn check_place(path: &Path) -> Result<()> {
    let refused = |problem: &str| Err(Error::SavedModel { path: path.to_owned(), problem: problem.into() });
    let number = path.file_name().and_then(OsStr::to_str).filter(|name| name.parse::<u64>().is_ok());
    if let Some(number) = number {
        // A server would take it for a version of the folder above, and that for the model.
        let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let above = above.display();
        return refused(&format!(
            "looks like a version: name the model's folder, {above}, and --model-version {number}"
        ));
    }
    if path.join(GRAPH).is_file() {
        return refused("is a version of a SavedModel and takes none: name the folder above or another");
    }
    if path.exists() && !path.is_dir() {
        return refused("is a file, and a SavedModel is a directory; choose another path");
    }
    if path.is_dir() && newest_version(path).is_none() && !is_empty(path) {
        return refused("holds something else than versions of a SavedModel; choose another path");
    }
    Ok(())
}

/// `saved_model.pb` and `variables/`.
fn write_model(dir: &Path, graph: &Graph, weights: &Weights, options: &SavedModelOptions) -> Result<()> {
    let variables = variables(graph);
    let stored: Vec<Stored> = variables.iter().map(|v| Stored::new(v, key(&v.name))).collect();
    // Training runs the network as it is, with dropout; inference runs it without what only training needs.
    let (inference, _) = passes::remove_training(graph, weights)?;
    let cam = if options.onnx.cam { Some(cam_head(&inference)?) } else { None };
    let batch = options.onnx.batch;
    let outputs = signature_outputs(&inference, None, cam);
    let functions = [
        call("__inference_call_0", &inference, false),
        call("__inference_call_training_1", graph, true),
        call("__inference_serve_2", &inference, false),
        call("__inference_train_3", graph, true),
        signature("__inference_serving_default_4", &inference, cam),
    ];
    let mut meta_graph = meta_graph(&inference, &stored, batch, cam, true);
    let [inference, training, serve, train, serving] = &functions;
    let offered = Offered { inference, training, serve, train, serving };
    let objects = object_graph(&stored, &offered, &images_shape(graph, batch), &outputs);
    let trackable = trackable_objects(&objects, &stored).encode_to_vec();
    meta_graph.object_graph_def = Some(objects);
    if let Some(graph) = &mut meta_graph.graph_def {
        let function = functions.into_iter().map(|function| function.definition).collect();
        graph.library = Some(FunctionDefLibrary { function });
    }
    let model = proto::SavedModel { saved_model_schema_version: 1, meta_graphs: vec![meta_graph] };
    fs::write(dir.join(GRAPH), model.encode_to_vec()).map_err(|source| io(&dir.join(GRAPH), source))?;

    let mut bundle = BundleWriter::create(&dir.join(VARIABLES))?;
    bundle.add_string("_CHECKPOINTABLE_OBJECT_GRAPH", &trackable)?;
    for (variable, stored) in variables.iter().zip(&stored) {
        bundle.add_f32(&stored.key, &variable.shape, &variable.value(weights)?)?;
    }
    Ok(bundle.finish()?)
}

/// The version of a SavedModel, anybody's, at `path`: [`newest_version`], or the one that `path` is a part of.
pub(super) fn version_at(path: &Path) -> Option<PathBuf> {
    let is_part = path.ends_with("variables") || path.ends_with(GRAPH);
    let whole = path.parent().filter(|whole| is_part && whole.join(GRAPH).is_file());
    whole.map(Path::to_owned).or_else(|| newest_version(path))
}

/// Whether `path` is a SavedModel, anybody's, or in one.
pub(crate) fn is_saved_model(path: &Path) -> bool {
    version_at(path).is_some()
}

/// `path` if it is a version of a SavedModel, or the newest version in it; anybody's.
fn newest_version(path: &Path) -> Option<PathBuf> {
    let has_graph = |path: &Path| path.join(GRAPH).is_file();
    if has_graph(path) {
        return Some(path.to_owned());
    }
    let entries = fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    let versions = entries.filter_map(|path| Some((number(&path)?, path)));
    versions.filter(|(_, path)| has_graph(path)).max().map(|(_, path)| path)
}

fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether `path` is a version of a SavedModel of Tallow's.
fn is_version(path: &Path) -> bool {
    path.join(NETWORK).is_file() && path.join(GRAPH).is_file()
}

fn labels_text(graph: &Graph, labels: &[String]) -> Result<String> {
    match labels.iter().find(|label| label.contains(['\n', '\r'])) {
        None => Ok(labels.iter().flat_map(|label| [label, "\n"]).collect()),
        Some(label) => {
            let problem = format!("label {label:?} has a line break, and {LABELS} holds one label a line");
            Err(Error::Card { network: graph.name().to_owned(), problem })
        }
    }
}

fn differs(path: PathBuf) -> Error {
    let problem = format!("differs from what {ONNX} says; edit neither, export the model again");
    Error::SavedModel { path, problem }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|e| io(Path::new("memory"), e.into()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let damaged = |e: serde_json::Error| Error::SavedModel {
        path: path.to_owned(),
        problem: format!("cannot be understood ({e}); export the model again"),
    };
    serde_json::from_str(&read_text(path)?).map_err(damaged)
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| io(path, source))
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
