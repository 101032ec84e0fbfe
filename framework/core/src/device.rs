//! `--device cpu|cuda[:n]`: the device that was asked for, or an error. Never another one.

use candle_core::Device;

use crate::{Error, Result};

/// Opens the device named `cpu`, `cuda` or `cuda:<n>`.
///
/// # Errors
/// [`Error::Usage`] for another name; [`Error::Unsupported`] where this build or this machine cannot give that device.
pub fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal = match name.strip_prefix("cuda") {
        Some("") => 0,
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse::<usize>().ok()).ok_or_else(|| bad_name(name))?,
        None => return Err(bad_name(name)),
    };
    cuda(ordinal)
}

/// The name that [`open`] opens this device by.
pub fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
    }
}

fn bad_name(name: &str) -> Error {
    Error::usage(format!("unknown device '{name}': use cpu, cuda, or cuda:<n> with the number of the GPU"))
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: usize) -> Result<Device> {
    Err(Error::Unsupported(format!("device cuda:{ordinal}: this cilbench was built without CUDA; build it with `--features cuda`")))
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    // cudarc panics when a library is absent, so ask for each of them first.
    use candle_core::cuda_backend::cudarc;
    // SAFETY: these calls only try to open a shared library by its well-known name.
    let present = unsafe {
        [
            ("libcuda (the NVIDIA driver)", cudarc::driver::sys::is_culib_present()),
            ("libcublas", cudarc::cublas::sys::is_culib_present()),
            ("libcublasLt", cudarc::cublaslt::sys::is_culib_present()),
            ("libcurand", cudarc::curand::sys::is_culib_present()),
        ]
    };
    let missing: Vec<&str> = present.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Err(Error::Unsupported(format!("device cuda:{ordinal}: {} not found; install it or use --device cpu", missing.join(", "))));
    }
    Device::new_cuda(ordinal).map_err(|e| Error::Unsupported(format!("device cuda:{ordinal}: {e}; use --device cpu or another number")))
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn names_are_checked() {
        assert!(open("cpu").is_ok());
        for bad in ["gpu", "cuda:", "cuda:x", "cuda0", ""] {
            let text = open(bad).expect_err("must be refused").to_string();
            assert!(text.contains("unknown device"), "{bad}: {text}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_the_feature_is_an_error() {
        assert!(open("cuda:1").expect_err("no cuda here").to_string().contains("built without CUDA"));
    }
}
