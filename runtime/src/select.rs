//! Chooses the engine and says why.
//! A named engine runs or is an error; `auto` takes the best that can load the model and tells what it passed over.

use std::fmt;

use crate::engines::ort::OrtEngine;
use crate::engines::tract::TractEngine;
use crate::engines::{Engine, EngineChoice, EngineKind, EngineOptions};
use crate::error::RuntimeError;
use crate::library::find_library;
use crate::network::ModelSource;
use crate::onnx::ModelInfo;

/// Which engine was taken, and why the better ones were not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The engine.
    pub engine: EngineKind,
    /// The library and its version.
    pub version: String,
    /// What runs the network, in words.
    pub description: String,
    /// The engines that `auto` prefers and could not take, each with its reason.
    pub passed_over: Vec<(EngineKind, String)>,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {}: {}", self.engine, self.description)?;
        for (engine, reason) in &self.passed_over {
            match engine {
                // Most machines have no CUDA: that is no news for every prediction.
                EngineKind::OrtCuda => write!(f, "; no ort-cuda (`tallow runtime info` says why)")?,
                _ => write!(f, "\n  {engine} not taken: {reason}")?,
            }
        }
        Ok(())
    }
}

pub(crate) fn open_engine(
    choice: EngineChoice,
    info: &ModelInfo,
    source: &ModelSource,
    options: &EngineOptions,
) -> Result<(Box<dyn Engine>, Selection), RuntimeError> {
    let selection = |engine: &dyn Engine, passed_over| Selection {
        engine: engine.kind(),
        version: engine.version(),
        description: engine.description(),
        passed_over,
    };
    let mut passed_over = Vec::new();
    match choice {
        EngineChoice::Named(kind) => {
            let engine = load(kind, info, source, options)?;
            let selection = selection(&*engine, passed_over);
            Ok((engine, selection))
        }
        EngineChoice::Auto => {
            for kind in EngineKind::AUTO {
                match load(kind, info, source, options) {
                    Ok(engine) => {
                        let selection = selection(&*engine, passed_over);
                        return Ok((engine, selection));
                    }
                    Err(error) => passed_over.push((kind, reason(error))),
                }
            }
            let reasons =
                passed_over.iter().map(|(kind, reason)| format!("{kind}: {reason}")).collect::<Vec<_>>();
            Err(RuntimeError::NoEngine { file: info.file.clone(), reasons: reasons.join("; ") })
        }
    }
}

fn load(
    kind: EngineKind,
    info: &ModelInfo,
    source: &ModelSource,
    options: &EngineOptions,
) -> Result<Box<dyn Engine>, RuntimeError> {
    options.check(kind)?;
    if kind == EngineKind::Tract {
        return Ok(Box::new(TractEngine::load(info, source, options)?));
    }
    let search = find_library(options.library.as_deref());
    let library = search.found.as_deref().ok_or_else(|| RuntimeError::Unavailable {
        engine: kind,
        reason: search.reason(),
        remedy: search.remedy(),
    })?;
    Ok(Box::new(OrtEngine::load(kind, library, info, source, options)?))
}

/// An error's reason without the engine and the file, which the reader knows already.
fn reason(error: RuntimeError) -> String {
    match error {
        RuntimeError::Unavailable { reason, .. } => format!("not available: {reason}"),
        RuntimeError::EngineOption { option, reason, .. } => format!("does not take {option}: {reason}"),
        RuntimeError::Engine { reason, .. } => format!("cannot load this model: {reason}"),
        other => other.to_string(),
    }
}
