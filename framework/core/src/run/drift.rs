//! Relation drift: how far the spectra of inter-layer relations move while a task is learned,
//! measured by the harness for every method.

use super::protocol::to_tensors;
use crate::Result;
use crate::context::Placement;
use crate::data::{Augment, ImageSet, Transforms, View, shuffled};
use crate::method::Player;
use crate::nn;
use crate::rng::{Purpose, stream};

/// Images on which it is measured.
const IMAGES: usize = 512;
const BATCH: usize = 64;

/// The spectra of the model as it is, on a fixed sample of up to 512 of a task's own training
/// images with the test transform. None if the method has no CLS tokens, and for the first task,
/// which has no model before it.
pub(super) fn spectra(
    player: &dyn Player,
    index: usize,
    images: &ImageSet,
    seed: u64,
    transforms: &Transforms,
    placement: &Placement,
) -> Result<Option<Vec<f64>>> {
    if index == 0 {
        return Ok(None);
    }
    let mut rng = stream(seed, Purpose::Measurement, &[&"relation-drift", &index]);
    let mut positions = shuffled(images.len(), &mut rng);
    positions.truncate(IMAGES);
    let mut all = Vec::new();
    for positions in positions.chunks(BATCH) {
        let batch = images.load(positions, transforms, View::Test, Augment::Never)?;
        let batch = to_tensors(batch, transforms.image_size, placement)?;
        let Some(tokens) = player.cls_tokens(&batch.images)? else { return Ok(None) };
        all.extend(nn::spectra(&tokens)?);
    }
    Ok(Some(all))
}

/// Mean |λ_new − λ_old|.
pub(super) fn drift(old: &[f64], new: &[f64]) -> f64 {
    old.iter().zip(new).map(|(a, b)| (a - b).abs()).sum::<f64>() / old.len().max(1) as f64
}
