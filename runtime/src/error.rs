//! Why a model could not be opened, an engine not be had, or an input not be run.
//! Every text is one line: what is wrong, in which file, and the remedy where there is one.

use std::path::PathBuf;

use tallow_input::OutputKind;

use crate::engines::EngineKind;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A model file could not be read.
    #[error("{}: cannot read the model: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is no ONNX model, or none that can be served here.
    #[error("{file}: {reason}")]
    Model {
        /// The model's file, or `model data` for bytes from memory.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image or a metadata entry could not be used.
    #[error(transparent)]
    Input(#[from] tallow_input::InputError),
    /// A metadata entry of a model could not be used.
    #[error("{file}: {source}")]
    Card {
        /// The model's file.
        file: String,
        /// The entry and what is wrong with it.
        source: tallow_input::InputError,
    },
    /// The caller says another thing of the model's output than the model does.
    #[error("{file}: its metadata says that it ends in {}, not in {}: leave that out", words(.known), words(.said))]
    Output {
        /// The model's file.
        file: String,
        /// What the caller says.
        said: OutputKind,
        /// What the file says.
        known: OutputKind,
    },
    /// A tensor does not have the shape the network takes.
    #[error("{file}: the input `{input}` takes {expected}, not {actual}")]
    Shape {
        /// The model's file.
        file: String,
        /// The network's input.
        input: String,
        /// The shape it takes, free axes by name.
        expected: String,
        /// The shape it was given.
        actual: String,
    },
    /// An engine that was asked for by name cannot be used on this machine.
    #[error("the engine {engine} is not available: {reason}; {remedy}")]
    Unavailable {
        /// The engine.
        engine: EngineKind,
        /// What is missing.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// An engine is there, and refused this model or this run.
    #[error("{file}: the engine {engine} cannot {action} it: {reason}")]
    Engine {
        /// The engine.
        engine: EngineKind,
        /// The model's file.
        file: String,
        /// `load` or `run`.
        action: &'static str,
        /// The engine's reason, on one line.
        reason: String,
    },
    /// With `auto`, no engine could load the model.
    #[error("{file}: no engine can load it: {reasons}")]
    NoEngine {
        /// The model's file.
        file: String,
        /// Each engine with its reason.
        reasons: String,
    },
    /// An engine's name is not one of those that exist.
    #[error("unknown engine `{name}`: choose auto, ort-cuda, ort-tensorrt, ort or tract")]
    UnknownEngine {
        /// The name that was given.
        name: String,
    },
    /// An option's value is not one of those that exist.
    #[error("unknown {what} `{value}`: choose one of {choices}")]
    UnknownValue {
        /// The option, in words.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// The values that exist.
        choices: String,
    },
    /// An option that does not go with the engine.
    #[error("the engine {engine} does not take the option {option}: {reason}")]
    EngineOption {
        /// The engine.
        engine: EngineKind,
        /// The option, called as the command line's flag is.
        option: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
    /// Which provider takes a model's nodes could not be found out.
    #[error("{file}: which provider takes which node is not known: {reason}")]
    Placement {
        /// The model's file.
        file: String,
        /// The reason.
        reason: String,
    },
    /// ONNX Runtime's library could not be installed.
    #[error("cannot install ONNX Runtime: {reason}; {remedy}")]
    Install {
        /// The step that failed and why.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

fn words(kind: &OutputKind) -> &'static str {
    match kind {
        OutputKind::Logits => "logits",
        OutputKind::Probabilities => "probabilities",
    }
}

/// A message of another library on one line.
pub(crate) fn one_line(message: impl std::fmt::Display) -> String {
    message.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
