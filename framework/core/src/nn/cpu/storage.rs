//! Access to the values of candle's CPU tensors as slices.

use candle_core::{CpuStorage, Layout, Storage, Tensor, bail};

use crate::nn::cpu::simd::Float;
use crate::{Error, Result};

/// The contiguous values behind a storage and its layout.
pub(crate) fn values<'a, T: Float>(
    op: &str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let Some(all) = T::slice(storage) else {
        bail!("{op}: the inputs are not of one floating-point type")
    };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("{op}: the input is not contiguous"),
    }
}

/// Runs `$body` with `$t` standing for the floating-point type of the storage.
macro_rules! by_type {
    ($op:expr, $storage:expr, $t:ident => $body:expr) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => {
                type $t = f32;
                $body
            }
            candle_core::CpuStorage::F64(_) => {
                type $t = f64;
                $body
            }
            _ => candle_core::bail!("{}: only f32 and f64 are implemented on the CPU", $op),
        }
    };
}
pub(crate) use by_type;

/// Calls `f` with the values of a contiguous CPU tensor of type `T`.
pub(crate) fn with_values<T: Float, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(values), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        && let Some(all) = T::slice(values)
    {
        return Ok(f(&all[start..end]));
    }
    let (dtype, device) = (tensor.dtype(), tensor.device());
    Err(Error::Protocol(format!(
        "tensors are not of one type on one device: one is {dtype:?} on {device:?}"
    )))
}
