//! What a method carries from task to task: named typed tensors, each marked with what it is.
//!
//! Parameter and byte counts, checkpoints, "only declared parameters change" and the leaderboard's
//! memory column all read this.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::array::Array;
use crate::{Error, Result};

/// What a tensor of a state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A weight that gradients change, or changed while its task was trained.
    Trained,
    /// A statistic of past data: class means, covariances, projectors.
    Statistic,
    /// The optimiser's moments and counters.
    Optimiser,
    /// Anything else that must be kept: counters, flags.
    Buffer,
}

/// One tensor of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its value.
    pub value: Array,
}

/// Named typed tensors, in the order of their names. A snapshot: later training does not change it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    entries: BTreeMap<String, Entry>,
}

impl State {
    /// An empty state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a copy of `tensor` under `name`.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the name is taken already.
    pub fn put(&mut self, name: impl Into<String>, kind: Kind, tensor: &Tensor) -> Result<()> {
        self.put_array(name, kind, Array::from_tensor(tensor)?)
    }

    /// Adds `value` under `name`.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the name is taken already.
    pub fn put_array(&mut self, name: impl Into<String>, kind: Kind, value: Array) -> Result<()> {
        let name = name.into();
        if self.entries.contains_key(&name) {
            return Err(Error::Protocol(format!("state: two tensors are named '{name}'")));
        }
        self.entries.insert(name, Entry { kind, value });
        Ok(())
    }

    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The tensor of this name in `dtype` on `device`.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names what is missing.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.array(name)?.to_dtype(dtype, device)
    }

    /// The array of this name.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names what is missing.
    pub fn array(&self, name: &str) -> Result<&Array> {
        self.get(name)
            .map(|e| &e.value)
            .ok_or_else(|| Error::Protocol(format!("state: there is no tensor '{name}'")))
    }

    /// All entries, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The number of elements of all entries of this kind.
    pub fn elements(&self, kind: Kind) -> usize {
        self.entries.values().filter(|e| e.kind == kind).map(|e| e.value.len()).sum()
    }

    /// The bytes that must be carried between tasks: everything but the optimiser's.
    pub fn carried_bytes(&self) -> usize {
        self.entries
            .values()
            .filter(|e| e.kind != Kind::Optimiser)
            .map(|e| e.value.bytes.len())
            .sum()
    }

    /// SHA-256 over names, kinds, shapes and bytes, in the order of the names.
    pub fn hash(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            hash.update(format!(
                "{name}\0{:?}\0{:?}\0{:?}\0",
                entry.kind, entry.value.element, entry.value.shape
            ));
            hash.update(&entry.value.bytes);
        }
        crate::hex(&hash.finalize())
    }
}
