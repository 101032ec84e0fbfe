//! One file from the hub into the cache: metadata first, then the body, resumed where it was cut,
//! believed when size and hash agree.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use ureq::Body;
use ureq::http::{Response, StatusCode, Uri};

use super::{Fetched, Hub, Repository, is_commit};
use crate::{Error, Result};

/// Redirects that are followed.
const HOPS: usize = 8;

/// The longest wait that the hub may ask for, in seconds, before it is said instead of waited for.
const LONGEST_WAIT: u64 = 300;

/// The hash that the hub states of a file: SHA-256 for large ones, git's blob hash for small ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    Sha256(String),
    Git(String),
}

impl Digest {
    pub(super) fn parse(etag: &str) -> Option<Self> {
        let text = etag.trim_start_matches("W/").trim_matches('"').to_lowercase();
        let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        match text.len() {
            64 if hex => Some(Self::Sha256(text)),
            40 if hex => Some(Self::Git(text)),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::Git(text) => text,
        }
    }
}

/// The digest of a file, of the same kind as `like`.
pub(super) fn digest_of(path: &Path, like: &Digest) -> Result<Digest> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    match like {
        Digest::Sha256(_) => {
            let mut hash = Sha256::new();
            std::io::copy(&mut file, &mut hash).map_err(Error::io(path))?;
            Ok(Digest::Sha256(crate::hex(&hash.finalize())))
        }
        Digest::Git(_) => {
            let mut hash = Sha1::new();
            hash.update(format!("blob {}\0", file.metadata().map_err(Error::io(path))?.len()));
            std::io::copy(&mut file, &mut hash).map_err(Error::io(path))?;
            Ok(Digest::Git(crate::hex(&hash.finalize())))
        }
    }
}

/// What the hub states of a file.
struct Stated {
    commit: String,
    digest: Digest,
    size: u64,
}

/// Why a body did not arrive.
enum Broken {
    /// Trying again may help.
    Cut(String),
    /// It does not.
    Final(Error),
}

impl Hub {
    pub(super) fn unreachable(&self, url: &str, why: &dyn std::fmt::Display) -> Error {
        Error::Protocol(format!(
            "{url} cannot be reached: {why}; check the network, or set HF_ENDPOINT to a mirror"
        ))
    }

    /// A request, repeated while the hub is busy (429) or out of order (5xx). It waits as long as
    /// the hub asks for, or a little longer each time.
    fn request(
        &self,
        head: bool,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut attempt = 0;
        loop {
            let response = self.request_once(head, url, from)?;
            let status = response.status();
            let passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            let Some(wait) = wait(&response, attempt).filter(|_| passing && attempt < self.retries)
            else {
                return Ok(response);
            };
            std::thread::sleep(wait);
            attempt += 1;
        }
    }

