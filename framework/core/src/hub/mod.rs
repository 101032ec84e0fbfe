//! Files of the Hugging Face hub: hf-hub's repository names and cache layout (shared with Python's
//! `huggingface_hub`), with a download of our own that believes no file before its size and hash
//! are those that the hub states.
//!
//! What is in the cache is used without asking the hub again, so a revision that was downloaded
//! once stays the one that is used.

mod transfer;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;

use crate::{Error, Result};
use transfer::{Digest, digest_of};

/// Shows the progress of a download: the file, the bytes that are there, and all of them.
pub type Watch = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// Access to the hub and to the cache of what was downloaded.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    cache: Cache,
    token: Option<String>,
    /// Why nothing may be downloaded, if so.
    offline: Option<String>,
    agent: ureq::Agent,
    watch: Option<Watch>,
    retries: u32,
}

/// A repository of the hub at a revision.
#[derive(Debug, Clone)]
pub struct Repository {
    id: String,
    revision: String,
    dataset: bool,
}

impl Repository {
    /// A model repository, `timm/vit_base_patch16_224.augreg_in21k`, at a revision after an `@`, by
    /// default `main`.
    pub fn model(text: &str) -> Self {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        Self { id: id.into(), revision: revision.into(), dataset: false }
    }

    /// A data set repository, `uoft-cs/cifar100`, at a revision after an `@`, by default `main`.
    pub fn dataset(text: &str) -> Self {
        Self { dataset: true, ..Self::model(text) }
    }

    fn hf(&self) -> Repo {
        let kind = if self.dataset { RepoType::Dataset } else { RepoType::Model };
        Repo::with_revision(self.id.clone(), kind, self.revision.clone())
    }

    /// Whether the revision looks like the first digits of a commit.
    fn is_short_commit(&self) -> bool {
        (7..40).contains(&self.revision.len())
            && self.revision.bytes().all(|b| b.is_ascii_hexdigit())
    }

    /// `datasets/` before data sets.
    fn prefix(&self) -> &'static str {
        if self.dataset { "datasets/" } else { "" }
    }
}

/// A file in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// The commit it belongs to.
    pub commit: String,
}

