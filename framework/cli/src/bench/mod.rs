//! `cilbench bench step`, `products` and `task-end`: speed on made-up images and numbers beside that of large matrix products.

mod made_up;
mod products;
mod step;
mod task_end;

use std::path::Path;
use std::time::Instant;

use cilbench::Result;
use cilbench::backbone::{BackboneInfo, BackboneOptions, Vit, WeightsFile};
use cilbench::candle_core::{DType, Device, Tensor};

use crate::args::Size;

pub(crate) use products::products;
pub(crate) use step::step;
pub(crate) use task_end::task_end;

/// The network of these weights, or one of this size with random weights.
fn vit(size: Size, weights: Option<&Path>, image_size: usize, (dtype, device): (DType, &Device)) -> Result<Vit> {
    let file = match weights {
        Some(path) => WeightsFile::read(path)?,
        None => made_up::weights(size, image_size)?,
    };
    Vit::new("vit", &file, &BackboneOptions { image_size: Some(image_size), ..BackboneOptions::default() }, dtype, device)
}

/// Floating-point operations of a forward pass of one image, with the last block's queries, projection and MLP for the CLS token alone.
fn forward_flops(info: &BackboneInfo) -> f64 {
    let (d, n, blocks) = (info.dim as f64, ((info.image_size / info.patch).pow(2) + 1) as f64, info.blocks as f64);
    let patches = (n - 1.0) * d * 3.0 * (info.patch as f64).powi(2);
    let block = 12.0 * d * d * n + 2.0 * n * n * d;
    let last = 2.0 * d * d * n + 10.0 * d * d + 2.0 * n * d;
    2.0 * (patches + (blocks - 1.0) * block + last)
}

/// Operations a second of a large product (1576×768×3072; on a GPU, which does that in no time, 4096×4096×4096), the best of six.
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

/// Bytes for people.
fn gigabytes(bytes: Option<u64>) -> String {
    bytes.map_or("not known".to_owned(), |b| format!("{:.2} GB", b as f64 / 1e9))
}
