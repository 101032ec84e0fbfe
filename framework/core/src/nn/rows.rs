//! How a CustomOp on the CPU walks over contiguous rows with all threads, for f32 and f64 alike.

use candle_core::{CpuStorage, Layout, Result, bail};

/// The floating-point types of the CPU operations.
pub(super) trait Float: Copy + Send + Sync + Default + 'static {
    fn wide(self) -> f64;
    fn narrow(value: f64) -> Self;
    fn wrap(values: Vec<Self>) -> CpuStorage;
    fn slice(storage: &CpuStorage) -> Option<&[Self]>;
}

impl Float for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }
    fn narrow(value: f64) -> Self {
        value as f32
    }
    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::F32(values) = storage { Some(values) } else { None }
    }
}

impl Float for f64 {
    fn wide(self) -> f64 {
        self
    }
    fn narrow(value: f64) -> Self {
        value
    }
    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F64(values)
    }
    fn slice(storage: &CpuStorage) -> Option<&[Self]> {
        if let CpuStorage::F64(values) = storage { Some(values) } else { None }
    }
}

/// The contiguous values behind a storage and its layout.
pub(super) fn values<'a, T: Float>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some(all) = T::slice(storage) else { bail!("{op}: the inputs are not of one floating-point type") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => bail!("{op}: the input is not contiguous"),
    }
}

/// Runs `$body` with `$t` the storage's floating-point type.
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
pub(super) use by_type;