    /// A request; the token goes to the hub itself only, not to where it redirects to.
    fn request_once(
        &self,
        head: bool,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, ureq::Error> {
        let ours = Uri::try_from(self.endpoint.as_str()).ok().and_then(|e| e.authority().cloned());
        let theirs = Uri::try_from(url).ok().and_then(|u| u.authority().cloned());
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        // As it is stored: a compressed body has another length and hash.
        request = request.header("Accept-Encoding", "identity");
        if let Some(token) = self.token.as_ref().filter(|_| ours.is_some() && ours == theirs) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call()
    }

    /// The answer to GET, with redirects followed; an error for any status but success.
    pub(super) fn get(
        &self,
        url: &str,
        repo: &Repository,
        what: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>> {
        let mut at = url.to_owned();
        for _ in 0..HOPS {
            let response = self.request(false, &at, from).map_err(|e| self.unreachable(&at, &e))?;
            match redirected(&at, &response) {
                Some(next) => at = next,
                None => return self.successful(response, &at, repo, what),
            }
        }
        Err(Error::Protocol(format!("{url}: redirected more than {HOPS} times")))
    }

    fn successful(
        &self,
        response: Response<Body>,
        url: &str,
        repo: &Repository,
        what: &str,
    ) -> Result<Response<Body>> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let header = |name: &str| {
            response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
        };
        let (code, message, id) = (header("x-error-code"), header("x-error-message"), &repo.id);
        let page = format!("{}/{}{id}", self.endpoint, repo.prefix());
        let text = match (status, code) {
            (_, "GatedRepo") => format!(
                "{id} is gated: accept its terms at {page}, make a token at {}/settings/tokens, and set HF_TOKEN to it",
                self.endpoint
            ),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) if self.token.is_none() => {
                format!(
                    "{id}: the hub wants to know who asks (status {status}): there is no such repository, or it is private or gated. Check the name at {page}; \
                 if it asks for terms, accept them, make a token at {}/settings/tokens, and set HF_TOKEN to it",
                    self.endpoint
                )
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                format!(
                    "{id}: the token is not accepted (status {status}); check HF_TOKEN, and whether it may read {page}"
                )
            }
            (StatusCode::NOT_FOUND, "RevisionNotFound") if repo.is_short_commit() => {
                format!(
                    "{id} has no revision '{}': the hub knows commits by all 40 digits only; see {page}/commits/main",
                    repo.revision
                )
            }
            (StatusCode::NOT_FOUND, "RevisionNotFound") => {
                format!("{id} has no revision '{}'; see {page}", repo.revision)
            }
            (StatusCode::NOT_FOUND, "RepoNotFound") => {
                format!("there is no repository {id}; see {page}")
            }
            (StatusCode::NOT_FOUND, _) => {
                format!("{id} has no {what} at revision '{}'; see {page}", repo.revision)
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => format!(
                "{url}: the hub answered {status}: there were too many requests{}; try again later, or set HF_TOKEN",
                asked_to_wait(&response)
                    .map_or(String::new(), |s| format!(", and it asks to wait {s} seconds"))
            ),
            _ => format!("{url}: the hub answered {status} {message}; try again later"),
        };
        Err(Error::Protocol(text))
    }

    fn show(&self, name: &str, done: u64, size: u64) {
        if let Some(watch) = &self.watch {
            watch(name, done, size);
        }
    }

    fn url(&self, repo: &Repository, name: &str) -> String {
        format!("{}/{}{}/resolve/{}/{name}", self.endpoint, repo.prefix(), repo.id, repo.revision)
    }

    /// Asks what a file is, without its body; none if the repository has no such file.
    fn stated(&self, repo: &Repository, name: &str) -> Result<Option<Stated>> {
        let mut url = self.url(repo, name);
        let not_a_hub = |url: &str, what: &str| {
            Error::Protocol(format!(
                "{url}: what answered is no Hugging Face hub ({what}); check HF_ENDPOINT and the network's sign-in page"
            ))
        };
        for _ in 0..HOPS {
            let response =
                self.request(true, &url, None).map_err(|e| self.unreachable(&url, &e))?;
            let header = |n: &str| {
                response.headers().get(n).and_then(|v| v.to_str().ok()).map(str::to_owned)
            };
            let commit = header("x-repo-commit");
            // A redirect that states the commit is the hub's own, to where the body is; another one
            // is a repository's new name.
            if let (None, Some(next)) = (&commit, redirected(&url, &response)) {
                url = next;
                continue;
            }
            let found = match response.status() {
                status if status.is_redirection() => response,
                StatusCode::NOT_FOUND
                    if header("x-error-code").as_deref() == Some("EntryNotFound") =>
                {
                    return Ok(None);
                }
                _ => self.successful(response, &url, repo, name)?,
            };
            let header =
                |n: &str| found.headers().get(n).and_then(|v| v.to_str().ok()).map(str::to_owned);
            let commit = commit
                .filter(|c| is_commit(c))
                .ok_or_else(|| not_a_hub(&url, "it states no commit"))?;
            let etag = header("x-linked-etag").or_else(|| header("etag"));
            let digest = etag
                .as_deref()
                .and_then(Digest::parse)
                .ok_or_else(|| not_a_hub(&url, "it states no hash of the file"))?;
            let size = header("x-linked-size")
                .or_else(|| header("content-length"))
                .and_then(|s| s.parse().ok());
            let size = size.ok_or_else(|| not_a_hub(&url, "it states no size of the file"))?;
            return Ok(Some(Stated { commit, digest, size }));
        }
        Err(not_a_hub(&url, "it redirects without end"))
    }

    /// Downloads a file into the cache; none if the repository has no such file.
    pub(super) fn download(&self, repo: &Repository, name: &str) -> Result<Option<Fetched>> {
        let Some(stated) = self.stated(repo, name)? else { return Ok(None) };
        let pinned = Repository { revision: stated.commit.clone(), ..repo.clone() };
        let folder = self.cache.path().join(repo.hf().folder_name());
        let blobs = folder.join("blobs");
        std::fs::create_dir_all(&blobs).map_err(Error::io(&blobs))?;
        let blob = blobs.join(stated.digest.text());
        let part = blobs.join(format!("{}.incomplete", stated.digest.text()));
        // Two processes may want the same file. The lock's file stays: another process may be
        // waiting for it.
        let locks = self.cache.path().join(".locks").join(repo.hf().folder_name());
        std::fs::create_dir_all(&locks).map_err(Error::io(&locks))?;
        let lock_path = locks.join(format!("{}.lock", stated.digest.text()));
        let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
        lock.lock().map_err(Error::io(&lock_path))?;
        if !blob.is_file() {
            self.fetch(&pinned, name, &stated, &part)?;
            std::fs::rename(&part, &blob).map_err(Error::io(&blob))?;
        }
        let pointer = self.snapshot(repo, &stated.commit).join(name);
        point(&pointer, &blob)?;
        drop(lock);
        Ok(Some(Fetched { path: pointer, commit: stated.commit }))
    }

    /// The whole body in the file `part`, verified.
    fn fetch(&self, repo: &Repository, name: &str, stated: &Stated, part: &Path) -> Result<()> {
        let mut last = String::new();
        for attempt in 0..=self.retries {
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(200 << attempt.min(5)));
            }
            match self.body(repo, name, stated, part) {
                Ok(()) => {
                    if digest_of(part, &stated.digest)? == stated.digest {
                        // Only now it is downloaded.
                        self.show(name, stated.size, stated.size);
                        return Ok(());
                    }
                    last = "the body's hash is not the one that the hub states".into();
                    std::fs::remove_file(part).map_err(Error::io(part))?;
                }
                Err(Broken::Cut(why)) => last = why,
                Err(Broken::Final(error)) => return Err(error),
            }
        }
        let what = "what arrived is kept and the same command goes on from there, unless its hash was wrong";
        Err(Error::Protocol(format!(
            "{}: {last}, after {} attempts; {what}",
            self.url(repo, name),
            self.retries + 1
        )))
    }

    /// One attempt at the rest of the body.
    fn body(
        &self,
        repo: &Repository,
        name: &str,
        stated: &Stated,
        part: &Path,
    ) -> Result<(), Broken> {
        let io = |e: std::io::Error| Broken::Final(Error::io(part)(e));
        let have = std::fs::metadata(part).map_or(0, |m| m.len());
        let have = if have > stated.size { 0 } else { have };
        if have == stated.size && have > 0 {
            return Ok(());
        }
        let url = self.url(repo, name);
        let response =
            self.get(&url, repo, name, (have > 0).then_some(have)).map_err(
                |error| match &error {
                    Error::Protocol(text) if text.contains("cannot be reached") => {
                        Broken::Cut(text.clone())
                    }
                    _ => Broken::Final(error),
                },
            )?;
        // A server that does not know ranges begins again.
        let begin = if response.status() == StatusCode::PARTIAL_CONTENT { have } else { 0 };
        let mut file =
            File::options().create(true).write(true).truncate(false).open(part).map_err(io)?;
        file.set_len(begin).map_err(io)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(begin)).map_err(io)?;
        let mut reader = response.into_body().into_reader();
        let (mut done, mut buffer) = (begin, vec![0; 1 << 18]);
        loop {
            let n = reader.read(&mut buffer).map_err(|e| {
                Broken::Cut(format!(
                    "the connection was cut after {done} of {} bytes ({e})",
                    stated.size
                ))
            })?;
            if n == 0 {
                break;
            }
            done += n as u64;
            if done > stated.size {
                file.set_len(0).map_err(io)?;
                return Err(Broken::Cut(format!(
                    "the body is longer than the {} bytes that the hub states",
                    stated.size
                )));
            }
            file.write_all(&buffer[..n]).map_err(io)?;
            if done < stated.size {
                self.show(name, done, stated.size);
            }
        }
        file.sync_all().map_err(io)?;
        match done == stated.size {
            true => Ok(()),
            false => {
                Err(Broken::Cut(format!("the body ended after {done} of {} bytes", stated.size)))
            }
        }
    }
}

