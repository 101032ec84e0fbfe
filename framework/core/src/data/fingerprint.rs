//! Which pictures a run saw: a hash over the contents of its images, beside the data id, which
//! knows only their keys.
//!
//! The fingerprint is SHA-256 over the sorted pairs of sample key and content hash of a run's
//! training and test images. A content hash is SHA-256 of the decoded pixels where the key is made
//! of pixels, else of the bytes of the image's file. Hashes of files are kept with their size and
//! time, so that what did not change is hashed once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// SHA-256 of an image's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for ContentHash {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let bad = || {
            Error::usage(format!(
                "content hash '{text}': expected 64 digits from 0 to 9 and a to f"
            ))
        };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(hash))
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

/// The contents of a run's images, by sample key. Two images of one key, as data sets keyed by
/// pixels may have, are one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents(BTreeMap<String, ContentHash>);

impl Contents {
    /// Adds an image.
    pub fn add(&mut self, key: &str, hash: ContentHash) {
        self.0.insert(key.to_owned(), hash);
    }

    /// The number of different keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fingerprint: the first 16 digits of SHA-256 over the sorted pairs.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update("cilbench contents 1\n");
        for (key, content) in &self.0 {
            hash.update(key.as_bytes());
            hash.update([0]);
            hash.update(content.0);
        }
        crate::hex(&hash.finalize())[..16].to_owned()
    }

    /// How these contents differ from those of before.
    pub fn since(&self, before: &Self) -> Changes {
        let changed = |(key, hash): (&String, &ContentHash)| {
            before.0.get(key).is_some_and(|b| b != hash).then(|| key.clone())
        };
        let absent = |of: &Self, from: &Self| {
            of.0.keys().filter(|k| !from.0.contains_key(*k)).cloned().collect()
        };
        Changes {
            changed: self.0.iter().filter_map(changed).collect(),
            new: absent(self, before),
            gone: absent(before, self),
        }
    }
}

/// The sample keys whose contents differ between two runs, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those with another content.
    pub changed: Vec<String>,
    /// Those that were not there before.
    pub new: Vec<String>,
    /// Those that were there before.
    pub gone: Vec<String>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.new.is_empty() && self.gone.is_empty()
    }
}

