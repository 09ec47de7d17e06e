//! A model directory in SavedModel's shape: everything about one trained network in one place.
//! `model.onnx`, `network.json` (the layer graph), `variables/variables.safetensors`, `assets/labels.txt` and
//! `assets/preprocess.json`. It appears whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Device;
use tallow_builder::{Graph, Weights};
use tallow_input::ModelCard;

use crate::atomic::{Existing, write_directory};
use crate::error::{Error, Result};
use crate::onnx::{OnnxOptions, read_card, write_onnx};

const ONNX: &str = "model.onnx";
const NETWORK: &str = "network.json";
const VARIABLES: &str = "variables/variables.safetensors";
const LABELS: &str = "assets/labels.txt";
const PREPROCESS: &str = "assets/preprocess.json";

/// A model directory that has been written or opened.
#[derive(Clone, Debug)]
pub struct ModelDir {
    path: PathBuf,
    graph: Graph,
    card: ModelCard,
}

impl ModelDir {
    /// Writes a model directory. `variables/` holds the weights as they were trained, batch norms unfolded, so that
    /// training can go on from it; `model.onnx` is as `options` say.
    ///
    /// # Errors
    /// As [`write_onnx`]; where a label has a line break; where something is in the way: only another model
    /// directory is ever replaced.
    pub fn write(
        path: &Path,
        graph: &Graph,
        weights: &Weights,
        card: &ModelCard,
        options: &OnnxOptions,
        existing: Existing,
    ) -> Result<Self> {
        if existing == Existing::Replace && path.exists() && !Self::is_at(path) {
            let problem = "is no model directory, so it is not replaced; choose another path".into();
            return Err(Error::ModelDir { path: path.to_owned(), problem });
        }
        let labels = labels_text(graph, &card.labels)?;
        write_directory(path, existing, |dir| {
            for folder in ["variables", "assets"] {
                fs::create_dir(dir.join(folder)).map_err(|source| io(&dir.join(folder), source))?;
            }
            write_onnx(&dir.join(ONNX), graph, weights, Some(card), options, Existing::Keep)?;
            weights.save(&dir.join(VARIABLES))?;
            write_text(&dir.join(NETWORK), &json(graph)?)?;
            write_text(&dir.join(LABELS), &labels)?;
            write_text(&dir.join(PREPROCESS), &json(&card.preprocess)?)
        })?;
        Self::open(path)
    }

    /// Opens a model directory: reads its layer graph and its card. The weights are left on disk.
    ///
    /// # Errors
    /// Where a file is missing or damaged, or `assets/` says something else than `model.onnx` does.
    pub fn open(path: &Path) -> Result<Self> {
        if !Self::is_at(path) {
            let problem = format!("is no model directory: it has no {NETWORK} beside a {ONNX}");
            return Err(Error::ModelDir { path: path.to_owned(), problem });
        }
        let graph: Graph = read_json(&path.join(NETWORK))?;
        let onnx = path.join(ONNX);
        let Some(card) = read_card(&onnx)? else {
            return Err(Error::Onnx { path: onnx, problem: "it has no tallow metadata".into() });
        };
        // The assets repeat what the card says, for people and for other tools: an edit there would be ignored.
        let labels = read_text(&path.join(LABELS))?;
        if labels.lines().ne(card.labels.iter().map(String::as_str)) {
            return Err(differs(path.join(LABELS)));
        }
        if read_json::<tallow_input::Preprocess>(&path.join(PREPROCESS))? != card.preprocess {
            return Err(differs(path.join(PREPROCESS)));
        }
        Ok(Self { path: path.to_owned(), graph, card })
    }

