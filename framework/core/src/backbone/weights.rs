//! Weights files: safetensors with timm's tensor names. Every tensor is accounted for.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The tensors and the metadata of a weights file.
pub struct WeightsFile {
    path: PathBuf,
    /// SHA-256 of the whole file.
    pub hash: String,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

impl WeightsFile {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// Names the file if it cannot be read, is not safetensors, or is truncated.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        Self::parse(path, &bytes)
    }

    /// Reads safetensors from memory; `path` is used in messages.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let bad = |e: &dyn std::fmt::Display| {
            Error::file(
                path,
                format!("not a whole safetensors file ({e}); cilbench reads timm-named .safetensors only, never pickled .bin or .pth"),
            )
        };
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes).map_err(|e| bad(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| bad(&e))?;
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        let file = Self { path: path.to_path_buf(), hash: crate::hex(&Sha256::digest(bytes)), metadata, tensors };
        // Found here, or much later as a loss that is none.
        let plain = [DType::F16, DType::BF16, DType::F32, DType::F64];
        for (name, tensor) in file.tensors.iter().filter(|(_, t)| plain.contains(&t.dtype())) {
            let values = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            if let Some(value) = values.iter().find(|v| !v.is_finite()) {
                return Err(file.error(format!("tensor '{name}' has a value that is {value}: the file is damaged; get it anew")));
            }
        }
        Ok(file)
    }

    /// Tensors that are in memory already; `name` stands for the file in messages, `hash` identifies them.
    pub fn from_tensors(name: &str, hash: String, metadata: HashMap<String, String>, tensors: BTreeMap<String, Tensor>) -> Self {
        Self { path: name.into(), hash, metadata, tensors }
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
        let parse = |text: &str| text.trim().parse().map_err(|_| self.error(format!("metadata {key} = '{text}' cannot be understood")));
        self.metadata(key).map(parse).transpose()
    }

    /// A metadata value of three numbers separated by commas.
    ///
    /// # Errors
    /// Names file, key and value if it is something else.
    pub fn triple(&self, key: &str) -> Result<Option<[f64; 3]>> {
        let Some(text) = self.metadata(key) else { return Ok(None) };
        let values: Option<Vec<f64>> = text.split(',').map(|v| v.trim().parse().ok()).collect();
        let triple = values.and_then(|v| <[f64; 3]>::try_from(v).ok());
        triple.map(Some).ok_or_else(|| self.error(format!("metadata {key} = '{text}': expected three numbers, as in 0.5,0.5,0.5")))
    }

    /// The shape of a tensor, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::dims)
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// An error that names this file.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::file(&self.path, what)
    }

    /// Checks that the file holds exactly `expected` (name and shape), but for names that `ignored` accepts.
    ///
    /// # Errors
    /// One message that lists every missing, extra and mis-shaped tensor.
    pub fn check(&self, expected: &[(String, Vec<usize>)], ignored: impl Fn(&str) -> bool) -> Result<()> {
        let mut problems = Vec::new();
        for (name, shape) in expected {
            match self.shape(name) {
                None => problems.push(format!("missing: {name} {shape:?}")),
                Some(found) if found != shape => problems.push(format!("wrong shape: {name} is {found:?}, expected {shape:?}")),
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        for name in self.names().filter(|n| !known.contains(n) && !ignored(n)) {
            problems.push(format!("unknown: {name} {:?}", self.shape(name).unwrap_or_default()));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(self.error(format!("these tensors do not fit a plain ViT with timm names:\n  {}", problems.join("\n  "))))
    }

    /// A tensor in `dtype` on `device`.
    ///
    /// # Errors
    /// Names file and tensor if it is missing.
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.error(format!("missing: {name}")))?;
        Ok(tensor.to_dtype(dtype)?.to_device(device)?)
    }
}
