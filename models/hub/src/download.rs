//! One file from the hub into its cache: asked for, fetched or gone on with where an earlier try stopped, and checked.
//! hf-hub's own client has no timeouts and keeps the hub's reasons to itself; of it, only the cache's layout is used.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{Cache, Repo};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use crate::intact;
use crate::progress::Progress;

/// The variable with the seconds to wait for the hub.
pub const TIMEOUT: &str = "HF_HUB_DOWNLOAD_TIMEOUT";
/// Redirections until the hub says where a file is: repositories are renamed.
const REDIRECTIONS: usize = 5;
/// Bytes between two looks at the clock and the progress bar.
const PIECE: usize = 1 << 17;

/// Asks the hub, for one repository.
pub struct Client {
    agent: Agent,
    timeout: Duration,
    token: Option<String>,
    cache: Cache,
    repository: Repo,
}

/// Why a file did not come.
#[derive(Debug)]
pub enum Failure {
    /// The hub answered, and will not give it.
    Refused {
        /// HTTP's status.
        status: u16,
        /// What the hub calls the reason (`X-Error-Code`), such as `GatedRepo`.
        reason: Option<String>,
    },
    /// There is no answer that can be used.
    Unreachable(String),
    /// It began to come and stopped.
    Stopped(String),
    /// It is not what the hub says it is, and is deleted.
    Damaged(String),
    /// It cannot be written.
    Cache(PathBuf, std::io::Error),
}

/// What the hub says of a file before it gives it.
struct Description {
    commit: String,
    /// Its name in the cache: of a large file its SHA-256.
    etag: String,
    size: Option<u64>,
}

