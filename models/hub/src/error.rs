//! What can go wrong on the way to published weights. Every text is one line.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No network has this name.
    #[error(transparent)]
    Network(#[from] tallow_models::Error),

    /// A file without a description, and nobody says what it is.
    #[error("{}: say with --model which network the weights are of; `tallow summary` lists them", path.display())]
    NoNetwork {
        /// The file.
        path: PathBuf,
    },

    /// A folder with a description and nothing else.
    #[error("{}: has config.json, but neither model.safetensors nor pytorch_model.bin: put one there", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },

    /// The description is of another network than the one that was said.
    #[error("{}: describes {found}, not {said}: leave --model out, or name the other weights", path.display())]
    OtherNetwork {
        /// The description.
        path: PathBuf,
        /// Its network.
        found: &'static str,
        /// The other one.
        said: &'static str,
    },

    /// A description that cannot be read.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },

    /// Not the name of a repository.
    #[error("hf:{name} names no repository of the hub: it should be like hf:timm/resnet18.a1_in1k")]
    Name {
        /// What follows `hf:`.
        name: String,
    },

    /// The hub has no such repository, or no such file in it.
    #[error("hf:{name}: {endpoint} has no {file} there ({problem}): look at {endpoint}/{repository}",
        name = .0.name, endpoint = .0.endpoint, file = .0.file, problem = .0.problem, repository = .0.repository)]
    Missing(Box<Request>),

    /// The hub does not answer, and its cache has not the file.
    #[error(
        "hf:{name}: {file} is not in the cache ({}), and {endpoint} cannot be reached ({problem}): try again later, or \
         put config.json and model.safetensors from {endpoint}/{repository} into a folder and name that",
        .0.cache.display(), name = .0.name, endpoint = .0.endpoint, file = .0.file, problem = .0.problem,
        repository = .0.repository
    )]
    Unreachable(Box<Request>),
}

/// A file that was asked for, and why it did not come.
#[derive(Debug)]
pub struct Request {
    /// What follows `hf:`.
    pub name: String,
    /// The repository.
    pub repository: String,
    /// The file.
    pub file: String,
    /// The hub.
    pub endpoint: String,
    /// The folder that was looked into.
    pub cache: PathBuf,
    /// What went wrong.
    pub problem: String,
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
