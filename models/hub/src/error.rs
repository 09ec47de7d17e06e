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

    /// Nothing is where weights are said to be.
    #[error(
        "{} does not exist: name a file with weights, a folder with config.json and the weights, or hf:OWNER/NAME of the \
         hub", path.display()
    )]
    NotThere {
        /// The path.
        path: PathBuf,
    },

    /// What is made of weights, in their place.
    #[error(
        "{}: is an ONNX model, which is made for inference: give the weights that it was exported from", path.display()
    )]
    Onnx {
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

    /// How long to wait is no number.
    #[error("HF_HUB_DOWNLOAD_TIMEOUT is `{value}`: it should be seconds above 0, such as 10")]
    Timeout {
        /// What it is.
        value: String,
    },

    /// The hub has no such file in the repository, or does not say what it has not.
    #[error("hf:{name}: {endpoint} has no {file} there ({problem}): look at {endpoint}/{repository}",
        name = .0.name, endpoint = .0.endpoint, file = .0.file, problem = .0.problem, repository = .0.repository)]
    Missing(Box<Request>),

    /// The repository has no such branch, tag or commit.
    #[error(
        "hf:{name}: {repository} has no revision `{revision}` at {endpoint} ({problem}): leave out what follows the @, \
         or look at {endpoint}/{repository}/tree/main for its branches and tags",
        name = .0.name, endpoint = .0.endpoint, revision = .0.revision, problem = .0.problem,
        repository = .0.repository
    )]
    NoRevision(Box<Request>),

    /// The repository's owner wants to know who takes it.
    #[error(
        "hf:{name}: {repository} is gated ({problem}): accept its conditions at {endpoint}/{repository}, and set \
         HF_TOKEN to a token of that account ({endpoint}/settings/tokens)",
        name = .0.name, endpoint = .0.endpoint, problem = .0.problem, repository = .0.repository
    )]
    Gated(Box<Request>),

    /// The hub tells nobody without a right to it whether a repository exists.
    #[error(
        "hf:{name}: {repository} does not exist at {endpoint}, or is private or gated ({problem}): check the name, or {}",
        match known {
            true => format!("give HF_TOKEN a token that may read it; the one in use may not ({}/settings/tokens)", request.endpoint),
            false => format!("set HF_TOKEN to a token that may read it ({}/settings/tokens)", request.endpoint),
        },
        name = request.name, endpoint = request.endpoint, problem = request.problem, repository = request.repository
    )]
    NoAccess {
        /// What was asked for.
        request: Box<Request>,
        /// Whether a token was given.
        known: bool,
    },

    /// The hub does not answer, and its cache has not the file.
    #[error(
        "hf:{name}: {file} is not in the cache ({}), and {endpoint} cannot be reached ({problem}): try again later, or \
         put config.json and model.safetensors from {endpoint}/{repository} into a folder and name that",
        .0.cache.display(), name = .0.name, endpoint = .0.endpoint, file = .0.file, problem = .0.problem,
        repository = .0.repository
    )]
    Unreachable(Box<Request>),

    /// A download that did not come to its end.
    #[error("hf:{name}: {file} stopped coming from {endpoint} ({problem}): try again, which goes on from there",
        name = .0.name, endpoint = .0.endpoint, file = .0.file, problem = .0.problem)]
    Stopped(Box<Request>),

    /// A download that is not what the hub says it is.
    #[error(
        "hf:{name}: {file} came damaged from {endpoint} ({problem}) and was deleted: try again; if it comes so again, a \
         proxy or mirror on the way changes it",
        name = .0.name, endpoint = .0.endpoint, file = .0.file, problem = .0.problem
    )]
    Damaged(Box<Request>),

    /// A file of the cache that is not what was downloaded.
    #[error("hf:{name}: {} is damaged ({problem}): delete it, and it is downloaded again", path.display())]
    DamagedCache {
        /// What follows `hf:`.
        name: String,
        /// The file.
        path: PathBuf,
        /// How it shows.
        problem: String,
    },

    /// The cache cannot be written.
    #[error(
        "hf:{name}: {}: {source}: make room or change the permissions there, or set HF_HOME to another folder",
        path.display()
    )]
    Cache {
        /// What follows `hf:`.
        name: String,
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

/// A file that was asked for, and why it did not come.
#[derive(Debug)]
pub struct Request {
    /// What follows `hf:`.
    pub name: String,
    /// The repository.
    pub repository: String,
    /// Its branch, tag or commit.
    pub revision: String,
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