impl Hub {
    /// A hub at this address with its cache in this folder.
    pub fn new(endpoint: &str, cache: PathBuf) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("cilbench/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: Cache::new(cache),
            token: None,
            offline: None,
            agent: config.new_agent(),
            watch: None,
            retries: 5,
        }
    }

    /// The hub that the environment names: `HF_ENDPOINT`, `HF_HUB_CACHE` or `HF_HOME`, `HF_TOKEN`
    /// or the token that `huggingface-cli login` stored, `HF_HUB_OFFLINE`. Without a home folder
    /// there is no cache, and nothing can be downloaded.
    pub fn from_env() -> Self {
        let of = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let home = of("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| of("HOME").map(|h| Path::new(&h).join(".cache/huggingface")));
        let cache =
            of("HF_HUB_CACHE").map(PathBuf::from).or_else(|| home.as_ref().map(|h| h.join("hub")));
        let homeless = cache
            .is_none()
            .then(|| "the lack of HOME and HF_HOME (set HF_HOME to a folder)".to_owned());
        let mut hub = Self::new(
            &of("HF_ENDPOINT").unwrap_or("https://huggingface.co".into()),
            cache.unwrap_or_default(),
        );
        hub.token = of("HF_TOKEN")
            .or_else(|| std::fs::read_to_string(home?.join("token")).ok())
            .map(|t| t.trim().to_owned());
        let no = |v: &String| ["0", "false", "no", "off"].contains(&v.to_lowercase().as_str());
        hub.offline = of("HF_HUB_OFFLINE")
            .filter(|v| !no(v))
            .map(|v| format!("--offline or HF_HUB_OFFLINE={v}"))
            .or(homeless);
        hub
    }

    /// The same, showing progress.
    pub fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// The same, with this token.
    pub fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The same, trying so many times again after a cut connection.
    pub fn with_retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// The same, never downloading; `why` is what the user said.
    pub fn offline(self, why: &str) -> Self {
        Self { offline: Some(why.to_owned()), ..self }
    }

    /// The commit that a revision stands for, as far as the cache knows.
    fn cached_commit(&self, repo: &Repository) -> Option<String> {
        if is_commit(&repo.revision) {
            return Some(repo.revision.clone());
        }
        let folder = self.cache.path().join(repo.hf().folder_name());
        let file = folder.join("refs").join(&repo.revision);
        let commit = std::fs::read_to_string(file).ok().map(|c| c.trim().to_owned());
        commit.filter(|c| is_commit(c)).or_else(|| {
            // A commit by its first digits, if just one that begins so is here.
            let entries = std::fs::read_dir(folder.join("snapshots"))
                .ok()
                .filter(|_| repo.is_short_commit())?;
            let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            let mut found = names.filter(|n| is_commit(n) && n.starts_with(&repo.revision));
            found.next().filter(|_| found.next().is_none())
        })
    }

    fn snapshot(&self, repo: &Repository, commit: &str) -> PathBuf {
        self.cache.repo(repo.hf()).pointer_path(commit)
    }

    /// A file of the cache, whole: its hash is that of the blob it points to.
    fn cached(&self, repo: &Repository, commit: &str, name: &str) -> Result<Option<Fetched>> {
        let path = self.snapshot(repo, commit).join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let blob = std::fs::canonicalize(&path).map_err(Error::io(&path))?;
        let stated = blob.file_name().and_then(|n| n.to_str()).and_then(Digest::parse);
        if let Some(stated) = stated {
            let found = digest_of(&blob, &stated)?;
            if found != stated {
                return Err(Error::file(
                    &blob,
                    "the downloaded file was changed or damaged since; delete it and give the command again",
                ));
            }
        }
        Ok(Some(Fetched { path, commit: commit.to_owned() }))
    }

    fn require_online(&self, repo: &Repository, what: &str) -> Result<()> {
        match &self.offline {
            None => Ok(()),
            Some(why) => Err(Error::usage(format!(
                "{} of {} is not in the cache {} and {why} forbids to download it",
                what,
                repo.id,
                self.cache.path().display()
            ))),
        }
    }

    /// A file of a repository: from the cache, or downloaded into it.
    ///
    /// # Errors
    /// Says whether the hub cannot be reached, the repository or file is not there or is gated, or
    /// what was sent is not what the hub states.
    pub fn file(&self, repo: &Repository, name: &str) -> Result<Fetched> {
        self.first_file(repo, &[name])?.ok_or_else(|| self.lacks(repo, name))
    }

    /// The first of these files that a repository has, if it has one: from the cache, or downloaded
    /// into it.
    ///
    /// # Errors
    /// As [`Hub::file`].
    pub fn first_file(&self, repo: &Repository, names: &[&str]) -> Result<Option<Fetched>> {
        let commit = self.cached_commit(repo);
        for name in names {
            if let Some(commit) = &commit
                && let Some(found) = self.cached(repo, commit, name)?
            {
                return Ok(Some(found));
            }
        }
        self.require_online(repo, names.first().unwrap_or(&"a file"))?;
        // Of a revision that was downloaded in part, the rest comes from the same commit.
        let pinned =
            Repository { revision: commit.unwrap_or(repo.revision.clone()), ..repo.clone() };
        for name in names {
            if let Some(found) = self.download(&pinned, name)? {
                self.remember(repo, &found.commit)?;
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A file that a repository may have; none also if nothing may be downloaded and it is not
    /// here.
    ///
    /// # Errors
    /// As [`Hub::file`].
    pub fn optional_file(&self, repo: &Repository, name: &str) -> Result<Option<Fetched>> {
        match (&self.offline, self.cached_commit(repo)) {
            (None, _) => self.first_file(repo, &[name]),
            (Some(_), Some(commit)) => self.cached(repo, &commit, name),
            (Some(_), None) => Ok(None),
        }
    }

    /// An error for a file that a repository does not have.
    pub(crate) fn lacks(&self, repo: &Repository, what: &str) -> Error {
        let page = format!("{}/{}{}", self.endpoint, repo.prefix(), repo.id);
        Error::Protocol(format!(
            "{} has no {what} at revision '{}'; see {page}",
            repo.id, repo.revision
        ))
    }

    /// Writes down which commit a revision stands for.
    fn remember(&self, repo: &Repository, commit: &str) -> Result<()> {
        if commit == repo.revision {
            return Ok(());
        }
        let folder = self.cache.path().join(repo.hf().folder_name());
        transfer::write(&folder.join("refs").join(&repo.revision), commit)
    }

    /// Those files of a repository whose names begin and end like this. Gives the folder they lie
    /// in and the commit.
    ///
    /// # Errors
    /// As [`Hub::file`].
    pub fn files(&self, repo: &Repository, (begin, end): (&str, &str)) -> Result<Fetched> {
        let wanted = |name: &String| name.starts_with(begin) && name.ends_with(end);
        // The list of a whole download is kept beside the cache's references, so that it can be
        // used without the network.
        let kept = |commit: &str| {
            self.cache.path().join(repo.hf().folder_name()).join(format!("cilbench-{commit}.json"))
        };
        let cached = self
            .cached_commit(repo)
            .and_then(|c| Some((std::fs::read_to_string(kept(&c)).ok()?, c)));
        let listed = cached.and_then(|(text, commit)| {
            Some((serde_json::from_str::<Vec<String>>(&text).ok()?, commit))
        });
        let (names, commit) = match listed {
            Some(listed) => listed,
            None => {
                self.require_online(repo, &format!("{begin}*{end}"))?;
                let listing = self.list(repo)?;
                (listing.siblings.into_iter().map(|s| s.rfilename).collect(), listing.sha)
            }
        };
        let wanted: Vec<&String> = names.iter().filter(|n| wanted(n)).collect();
        if wanted.is_empty() {
            return Err(Error::Protocol(format!(
                "{} at {}: there is no file {begin}*{end}",
                repo.id, self.endpoint
            )));
        }
        let pinned = Repository { revision: commit.clone(), ..repo.clone() };
        for name in &wanted {
            self.file(&pinned, name)?;
        }
        let file = kept(&commit);
        transfer::write(&file, &serde_json::json!(names).to_string())?;
        self.remember(repo, &commit)?;
        Ok(Fetched { path: self.snapshot(repo, &commit), commit })
    }

    fn list(&self, repo: &Repository) -> Result<Listing> {
        let kind = if repo.dataset { "datasets" } else { "models" };
        let url = format!("{}/api/{kind}/{}/revision/{}", self.endpoint, repo.id, repo.revision);
        let response = self.get(&url, repo, "its list of files", None)?;
        let mut text = String::new();
        response
            .into_body()
            .into_reader()
            .take(64 << 20)
            .read_to_string(&mut text)
            .map_err(|e| self.unreachable(&url, &e))?;
        let listing: Listing = serde_json::from_str(&text).map_err(|e| {
            Error::Protocol(format!("{url}: what answered is no Hugging Face hub ({e}); check HF_ENDPOINT and the network's sign-in page"))
        })?;
        match is_commit(&listing.sha) {
            true => Ok(listing),
            false => Err(Error::Protocol(format!("{url}: '{}' is no commit", listing.sha))),
        }
    }
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
