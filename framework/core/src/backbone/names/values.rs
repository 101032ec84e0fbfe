//! What the values of weights must be: floating-point, finite in f32, and there at all.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::Result;
use crate::backbone::WeightsFile;

/// The tensor, if its type is one that weights have.
pub(super) fn floating(file: &WeightsFile, name: &str, tensor: Tensor) -> Result<Tensor> {
    if matches!(tensor.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64) {
        return Ok(tensor);
    }
    let dtype = tensor.dtype().as_str().to_uppercase();
    let what = "weights are read as F16, BF16, F32 or F64: save it in one of them";
    Err(file.error(format!("tensor '{name}' is of type {dtype}; {what}")))
}

/// An error for a value that no network computes with, and for matrices that were never written.
pub(super) fn check(file: &WeightsFile, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    for (name, tensor) in tensors {
        if tensor.dtype() == DType::F64 {
            let values = tensor.flatten_all()?.to_vec1::<f64>()?;
            let beyond = |v: &&f64| v.is_finite() && v.abs() > f64::from(f32::MAX);
            if let Some(value) = values.iter().find(beyond) {
                let what = "is beyond what f32 holds: the file is damaged, or no network's";
                return Err(
                    file.error(format!("tensor '{name}' has a value of {value:e}, which {what}"))
                );
            }
        }
        let values = tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if let Some(value) = values.iter().find(|v| !v.is_finite()) {
            let what = "the file is damaged; get it anew";
            return Err(file.error(format!("tensor '{name}' has a value that is {value}: {what}")));
        }
        // Biases may be zero; matrices and the factors of norms never are.
        if name.ends_with(".weight")
            && let Some(part) = zero_part(&values)
        {
            let what = "the file was written in part, or is damaged; get it anew";
            return Err(file.error(format!("tensor '{name}' is zero in {part}: {what}")));
        }
    }
    Ok(())
}

/// Which half of the values, or more, is zero throughout.
fn zero_part(values: &[f32]) -> Option<&'static str> {
    let zero = |v: &&f32| **v == 0.0;
    let begin = values.iter().take_while(zero).count();
    let end = values.iter().rev().take_while(zero).count();
    match (2 * begin >= values.len(), 2 * end >= values.len()) {
        _ if begin == values.len() && !values.is_empty() => Some("all its values"),
        (true, _) if !values.is_empty() => Some("its first half"),
        (_, true) if !values.is_empty() => Some("its second half"),
        _ => None,
    }
}
