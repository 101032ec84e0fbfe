//! Where a command computes, and with which numbers.

use cilbench::candle_core::DType;
use cilbench::context::Placement;
use cilbench::{Result, device};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Default, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Precision {
    /// 32-bit floating point
    #[default]
    F32,
    /// 64-bit floating point
    F64,
}

/// The device and the floating-point type.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
pub(crate) struct DeviceArgs {
    /// cpu, cuda or cuda:<n>
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// The floating-point type of the computation
    #[arg(long, default_value = "f32")]
    pub dtype: Precision,
}

impl DeviceArgs {
    /// Opens the device.
    pub(crate) fn placement(&self) -> Result<Placement> {
        let dtype = match self.dtype {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        };
        Ok(Placement { device: device::open(&self.device)?, dtype })
    }

    /// The name of the floating-point type: f32 or f64.
    pub(crate) fn precision(&self) -> &'static str {
        match self.dtype {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        }
    }
}