impl fmt::Display for Changes {
    /// "3 images changed (a.png, b.png, c.png), 1 is new (d.png)", with at most five names each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |keys: &[String], one: &str, many: &str| {
            let shown = keys.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if keys.len() > 5 { ", …" } else { "" };
            let (count, verb) = (keys.len(), if keys.len() == 1 { one } else { many });
            (count > 0).then(|| format!("{count} {verb} ({shown}{more})"))
        };
        let parts = [
            part(&self.changed, "image changed", "images changed"),
            part(&self.new, "is new", "are new"),
            part(&self.gone, "is gone", "are gone"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "no image changed" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

/// What is remembered of a file: its hash, and the size and time that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970 at its last change.
    pub modified: u64,
    /// The hash of its bytes.
    pub hash: ContentHash,
}

/// The most bytes that an image's file may have: nothing larger is read into memory.
const LARGEST: u64 = 1 << 30;

/// The hashes of files that were read, by path. Threads may share it.
#[derive(Default)]
pub struct FileHashes(Mutex<HashMap<PathBuf, Seen>>);

impl FileHashes {
    /// Takes up what an earlier run remembers; what is known already stays.
    pub fn load(&self, seen: impl IntoIterator<Item = (PathBuf, Seen)>) {
        let mut known = self.known();
        for (path, seen) in seen {
            known.entry(path).or_insert(seen);
        }
    }

    /// Everything that is remembered, by path.
    pub fn saved(&self) -> BTreeMap<PathBuf, Seen> {
        self.known().iter().map(|(path, seen)| (path.clone(), *seen)).collect()
    }

    /// Reads a file, and remembers its hash unless that is known.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let (size, modified) = about(&file.metadata()?);
        if size > LARGEST {
            return Err(std::io::Error::other(format!(
                "the file has {size} bytes; an image may have {LARGEST}"
            )));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.read_to_end(&mut bytes)?;
        if self.known().get(path).is_none_or(|seen| (seen.size, seen.modified) != (size, modified))
        {
            let seen = Seen { size, modified, hash: ContentHash::of(&bytes) };
            self.known().insert(path.to_path_buf(), seen);
        }
        Ok(bytes)
    }

    /// The hash of a file, which is read only if it changed since it was last read.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn of(&self, path: &Path) -> Result<ContentHash> {
        let found = about(&std::fs::metadata(path).map_err(Error::io(path))?);
        let known = self.known().get(path).copied();
        if let Some(seen) = known.filter(|seen| (seen.size, seen.modified) == found) {
            return Ok(seen.hash);
        }
        let bytes = self.read(path).map_err(Error::io(path))?;
        Ok(self.known().get(path).map_or_else(|| ContentHash::of(&bytes), |seen| seen.hash))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Seen>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The size of a file, and the nanoseconds since 1970 at its last change.
fn about(metadata: &std::fs::Metadata) -> (u64, u64) {
    let modified =
        metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    (metadata.len(), modified.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(pairs: &[(&str, &[u8])]) -> Contents {
        let mut all = Contents::default();
        pairs.iter().for_each(|(key, bytes)| all.add(key, ContentHash::of(bytes)));
        all
    }

    #[test]
    fn it_depends_on_keys_and_contents_and_not_on_the_order() {
        let a = contents(&[("a.png", b"1"), ("b.png", b"2")]);
        assert_eq!(a.fingerprint(), contents(&[("b.png", b"2"), ("a.png", b"1")]).fingerprint());
        for other in [
            &[("a.png", &b"2"[..]), ("b.png", b"1")][..],
            &[("a.png", b"1")],
            &[("a.png", b"1"), ("c.png", b"2")],
        ] {
            assert_ne!(a.fingerprint(), contents(other).fingerprint());
        }
        // python3 -c "import hashlib as h; s = h.sha256; print(s(b'cilbench contents 1\na.png\0' +
        // s(b'1').digest() + b'b.png\0' + s(b'2').digest()).hexdigest()[:16])"
        assert_eq!(a.fingerprint(), "53860f2581ce6c11");
        let text = serde_json::to_string(&a).expect("JSON");
        assert_eq!(serde_json::from_str::<Contents>(&text).expect("back"), a);
        assert!(serde_json::from_str::<ContentHash>("\"xyz\"").is_err());
    }

    #[test]
    fn what_differs_is_named_file_by_file() {
        let before = contents(&[("a", b"1"), ("b", b"2"), ("c", b"3")]);
        let after = contents(&[("a", b"1"), ("b", b"9"), ("d", b"4")]);
        let changes = after.since(&before);
        assert_eq!(changes.to_string(), "1 image changed (b), 1 is new (d), 1 is gone (c)");
        assert!(after.since(&after).is_empty());
        let many: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        let changes = Changes { changed: many, ..Changes::default() };
        assert_eq!(changes.to_string(), "7 images changed (0, 1, 2, 3, 4, …)");
    }

    #[test]
    fn a_file_is_hashed_again_only_if_size_or_time_changed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.png");
        let time = |seconds: u64| {
            let file = std::fs::File::options().write(true).open(&path).expect("open");
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
                .expect("time");
        };
        std::fs::write(&path, b"one").expect("file");
        time(1000);
        let hashes = FileHashes::default();
        assert_eq!(hashes.of(&path).expect("hash"), ContentHash::of(b"one"));
        // Same size and time: taken for the same, which is what makes it fast.
        std::fs::write(&path, b"two").expect("file");
        time(1000);
        assert_eq!(hashes.of(&path).expect("hash"), ContentHash::of(b"one"));
        time(1001);
        assert_eq!(hashes.of(&path).expect("hash"), ContentHash::of(b"two"));
        let later = FileHashes::default();
        later.load(hashes.saved());
        assert_eq!(later.saved(), hashes.saved());
        assert!(
            later
                .of(&folder.path().join("none.png"))
                .expect_err("gone")
                .to_string()
                .contains("none.png")
        );
    }
}