    /// Whether `path` looks like a model directory.
    pub fn is_at(path: &Path) -> bool {
        path.join(NETWORK).is_file() && path.join(ONNX).is_file()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layer graph as it was trained.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the model says about itself; `card().output` is that of `model.onnx`.
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

    /// The trained weights, under the layer graph's names.
    pub fn weights_path(&self) -> PathBuf {
        self.path.join(VARIABLES)
    }

    /// Reads the trained weights.
    ///
    /// # Errors
    /// Where the file is damaged or does not fit the graph.
    pub fn load_weights(&self, device: &Device) -> Result<Weights> {
        Ok(Weights::load(&self.graph, &self.weights_path(), device)?)
    }
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
    Error::ModelDir { path, problem }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|e| io(Path::new("memory"), e.into()))
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let damaged = |e: serde_json::Error| Error::ModelDir {
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
mod tests {
    use tallow_builder::GraphBuilder;
    use tallow_builder::graph::{BatchNorm, ConvSpec, Linear, Shape};
    use tallow_input::Preprocess;

    use super::*;

    fn model() -> (Graph, Weights, ModelCard) {
        let mut g = GraphBuilder::new("tiny", Shape::map(3, 6, 8));
        let x = g.conv2d("conv", g.input(), ConvSpec::new(4, 3)).unwrap();
        let x = g.batch_norm("bn", x, BatchNorm::default()).unwrap();
        let x = g.global_avg_pool("pool", x).unwrap();
        let x = g.flatten("flatten", x).unwrap();
        let x = g.linear("fc", x, Linear::uniform(2, 0.1)).unwrap();
        let graph = g.finish(x).unwrap();
        let weights = Weights::init(&graph, 1, &Device::Cpu).unwrap();
        let card = ModelCard::new("tiny", vec!["Ä b".into(), "猫 \\n".into()], Preprocess::imagenet(8, 6));
        (graph, weights, card)
    }

    #[test]
    fn what_was_written_opens_with_the_same_network_weights_and_card() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let (graph, weights, card) = model();
        let options = OnnxOptions { softmax: true, ..Default::default() };
        let dir = ModelDir::write(&path, &graph, &weights, &card, &options, Existing::Keep).unwrap();
        assert_eq!(dir.graph(), &graph);
        assert_eq!(dir.labels(), card.labels);
        assert_eq!(dir.card().output, tallow_input::OutputKind::Probabilities);
        let read = dir.load_weights(&Device::Cpu).unwrap();
        for ((name, a), (other, b)) in weights.iter().zip(read.iter()) {
            assert_eq!(name, other);
            assert_eq!(a.to_string(), b.to_string());
        }
        let text = ModelDir::write(&path, &graph, &weights, &card, &options, Existing::Keep);
        assert!(matches!(text, Err(Error::Exists { .. })));
        ModelDir::write(&path, &graph, &weights, &card, &options, Existing::Replace).unwrap();
    }

    #[test]
    fn only_a_model_directory_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("thesis.txt"), "years of work").unwrap();
        let (graph, weights, card) = model();
        let result =
            ModelDir::write(&path, &graph, &weights, &card, &OnnxOptions::default(), Existing::Replace);
        assert!(result.unwrap_err().to_string().contains("is no model directory"));
        assert!(path.join("thesis.txt").exists());
    }

    #[test]
    fn a_label_with_a_line_break_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (graph, weights, mut card) = model();
        card.labels[1] = "two\nlines".into();
        let path = folder.path().join("model");
        let result = ModelDir::write(&path, &graph, &weights, &card, &OnnxOptions::default(), Existing::Keep);
        assert!(result.unwrap_err().to_string().contains(r#"label "two\nlines" has a line break"#));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (graph, weights, card) = model();
        for (file, damage, expected) in [
            (NETWORK, "{", "cannot be understood"),
            (ONNX, "\u{7}", "not a readable ONNX model"),
            (LABELS, "a\nb\n", "differs from what model.onnx says"),
            (PREPROCESS, "[]", "cannot be understood"),
        ] {
            let path = folder.path().join(file.replace('/', "_"));
            let options = OnnxOptions::default();
            ModelDir::write(&path, &graph, &weights, &card, &options, Existing::Keep).unwrap();
            fs::write(path.join(file), damage).unwrap();
            let text = ModelDir::open(&path).unwrap_err().to_string();
            assert!(text.starts_with(&path.join(file).display().to_string()), "{text}");
            assert!(text.contains(expected) && !text.contains('\n'), "{text}");
        }
        assert!(ModelDir::open(folder.path()).unwrap_err().to_string().contains("is no model directory"));
    }
}
