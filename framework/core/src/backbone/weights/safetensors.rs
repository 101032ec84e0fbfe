//! Safetensors: a header of names, types and places, then the numbers.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, SafeTensors};

use super::{Contents, Stored};
use crate::{Error, Result};

/// Reads a whole file. The header's places are checked against the file's length before anything
/// is copied.
pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Contents> {
    let bad = |e: &dyn std::fmt::Display| {
        let known = "cilbench reads safetensors and PyTorch's .pth, .pt and .bin";
        Error::file(path, format!("not a whole safetensors file ({e}); get it anew. {known}"))
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| bad(&e))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| bad(&e))?;
    let mut contents =
        Contents { metadata: header.metadata().clone().unwrap_or_default(), ..Contents::default() };
    for (name, view) in file.tensors() {
        let shape = view.shape().to_vec();
        let stored = match plain(view.dtype()) {
            Some(dtype) => {
                Stored::Tensor(Tensor::from_raw_buffer(view.data(), dtype, &shape, &Device::Cpu)?)
            }
            None => Stored::Unusable { shape, why: unusable(&format!("{:?}", view.dtype())) },
        };
        contents.tensors.insert(name, stored);
    }
    Ok(contents)
}

/// Why a tensor of this type cannot be a weight.
pub(super) fn unusable(dtype: &str) -> String {
    format!("is of type {dtype}; weights are read as F16, BF16, F32 or F64: save it in one of them")
}

/// Types that tensors are kept in; others have no arithmetic here.
fn plain(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::U8 => DType::U8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}
