//! A repository of the Hugging Face hub, by way of its cache, which Python's `huggingface_hub` shares.
//! `HF_HOME` says where the cache is, `HF_ENDPOINT` where the hub is, `HF_HUB_OFFLINE=1` that the cache must do.

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::error::{Error, Request, Result};
use crate::{CONFIG, WEIGHTS};

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// The branch that is taken unless another revision is named.
const MAIN: &str = "main";

/// One revision of a repository.
pub struct Repository {
    name: String,
    repository: String,
    endpoint: String,
    cache: Cache,
    cached: Repo,
    /// None while offline.
    api: Option<ApiRepo>,
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
            Err(missing @ Error::Missing(_)) => self.get(other).map_err(|_| missing),
            found => found,
        }
    }

    fn new(name: &str, repository: &str, revision: &str) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let cache = Cache::from_env();
        let cached = Repo::with_revision(repository.to_owned(), RepoType::Model, revision.to_owned());
        let (name, repository) = (name.to_owned(), repository.to_owned());
        let mut found = Self { name, repository, endpoint, cache, cached, api: None };
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| value != "0");
        if !offline {
            let api = ApiBuilder::from_cache(found.cache.clone()).with_endpoint(found.endpoint.clone());
            let api = api.with_progress(std::io::IsTerminal::is_terminal(&std::io::stderr())).build();
            let api = api.map_err(|error| found.unreachable(CONFIG, error.to_string()))?;
            found.api = Some(api.repo(found.cached.clone()));
        }
        Ok(found)
    }

    fn get(&self, file: &str) -> Result<PathBuf> {
        if let Some(path) = self.cache.repo(self.cached.clone()).get(file) {
            return Ok(path);
        }
        let Some(api) = &self.api else {
            return Err(self.unreachable(file, "HF_HUB_OFFLINE is set".into()));
        };
        api.download(file).map_err(|error| match status(&error) {
            Some(code @ (401 | 403 | 404)) => Error::Missing(self.request(file, format!("HTTP {code}"))),
            _ => self.unreachable(file, error.to_string()),
        })
    }

    fn unreachable(&self, file: &str, problem: String) -> Error {
        Error::Unreachable(self.request(file, problem))
    }

    fn request(&self, file: &str, problem: String) -> Box<Request> {
        Box::new(Request {
            name: self.name.clone(),
            repository: self.repository.clone(),
            file: file.to_owned(),
            endpoint: self.endpoint.clone(),
            cache: self.cache.path().clone(),
            problem,
        })
    }
}

/// The status with which the hub refused, if it answered at all.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}
