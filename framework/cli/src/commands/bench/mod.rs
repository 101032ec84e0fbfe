//! `cilbench bench`: measures speed on this machine, beside that of large matrix products.

mod data;
mod made_up;
mod products;
mod step;
mod task_end;

use std::time::Instant;

use cilbench::backbone::{BackboneInfo, BackboneOptions, Vit, WeightsFile};
use cilbench::candle_core::{DType, Device, Tensor};
use cilbench::context::Placement;
use cilbench::results::Machine;
use cilbench::{Error, Result, device};
use clap::Subcommand;

use super::Execute;
use crate::args::{GlobalArgs, NetworkArgs};
use crate::output::gigabytes;

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Images per second of reading, decoding and transforming
    Data(data::BenchData),
    /// Images per second of a training step and of prediction, and peak memory
    Step(step::BenchStep),
    /// The speed of each kind of matrix product beside that of a large one, on one thread
    Products(products::BenchProducts),
    /// Seconds of the work between tasks: class statistics, classifier alignment, InfLoRA's
    /// covariances and bases, scoring
    TaskEnd(task_end::BenchTaskEnd),
}

impl Execute for BenchCommand {
    fn execute(&self, global: &GlobalArgs) -> Result<()> {
        match self {
            Self::Data(data) => data.execute(global),
            Self::Step(step) => step.execute(global),
            Self::Products(products) => products.execute(global),
            Self::TaskEnd(task_end) => task_end.execute(global),
        }
    }
}

/// Refuses the first flag whose value is 0.
fn require_positive(flags: &[(&str, usize)]) -> Result<()> {
    match flags.iter().find(|(_, value)| *value == 0) {
        Some((flag, _)) => Err(Error::usage(format!("{flag} 0: at least 1"))),
        None => Ok(()),
    }
}

/// The processor, or the GPU with the peak memory of its tensors.
fn describe_processor(device: &Device) -> String {
    match device::gpu_name(device) {
        Some(gpu) => {
            format!("{gpu}, its tensors at their peak {}", gigabytes(device::peak_memory(device)))
        }
        None => Machine::here().processor,
    }
}

/// The network that the options name.
fn network(args: &NetworkArgs, placement: &Placement) -> Result<Vit> {
    let file = match &args.weights {
        Some(path) => WeightsFile::read(path)?,
        None => made_up::weights(args.size, args.image_size)?,
    };
    let options =
        BackboneOptions { image_size: Some(args.image_size), ..BackboneOptions::default() };
    Vit::new("vit", &file, &options, placement.dtype, &placement.device)
}

/// Floating-point operations of a forward pass of one image. The last block computes queries,
/// projection and MLP for the CLS token alone.
fn forward_flops(info: &BackboneInfo) -> f64 {
    let (d, n, blocks) =
        (info.dim as f64, ((info.image_size / info.patch).pow(2) + 1) as f64, info.blocks as f64);
    let patches = (n - 1.0) * d * 3.0 * (info.patch as f64).powi(2);
    let block = 12.0 * d * d * n + 2.0 * n * n * d;
    let last = 2.0 * d * d * n + 10.0 * d * d + 2.0 * n * d;
    2.0 * (patches + (blocks - 1.0) * block + last)
}

/// Operations per second of a large product, the best of six: 1576×768×3072, or 4096×4096×4096 on a
/// GPU, which needs no time for the smaller one.
fn product_speed(dtype: DType, device: &Device) -> Result<f64> {
    let (m, k, n) = if device.is_cpu() { (1576, 768, 3072) } else { (4096, 4096, 4096) };
    let (a, b) = (Tensor::ones((m, k), dtype, device)?, Tensor::ones((k, n), dtype, device)?);
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        device.synchronize()?;
        let began = Instant::now();
        a.matmul(&b)?;
        device.synchronize()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(2.0 * (m * k * n) as f64 / best)
}
