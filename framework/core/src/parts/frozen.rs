//! Frozen features: what closed-form methods share — one pass over a task with the test transform, no gradient.

use candle_core::{DType, Device, Tensor};

use crate::backbone::{Backbone, Capability, Pass};
use crate::context::Context;
use crate::data::View;
use crate::method::{Plan, Setup};
use crate::scenario::TaskInfo;
use crate::state::State;
use crate::{Error, Result};

/// Images a forward pass.
const BATCH: usize = 64;

/// A backbone that nothing changes.
pub struct FrozenFeatures {
    backbone: Box<dyn Backbone>,
    device: Device,
    dtype: DType,
}

impl FrozenFeatures {
    /// The features of a setup's backbone.
    pub fn new(setup: Setup) -> Self {
        Self { backbone: setup.backbone, device: setup.device, dtype: setup.dtype }
    }

    /// No epochs: the method makes a pass of its own when the task ends.
    pub fn plan() -> Plan {
        Plan { epochs: 0, batch_size: BATCH, view: View::Test }
    }

    /// The number of classes of finished tasks; tasks that share their classes count them once.
    pub fn classes(tasks: &[TaskInfo], running: bool) -> usize {
        tasks[..tasks.len() - usize::from(running)].iter().flat_map(|t| &t.classes).max().map_or(0, |c| c + 1)
    }

    /// Features (batch, dim) of images.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn of(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.backbone.forward(images, Pass::default())?.cls)
    }

    /// The normalised CLS token after every block, if the backbone has them.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        Ok(self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })?.blocks)
    }

    /// Features (n, dim) of all the task's training images with the test transform, and their classes.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn of_task(&self, ctx: &mut Context) -> Result<(Tensor, Vec<i64>)> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            features.push(self.of(&batch.images)?);
            labels.extend(batch.classes);
            Ok(())
        })?;
        if features.is_empty() {
            return Err(Error::Protocol("a task has no training image".into()));
        }
        Ok((Tensor::cat(&features, 0)?, labels))
    }

    /// The rows of one class.
    ///
    /// # Errors
    /// [`Error::Protocol`] if the class has none.
    pub fn rows(&self, features: &Tensor, labels: &[i64], class: usize) -> Result<Tensor> {
        let rows = super::rows_of_class(features, labels, class as i64)?;
        rows.ok_or_else(|| Error::Protocol(format!("class {class} has no training image")))
    }

    /// The run's type and device.
    pub fn placement(&self) -> (DType, &Device) {
        (self.dtype, &self.device)
    }

    /// A tensor of a state, in the run's type on its device.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn tensor(&self, state: &State, name: &str) -> Result<Tensor> {
        state.tensor(name, self.dtype, &self.device)
    }

    /// A tensor in the run's type on its device.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn placed(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}
