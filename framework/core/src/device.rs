//! `--device cpu|cuda[:n]`: the device that was asked for, or an error. Never another one.

#[cfg(feature = "cuda")]
mod cuda;

use candle_core::Device;

use crate::{Error, Result};

/// Opens the device named `cpu`, `cuda` or `cuda:<n>`, and has a GPU compute something.
///
/// # Errors
/// [`Error::Usage`] for another name; [`Error::Unsupported`] where this build or this machine
/// cannot give that device: it names the libraries that are missing.
pub fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal = match name.strip_prefix("cuda") {
        Some("") => 0,
        Some(rest) => rest
            .strip_prefix(':')
            .and_then(|n| n.parse::<u16>().ok())
            .ok_or_else(|| bad_name(name))?
            .into(),
        None => return Err(bad_name(name)),
    };
    open_cuda(ordinal)
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
    Error::usage(format!(
        "unknown device '{name}': use cpu, cuda, or cuda:<n> with the number of the GPU"
    ))
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(ordinal: usize) -> Result<Device> {
    Err(Error::Unsupported(format!(
        "device cuda:{ordinal}: this cilbench was built without CUDA; build it with `--features cuda` as README.md says, or use --device cpu"
    )))
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<Device> {
    cuda::open(ordinal)
}

/// The name of a GPU; none for the CPU.
pub fn gpu_name(device: &Device) -> Option<String> {
    #[cfg(feature = "cuda")]
    return cuda::name(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// The most memory that tensors held at one time on a GPU, in bytes, since it was opened or
/// [`reset_peak_memory`]; without the driver's own and the libraries'. None for the CPU, and where
/// the driver does not count.
pub fn peak_memory(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    return cuda::peak_memory(device);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = device;
        None
    }
}

/// Counts [`peak_memory`] anew from here on.
pub fn reset_peak_memory(device: &Device) {
    #[cfg(feature = "cuda")]
    cuda::reset_peak_memory(device);
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(open("cpu").is_ok());
        for bad in ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:65536", "cuda0", ""] {
            let text = open(bad).expect_err("must be refused").to_string();
            assert!(text.contains("unknown device"), "{bad}: {text}");
        }
    }

    #[test]
    fn the_cpu_has_no_memory_of_its_own() {
        reset_peak_memory(&Device::Cpu);
        assert_eq!((gpu_name(&Device::Cpu), peak_memory(&Device::Cpu)), (None, None));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_without_the_feature_is_an_error() {
        assert!(
            open("cuda:1").expect_err("no cuda here").to_string().contains("built without CUDA")
        );
    }
}
