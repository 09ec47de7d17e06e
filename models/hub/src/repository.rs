//! A repository of the Hugging Face hub, by way of its cache, which Python's `huggingface_hub` shares.
//! `HF_HOME` says where the cache is, `HF_ENDPOINT` where the hub is, `HF_TOKEN` who asks, `HF_HUB_DOWNLOAD_TIMEOUT` how
//! many seconds to wait, `HF_HUB_OFFLINE=1` that the cache must do.

use std::path::PathBuf;
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};

use crate::download::{Client, Failure, TIMEOUT};
use crate::error::{Error, Request, Result};
use crate::{CONFIG, WEIGHTS, intact};

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// The branch that is taken unless another revision is named.
const MAIN: &str = "main";
/// Who asks, best first.
const TOKENS: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
/// Seconds to wait for the hub, as `huggingface_hub` waits.
const PATIENCE: f64 = 10.0;

/// One revision of a repository.
pub struct Repository {
    name: String,
    repository: String,
    revision: String,
    endpoint: String,
    cache: Cache,
    cached: Repo,
    /// Whether the hub is told who asks.
    known: bool,
    /// None while offline.
    client: Option<Client>,
}

impl Repository {
    /// The repository that `name` means: `owner/name`, with `@` and a revision if not the newest.
    pub fn named(name: &str) -> Result<Self> {
        let (repository, revision) = name.split_once('@').unwrap_or((name, MAIN));
        let well_formed = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| well_formed(part)) || !well_formed(revision) {
            return Err(Error::Name { name: name.to_owned() });
        }
        Self::new(name, repository, revision)
    }

    /// The description of the weights.
    pub fn config(&self) -> Result<PathBuf> {
        self.get(CONFIG)
    }

    /// The file with the weights.
    pub fn weights(&self) -> Result<PathBuf> {
        let [best, other] = WEIGHTS;
        match self.get(best) {
            Err(Error::Missing(missing)) => self.get(other).map_err(|error| match error {
                Error::Missing(_) => {
                    Error::Missing(Box::new(Request { file: format!("{best} or {other}"), ..*missing }))
                }
                error => error,
            }),
            found => found,
        }
    }

    fn new(name: &str, repository: &str, revision: &str) -> Result<Self> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let cache = Cache::from_env();
        let cached = Repo::with_revision(repository.to_owned(), RepoType::Model, revision.to_owned());
        let token = TOKENS.iter().find_map(|name| variable(name)).or_else(|| cache.token());
        let known = token.is_some();
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| value != "0");
        let client = match offline {
            true => None,
            false => Some(Client::new(patience()?, token, cache.clone(), cached.clone())),
        };
        let (name, repository, revision) = (name.to_owned(), repository.to_owned(), revision.to_owned());
        Ok(Self { name, repository, revision, endpoint, cache, cached, known, client })
    }

    fn get(&self, file: &str) -> Result<PathBuf> {
        if let Some(path) = self.cache.repo(self.cached.clone()).get(file) {
            return match intact::problem(&path) {
                Some(problem) => {
                    let path = std::fs::canonicalize(&path).unwrap_or(path);
                    Err(Error::DamagedCache { name: self.name.clone(), path, problem })
                }
                None => Ok(path),
            };
        }
        let Some(client) = &self.client else {
            return Err(Error::Unreachable(self.request(file, "HF_HUB_OFFLINE is set".into())));
        };
        let Self { endpoint, repository, revision, .. } = self;
        let url = format!("{endpoint}/{repository}/resolve/{revision}/{file}");
        client.fetch(&url, file).map_err(|failure| self.error(file, failure))
    }

    fn error(&self, file: &str, failure: Failure) -> Error {
        let request = |problem: String| self.request(file, problem);
        match failure {
            Failure::Refused { status, reason } => {
                let problem = format!("HTTP {status}");
                match (status, reason.as_deref()) {
                    (_, Some("RevisionNotFound")) => Error::NoRevision(request(problem)),
                    (_, Some("GatedRepo")) => Error::Gated(request(problem)),
                    (401 | 403, _) | (_, Some("RepoNotFound")) => {
                        Error::NoAccess { request: request(problem), known: self.known }
                    }
                    (404, Some("EntryNotFound")) => Error::Missing(request(problem)),
                    (404, _) => Error::Missing(request(format!(
                        "{problem}; it may have no such repository or revision at all"
                    ))),
                    _ => Error::Unreachable(request(problem)),
                }
            }
            Failure::Unreachable(problem) => Error::Unreachable(request(problem)),
            Failure::Stopped(problem) => Error::Stopped(request(problem)),
            Failure::Damaged(problem) => Error::Damaged(request(problem)),
            Failure::Cache(path, source) => Error::Cache { name: self.name.clone(), path, source },
        }
    }

    fn request(&self, file: &str, problem: String) -> Box<Request> {
        Box::new(Request {
            name: self.name.clone(),
            repository: self.repository.clone(),
            revision: self.revision.clone(),
            file: file.to_owned(),
            endpoint: self.endpoint.clone(),
            cache: self.cache.path().clone(),
            problem,
        })
    }
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// How long to wait for the hub.
fn patience() -> Result<Duration> {
    let Some(value) = variable(TIMEOUT) else { return Ok(Duration::from_secs_f64(PATIENCE)) };
    let seconds = value.parse().ok().filter(|&seconds| seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or(Error::Timeout { value })
}
