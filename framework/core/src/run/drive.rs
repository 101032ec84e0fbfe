//! One task of a method: begin, epochs of batches, end. The same drive serves a run and a replay.

use candle_core::{DType, Device, Tensor};

use crate::context::{Context, Host, Images};
use crate::data::{LoadedBatch, View};
use crate::method::{Batch, Losses, Method, Plan};
use crate::scenario::TaskInfo;
use crate::{Error, Result};

/// Where a task's training batches come from.
pub trait Feed {
    /// The batches of an epoch, in order.
    fn epoch(&mut self, epoch: usize, batch_size: usize, view: View) -> Box<dyn Iterator<Item = Result<LoadedBatch>>>;

    /// The side of the images, in pixels.
    fn image_size(&self) -> usize;
}

/// A finished training step, for whoever watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The task, from 0.
    pub task: usize,
    /// The epoch, from 0.
    pub epoch: usize,
    /// The step within the task, from 0.
    pub step: usize,
    /// Images in the batch.
    pub images: usize,
    /// The loss terms before the update.
    pub losses: Losses,
}

/// Training steps of a task: for each batch of each epoch one call of `observe`. `watch` sees every step and may stop the run by an error.
///
/// # Errors
/// [`Error::Diverged`] if a loss term is not finite; whatever the method, the feed or `watch` fail with.
#[allow(clippy::too_many_arguments)]
pub fn train_task(
    method: &mut dyn Method,
    task: &TaskInfo,
    plan: &Plan,
    host: &mut dyn Host,
    feed: &mut dyn Feed,
    (dtype, device): (DType, &Device),
    watch: &mut dyn FnMut(Step) -> Result<()>,
) -> Result<usize> {
    let size = feed.image_size();
    let mut step = 0;
    for epoch in 0..plan.epochs {
        for loaded in feed.epoch(epoch, plan.batch_size, plan.view) {
            let loaded = loaded?;
            let images = loaded.labels.len();
            let data = to_tensors(loaded, size, dtype, device)?;
            let mut ctx = Context::new(host, device, dtype);
            let losses = method.observe(&Batch { data, epoch, step }, task, &mut ctx)?;
            if let Some((term, value)) = losses.0.iter().find(|(_, v)| !v.is_finite()) {
                return Err(Error::Diverged(format!(
                    "the loss term '{term}' is {value} in task {}, epoch {epoch}, step {step}: lower the learning rate",
                    task.index
                )));
            }
            watch(Step { task: task.index, epoch, step, images, losses })?;
            step += 1;
        }
    }
    Ok(step)
}

/// A loaded batch as tensors.
pub(super) fn to_tensors(loaded: LoadedBatch, size: usize, dtype: DType, device: &Device) -> Result<Images> {
    Ok(Images {
        images: Tensor::from_vec(loaded.images, (loaded.labels.len(), 3, size, size), device)?.to_dtype(dtype)?,
        labels: Tensor::new(loaded.labels.as_slice(), device)?,
        classes: loaded.labels,
        positions: loaded.positions,
    })
}