/// Where a redirect leads.
fn redirected(url: &str, response: &Response<Body>) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let to = response.headers().get("location")?.to_str().ok()?;
    if to.starts_with("http://") || to.starts_with("https://") {
        return Some(to.to_owned());
    }
    let uri = Uri::try_from(url).ok()?;
    Some(format!(
        "{}://{}{}{to}",
        uri.scheme_str()?,
        uri.authority()?,
        if to.starts_with('/') { "" } else { "/" }
    ))
}

/// The seconds that an answer asks to wait.
fn asked_to_wait(response: &Response<Body>) -> Option<u64> {
    response.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()
}

/// How long to wait before the next attempt; none if the hub asks for more than can be waited for.
fn wait(response: &Response<Body>, attempt: u32) -> Option<Duration> {
    match asked_to_wait(response) {
        Some(seconds) => (seconds <= LONGEST_WAIT).then(|| Duration::from_secs(seconds)),
        None => Some(Duration::from_millis(400 << attempt.min(6))),
    }
}

/// Makes `pointer` stand for `blob`: a relative symbolic link, as in Python's cache; a copy where
/// the system has no links. Another process may be reading it: a right one is left alone, and a new
/// one is made aside and renamed.
fn point(pointer: &Path, blob: &Path) -> Result<()> {
    let there = std::fs::canonicalize(pointer).ok();
    if there.is_some() && there == std::fs::canonicalize(blob).ok() {
        return Ok(());
    }
    let folder = pointer.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let new = aside(pointer);
    #[cfg(unix)]
    {
        // Up from the pointer's folder to the repository's, then down to the blob.
        let repository = blob.parent().and_then(Path::parent).unwrap_or(Path::new(""));
        let depth = folder.strip_prefix(repository).map_or(0, |p| p.components().count());
        let up: PathBuf = std::iter::repeat_n("..", depth).collect();
        let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
        std::os::unix::fs::symlink(target, &new).map_err(Error::io(&new))?;
    }
    #[cfg(not(unix))]
    std::fs::copy(blob, &new).map_err(Error::io(&new))?;
    std::fs::rename(&new, pointer).map_err(Error::io(pointer))
}

/// Writes a small file of the cache: aside, then renamed, and only if it is not there already.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let new = aside(path);
    std::fs::write(&new, text).map_err(Error::io(&new))?;
    std::fs::rename(&new, path).map_err(Error::io(path))
}

/// A name beside this one that no other process or thread uses.
fn aside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{process}.{count}"))
}
