//! One task of a method: begin, epochs of batches, end. The same drive serves a run and a replay.

use candle_core::{DType, Device, Tensor};

use crate::context::{Context, Host, Images};
use crate::data::{LoadedBatch, View};
use crate::method::{Batch, Losses, Method, Plan};
use crate::scenario::TaskInfo;
use crate::{Error, Result};

/// Where a task's training batches come from.
pub trait Feed {
    /// The batches of an epoch, in order, without the first `skip`.
    fn epoch(&mut self, epoch: usize, skip: usize, batch_size: usize, view: View) -> Box<dyn Iterator<Item = Result<LoadedBatch>>>;

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
    /// The batch within the epoch, from 0.
    pub batch: usize,
    /// The step within the task, from 0.
    pub step: usize,
    /// Images in the batch.
    pub images: usize,
    /// The loss terms before the update.
    pub losses: Losses,
}

/// Where in a task's training to begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Start {
    /// The epoch, from 0.
    pub epoch: usize,
    /// Batches of that epoch that are done.
    pub batches: usize,
    /// Steps of the task that are done.
    pub steps: usize,
}

/// Training steps of a task: for each batch of each epoch one call of `observe`. `watch` sees every step, the method and the host, and may stop
/// the run by an error. Gives the number of the task's steps.
///
/// # Errors
/// [`Error::Diverged`] if a loss term is not finite; whatever the method, the feed or `watch` fail with.
#[allow(clippy::too_many_arguments)]
pub fn train_task<H: Host>(
    method: &mut dyn Method,
    task: &TaskInfo,
    plan: &Plan,
    host: &mut H,
    feed: &mut dyn Feed,
    (dtype, device): (DType, &Device),
    start: Start,
    watch: &mut dyn FnMut(Step, &dyn Method, &H) -> Result<()>,
) -> Result<usize> {
    let size = feed.image_size();
    let mut step = start.steps;
    for epoch in start.epoch..plan.epochs {
        let skip = if epoch == start.epoch { start.batches } else { 0 };
        for (index, loaded) in feed.epoch(epoch, skip, plan.batch_size, plan.view).enumerate() {
            let loaded = loaded?;
            let images = loaded.labels.len();
            let data = to_tensors(loaded, size, dtype, device)?;
            let mut ctx = Context::new(host, device, dtype);
            let losses = method.observe(&Batch { data, epoch, step }, task, &mut ctx)?;
            if let Some((term, value)) = losses.0.iter().find(|(_, v)| !v.is_finite()) {
                return Err(Error::Diverged(format!(
                    "the loss term '{term}' is {value} in task {}, epoch {}, step {}: lower the learning rate",
                    task.index + 1,
                    epoch + 1,
                    step + 1
                )));
            }
            watch(Step { task: task.index, epoch, batch: skip + index, step, images, losses }, method, host)?;
            step += 1;
        }
    }
    Ok(step)
}

/// A loaded batch as tensors.
pub(crate) fn to_tensors(loaded: LoadedBatch, size: usize, dtype: DType, device: &Device) -> Result<Images> {
    Ok(Images {
        images: Tensor::from_vec(loaded.images, (loaded.labels.len(), 3, size, size), device)?.to_dtype(dtype)?,
        labels: Tensor::new(loaded.labels.as_slice(), device)?,
        classes: loaded.labels,
        positions: loaded.positions,
    })
}
