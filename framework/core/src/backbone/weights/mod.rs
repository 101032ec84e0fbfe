//! Weights files: what is in them, by name, in every form that people have them in.
//!
//! [`WeightsFile`] holds tensors under the names that the file gives them. What these names mean is
//! decided in [`super::names`]; a tensor is judged (its type, its values) only when it is used.

mod format;
mod safetensors;
mod shards;
#[cfg(test)]
mod test;
mod torch;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use crate::{Error, Result};
pub(super) use shards::names as shards_of;

/// Larger files are refused before memory is taken for them.
const MAX_BYTES: u64 = 64 << 30;

/// A tensor of a weights file.
#[derive(Clone)]
pub(super) enum Stored {
    /// Its values.
    Tensor(Tensor),
    /// Its shape, and why it cannot be a weight. It only matters if the tensor is used.
    Unusable { shape: Vec<usize>, why: String },
}

impl Stored {
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Unusable { shape, .. } => shape,
        }
    }
}

/// What a file of one of the formats holds.
#[derive(Default)]
struct Contents {
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Stored>,
    /// What was passed over while reading, such as an optimiser's state.
    notes: Vec<String>,
}

/// The tensors and the metadata of a weights file.
pub struct WeightsFile {
    path: PathBuf,
    /// SHA-256 of the whole file; of shards, over the hashes of all files by name.
    pub hash: String,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Stored>,
    notes: Vec<String>,
}

impl WeightsFile {
    /// Reads a file: safetensors, a PyTorch checkpoint (`.pth`, `.pt`, `.bin`; nothing in it is
    /// executed), or the index of either's shards.
    ///
    /// # Errors
    /// Names the file, and says what it is if it is none of these.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_bytes(path)?;
        if let Some(index) = shards::index(&bytes) {
            return shards::read(path, &bytes, &index);
        }
        shards::refuse_lone_shard(path)?;
        Self::parse(path, &bytes)
    }

    /// Reads a file's contents from memory; `path` is used in messages.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let Contents { metadata, tensors, notes } = format::read(path, bytes)?;
        let hash = crate::hex(&Sha256::digest(bytes));
        Ok(Self { path: path.to_path_buf(), hash, metadata, tensors, notes })
    }

    /// Tensors that are in memory already; `name` stands for the file in messages, `hash`
    /// identifies them.
    pub fn from_tensors(
        name: &str,
        hash: String,
        metadata: HashMap<String, String>,
        tensors: BTreeMap<String, Tensor>,
    ) -> Self {
        let tensors = tensors.into_iter().map(|(name, t)| (name, Stored::Tensor(t))).collect();
        Self { path: name.into(), hash, metadata, tensors, notes: Vec::new() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata value of the file.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// A metadata value, parsed.
    ///
    /// # Errors
    /// Names file, key and value if it cannot be parsed.
    pub fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        let bad =
            |text: &str| self.error(format!("metadata {key} = '{text}' cannot be understood"));
        self.metadata(key).map(|text| text.trim().parse().map_err(|_| bad(text))).transpose()
    }

    /// A metadata value of three numbers separated by commas.
    ///
    /// # Errors
    /// Names file, key and value if it is something else.
    pub fn triple(&self, key: &str) -> Result<Option<[f64; 3]>> {
        let Some(text) = self.metadata(key) else { return Ok(None) };
        let values: Option<Vec<f64>> = text.split(',').map(|v| v.trim().parse().ok()).collect();
        let triple = values.and_then(|v| <[f64; 3]>::try_from(v).ok());
        let expected = "expected three numbers, as in 0.5,0.5,0.5";
        triple.map(Some).ok_or_else(|| self.error(format!("metadata {key} = '{text}': {expected}")))
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Stored::shape)
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// An error that names this file.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::file(&self.path, what)
    }

    /// A tensor in `dtype` on `device`, whatever type it has in the file.
    ///
    /// # Errors
    /// Names file and tensor if it is missing or cannot be read.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some(Stored::Tensor(tensor)) => Ok(tensor.to_dtype(dtype)?.to_device(device)?),
            Some(Stored::Unusable { why, .. }) => Err(self.error(format!("tensor '{name}' {why}"))),
            None => Err(self.error(format!("missing: {name}"))),
        }
    }

    /// All tensors by name.
    pub(super) fn stored(&self) -> &BTreeMap<String, Stored> {
        &self.tensors
    }

    /// What was passed over while reading.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The bytes of a regular file of a size that can be a network's.
fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let about = std::fs::metadata(path).map_err(Error::io(path))?;
    if about.is_dir() {
        let what = "this is a folder; name the weights file in it, or the index of its shards";
        return Err(Error::file(path, what));
    }
    if !about.is_file() {
        let what = "this is a pipe or a device, and weights are read more than once: \
                    write them to a file first";
        return Err(Error::file(path, what));
    }
    if about.len() > MAX_BYTES {
        let (have, most) = (about.len() >> 30, MAX_BYTES >> 30);
        let what = format!("it has {have} GiB; weights files are read up to {most} GiB");
        return Err(Error::file(path, what));
    }
    std::fs::read(path).map_err(Error::io(path))
}