impl Client {
    /// Takes `timeout` for each wait: for a connection, for an answer, for more of it.
    pub fn new(timeout: Duration, token: Option<String>, cache: Cache, repository: Repo) -> Self {
        let wait = Some(timeout);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(wait)
            .timeout_connect(wait)
            .timeout_send_request(wait)
            .timeout_recv_response(wait)
            .timeout_per_read(wait)
            // A compressed answer's length is not the file's.
            .accept_encoding("identity")
            .user_agent(concat!("tallow/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: agent.into(), timeout, token, cache, repository }
    }

    /// Brings `file` from `url` into the cache and gives its place there.
    ///
    /// # Errors
    /// As [`Failure`] has them; what came of a download that stopped is kept and gone on with.
    pub fn fetch(&self, url: &str, file: &str) -> Result<PathBuf, Failure> {
        let description = self.describe(url)?;
        let repository = self.cache.repo(self.repository.clone());
        let blob = repository.blob_path(&description.etag);
        let snapshot = repository.pointer_path(&description.commit);
        let on_disk = |path: &Path| {
            let path = path.to_owned();
            move |error| Failure::Cache(path, error)
        };
        for folder in [blob.parent(), Some(snapshot.as_path())].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(on_disk(folder))?;
        }
        // Another process may want the same file at the same time; the second finds what the first has brought.
        let beside = |ending: &str| blob.with_file_name(format!("{}.{ending}", description.etag));
        let lock = beside("lock");
        let held = File::create(&lock).and_then(|file| file.lock().map(|()| file)).map_err(on_disk(&lock))?;
        if !(blob.is_file() && intact::is_known(&blob) && intact::problem(&blob).is_none()) {
            let part = beside("part");
            self.download(url, file, &description, &part)?;
            if let Some(problem) = intact::differs(&part, &description.etag) {
                fs::remove_file(&part).map_err(on_disk(&part))?;
                return Err(Failure::Damaged(problem));
            }
            fs::rename(&part, &blob).map_err(on_disk(&blob))?;
        }
        drop(held);
        let place = snapshot.join(file);
        point(&place, &blob, &description.etag).map_err(on_disk(&place))?;
        repository.create_ref(&description.commit).map_err(on_disk(&snapshot))?;
        Ok(place)
    }

    /// Asks what `url` is, as far as to where the hub keeps its bytes.
    fn describe(&self, url: &str) -> Result<Description, Failure> {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTIONS {
            let request = self.agent.head(&url).config().max_redirects(0).build();
            let response = self.call(self.authorised(request))?;
            refused(&response)?;
            let headers = response.headers();
            let elsewhere = header(headers, "location").filter(|_| response.status().is_redirection());
            match elsewhere {
                // Within the hub: the token goes nowhere else.
                Some(path) if path.starts_with('/') && !path.starts_with("//") => {
                    let host = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
                    url = format!("{}{path}", &url[..host]);
                }
                _ => return description(&response),
            }
        }
        Err(Failure::Unreachable("it redirects for ever".into()))
    }

    /// Appends to `part` what of the file is not there yet.
    fn download(&self, url: &str, file: &str, description: &Description, part: &Path) -> Result<(), Failure> {
        let on_disk = |error| Failure::Cache(part.to_owned(), error);
        let had = fs::metadata(part).map_or(0, |metadata| metadata.len());
        let had = had * u64::from(description.size.is_some_and(|size| had <= size));
        if had > 0 && description.size == Some(had) {
            return Ok(());
        }
        let mut request = self.authorised(self.agent.get(url));
        if had > 0 {
            request = request.header("range", format!("bytes={had}-"));
        }
        let mut response = self.call(request)?;
        refused(&response)?;
        let goes_on = response.status().as_u16() == 206;
        let mut target = OpenOptions::new().create(true).append(true).open(part).map_err(on_disk)?;
        let mut length = if goes_on { had } else { 0 };
        target.set_len(length).map_err(on_disk)?;
        let mut progress = Progress::start(&self.repository.url(), file, description.size, length);
        let mut body = response.body_mut().as_reader();
        let mut piece = vec![0; PIECE];
        loop {
            let read = body.read(&mut piece).map_err(|error| Failure::Stopped(self.said(&error.into())))?;
            if read == 0 {
                break;
            }
            target.write_all(&piece[..read]).map_err(on_disk)?;
            length += read as u64;
            progress.advance(read);
        }
        progress.finish();
        match description.size {
            Some(size) if length != size => Err(Failure::Stopped(format!("{length} of {size} bytes came"))),
            _ => target.sync_all().map_err(on_disk),
        }
    }

    fn authorised(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn call(&self, request: RequestBuilder<WithoutBody>) -> Result<Response<Body>, Failure> {
        request.call().map_err(|error| Failure::Unreachable(self.said(&error)))
    }

    /// What went wrong, and how long was waited where that was it.
    fn said(&self, error: &ureq::Error) -> String {
        let timed_out = match error {
            ureq::Error::Timeout(_) => true,
            ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::TimedOut,
            _ => false,
        };
        match timed_out {
            true => format!(
                "it said nothing for {} s; {TIMEOUT} sets how long to wait",
                self.timeout.as_secs_f64()
            ),
            false => error.to_string(),
        }
    }
}

/// The hub's refusal, if the answer is one.
fn refused(response: &Response<Body>) -> Result<(), Failure> {
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    let reason = header(response.headers(), "x-error-code").map(str::to_owned);
    Err(Failure::Refused { status: status.as_u16(), reason })
}

fn description(response: &Response<Body>) -> Result<Description, Failure> {
    let headers = response.headers();
    let unusable = |name: &str| {
        Failure::Unreachable(format!("its answer has no usable {name}, as the Hugging Face hub's have"))
    };
    // Both become names of files.
    let name = |text: &str| {
        let text = text.trim_start_matches("W/").trim_matches('"');
        let well_formed = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        well_formed.then(|| text.to_owned())
    };
    let commit = header(headers, "x-repo-commit").and_then(name).ok_or_else(|| unusable("commit"))?;
    let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
    let etag = etag.and_then(name).ok_or_else(|| unusable("ETag"))?;
    // A redirection's own length is that of the page that says so.
    let own = header(headers, "content-length").filter(|_| response.status().is_success());
    let size = header(headers, "x-linked-size").or(own).and_then(|size| size.parse().ok());
    Ok(Description { commit, etag, size })
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Makes `place` in a snapshot stand for the blob, which lies two folders up.
fn point(place: &Path, blob: &Path, etag: &str) -> std::io::Result<()> {
    if fs::canonicalize(place).is_ok_and(|at| fs::canonicalize(blob).is_ok_and(|blob| at == blob)) {
        return Ok(());
    }
    match fs::remove_file(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    return std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), place);
    // Elsewhere links may need rights that few have.
    #[cfg(not(unix))]
    return fs::rename(blob, place);
}
