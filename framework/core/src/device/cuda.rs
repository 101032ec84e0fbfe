//! A GPU: whether its libraries are there, opening it, its name, and the memory its tensors took.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, result, sys};
use candle_core::cuda_backend::cudarc::{cublas, cublaslt, curand};
use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// The CUDA version of the toolkit that this program was built with, as 1000·major + 10·minor; an
/// older driver cannot run its kernels.
const CUDA_VERSION: i32 = sys::CUDA_VERSION as i32;
/// The same for people: 13.0.
const fn readable(version: i32) -> (i32, i32) {
    (version / 1000, version % 1000 / 10)
}

/// The GPU with this number.
pub(super) fn open(ordinal: usize) -> Result<Device> {
    let refuse = |why: String| Error::Unsupported(format!("device cuda:{ordinal}: {why}"));
    // cudarc panics when a library is absent, so ask for each of them first.
    if let Some(missing) = missing() {
        return Err(refuse(missing));
    }
    let told = |e: DriverError| {
        refuse(format!(
            "the NVIDIA driver says {e:?}; is there a GPU that this process may use (nvidia-smi)? Or use --device cpu"
        ))
    };
    let gpus = CudaContext::device_count().map_err(told)?;
    if gpus == 0 {
        return Err(refuse("the NVIDIA driver knows no GPU (CUDA_VISIBLE_DEVICES hides them if it is set); use --device cpu".into()));
    }
    if ordinal >= gpus as usize {
        return Err(refuse(format!(
            "there is no such GPU: the driver knows {gpus}, numbered from 0"
        )));
    }
    let version = driver_version().map_err(told)?;
    if version < CUDA_VERSION {
        let ((a, b), (c, d)) = (readable(version), readable(CUDA_VERSION));
        return Err(refuse(format!(
            "the NVIDIA driver is for CUDA {a}.{b}, and this cilbench was built for CUDA {c}.{d}: update the driver, build with an older toolkit, or use --device cpu"
        )));
    }
    let device = Device::new_cuda(ordinal).map_err(|e| {
        refuse(format!("it cannot be opened: {}; use another GPU or --device cpu", first_line(&e)))
    })?;
    keep_memory(&device).map_err(told)?;
    // Kernels are loaded when first used: better one error now than one in the middle of a run.
    let kernel = || Tensor::ones(2, DType::F32, &device)?.affine(2.0, 1.0)?.to_vec1::<f32>();
    match kernel() {
        Ok(values) if values == [3.0; 2] => Ok(device),
        Ok(values) => Err(refuse(format!(
            "it computes 2·1 + 1 = {values:?}; use another GPU or --device cpu"
        ))),
        Err(e) => Err(refuse(format!(
            "it cannot run this program's kernels, built with CUDA_COMPUTE_CAP={} for GPUs of that compute capability and newer: {}; build for this GPU, or use --device cpu",
            option_env!("CUDA_COMPUTE_CAP").unwrap_or("(that of the building machine)"),
            first_line(&e)
        ))),
    }
}

/// An error of candle's without the backtrace that RUST_BACKTRACE adds to it.
fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// What to say of libraries that are not there; none if all are.
fn missing() -> Option<String> {
    let (major, minor) = readable(CUDA_VERSION);
    // SAFETY: these calls only try to open a shared library by its well-known name.
    let (driver, toolkit) = unsafe {
        (
            sys::is_culib_present(),
            [
                (format!("libcublas.so.{major}"), cublas::sys::is_culib_present()),
                (format!("libcublasLt.so.{major}"), cublaslt::sys::is_culib_present()),
                ("libcurand.so.10".to_owned(), curand::sys::is_culib_present()),
            ],
        )
    };
    let absent: Vec<String> =
        toolkit.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect();
    let mut said = Vec::new();
    if !driver {
        said.push(format!("libcuda.so.1 is not found: it comes with an NVIDIA driver, one for CUDA {major}.{minor} or newer"));
    }
    if !absent.is_empty() {
        said.push(format!(
            "{} not found: they come with the CUDA {major} toolkit and with PyTorch's wheels for it (nvidia/cu{major}/lib); put their folder into LD_LIBRARY_PATH",
            absent.join(", ")
        ));
    }
    (!said.is_empty()).then(|| format!("{}; or use --device cpu", said.join("; ")))
}

/// The newest CUDA version that the driver knows, as 1000·major + 10·minor.
fn driver_version() -> std::result::Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: the driver writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

fn context(device: &Device) -> Option<Arc<CudaContext>> {
    Some(device.as_cuda_device().ok()?.cuda_stream().context().clone())
}

/// The pool that tensors are allocated from; none if the GPU has none.
fn pool(device: &Device) -> std::result::Result<Option<sys::CUmemoryPool>, DriverError> {
    match context(device).filter(|c| c.has_async_alloc()) {
        // SAFETY: the context's own device.
        Some(context) => unsafe { result::device::get_mem_pool(context.cu_device()) }.map(Some),
        None => Ok(None),
    }
}

/// Has the pool keep what is freed for the next step, instead of giving it back whenever the GPU
/// has nothing to do.
fn keep_memory(device: &Device) -> std::result::Result<(), DriverError> {
    match pool(device)? {
        Some(pool) => {
            set(pool, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
        }
        None => Ok(()),
    }
}

fn set(
    pool: sys::CUmemoryPool,
    attribute: sys::CUmemPool_attribute,
    mut value: u64,
) -> std::result::Result<(), DriverError> {
    // SAFETY: the attributes used here are 64-bit numbers, and the pool is the device's own.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()) }
}

pub(super) fn name(device: &Device) -> Option<String> {
    context(device)?.name().ok()
}

pub(super) fn peak_memory(device: &Device) -> Option<u64> {
    let (pool, mut value) = (pool(device).ok()??, 0u64);
    // SAFETY: this attribute is a 64-bit number, and the pool is the device's own.
    unsafe {
        result::mem_pool::get_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH,
            (&raw mut value).cast(),
        )
    }
    .ok()?;
    Some(value)
}

pub(super) fn reset_peak_memory(device: &Device) {
    if let Ok(Some(pool)) = pool(device) {
        // Zero is the one value that the driver takes: "from here on".
        let _ = set(pool, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0);
    }
}
