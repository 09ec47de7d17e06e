//! A server of the tests' own that answers as the Hugging Face hub does: `/<owner>/<name>/resolve/<revision>/<file>`,
//! ranges, the headers that name commit and content, large files elsewhere and called by their SHA-256.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub const REPOSITORY: &str = "timm/tf_efficientnet_lite0.in1k";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(60);

/// What the hub has and how it misbehaves.
#[derive(Clone, Default)]
pub struct Content {
    /// The repository's files. Those of weights are large: they lie elsewhere.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Who may ask, if not everybody.
    pub token: Option<&'static str>,
    /// What everything else is refused with: a status and perhaps a reason.
    pub refusal: Option<(u16, &'static str)>,
    /// Bytes after which an answer from the start of a file breaks off.
    pub breaks_off: Option<usize>,
    /// Bytes after which such an answer says nothing more, but does not end.
    pub stalls: Option<usize>,
    /// Large files come with one bit turned.
    pub damages: bool,
    /// A path with this in it is never answered.
    pub hangs: Option<&'static str>,
}

/// A hub that is running.
pub struct Hub {
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Hub {
    pub fn serve(content: Content) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(vec![]));
        let hub = Self { address: address.clone(), requests: requests.clone() };
        let content = Arc::new(content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (content, address, requests) = (content.clone(), address.clone(), requests.clone());
                // A client that goes away is no concern of the server's.
                std::thread::spawn(move || drop(answer(stream, &content, &address, &requests)));
            }
        });
        hub
    }

    /// What was asked for so far, and from which byte.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(reader: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut parts = line.split(' ').map(str::to_owned);
    let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    Ok(Some(Request { method, path, headers }))
}

fn answer(
    mut stream: TcpStream,
    content: &Content,
    address: &str,
    requests: &Mutex<Vec<String>>,
) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(Request { method, path, headers }) = read(&mut reader)? {
        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let first: usize = range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0);
        requests.lock().unwrap().push(format!("{method} {path} {first}"));
        if content.hangs.is_some_and(|part| path.contains(part)) {
            std::thread::sleep(FOR_EVER);
            return Ok(());
        }
        let may = content.token.is_none_or(|token| {
            headers.get("authorization").is_some_and(|given| given == &format!("Bearer {token}"))
        });
        let file = path.strip_prefix(&format!("/{REPOSITORY}/resolve/main/"));
        let elsewhere = path.strip_prefix("/elsewhere/");
        let found = file.or(elsewhere).and_then(|file| Some((file, content.files.get(file)?)));
        let (file, bytes) = match found {
            Some(found) if may => found,
            _ => {
                let (status, reason) = content.refusal.unwrap_or((if may { 404 } else { 401 }, ""));
                let reason =
                    if reason.is_empty() { String::new() } else { format!("x-error-code: {reason}\r\n") };
                write!(stream, "HTTP/1.1 {status} No\r\n{reason}content-length: 0\r\n\r\n")?;
                continue;
            }
        };
        let large = !file.ends_with(".json");
        let etag = if large { sha256(bytes) } else { format!("{file}-1") };
        let common = format!("x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{etag}\"\r\n");
        if large && elsewhere.is_none() {
            let size = bytes.len();
            write!(
                stream,
                "HTTP/1.1 302 Found\r\n{common}x-linked-size: {size}\r\nlocation: {address}/elsewhere/{file}\r\n\
                 content-length: 0\r\n\r\n"
            )?;
            continue;
        }
        let mut part = bytes[first..].to_vec();
        let status = if first > 0 { "206 Partial Content" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\n{common}content-length: {}\r\n\r\n", part.len())?;
        if method == "HEAD" {
            continue;
        }
        if content.damages && large {
            let last = part.len() - 1;
            part[last] ^= 1;
        }
        if let Some(length) = content.breaks_off.filter(|_| large && first == 0) {
            return stream.write_all(&part[..length]);
        }
        if let Some(length) = content.stalls.filter(|_| large && first == 0) {
            stream.write_all(&part[..length])?;
            std::thread::sleep(FOR_EVER);
            return Ok(());
        }
        stream.write_all(&part)?;
    }
    Ok(())
}
