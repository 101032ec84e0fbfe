//! Frozen features: what closed-form methods share — one pass over a task with the test transform,
//! no gradient.

use candle_core::Tensor;

use crate::backbone::{Backbone, Capability, Pass};
use crate::context::{Context, Placement};
use crate::data::View;
use crate::method::{Model, Plan, Setup};
use crate::scenario::TaskInfo;
use crate::{Error, Result};

/// Images per forward pass.
const BATCH: usize = 64;

/// A backbone that nothing changes.
pub struct FrozenFeatures {
    backbone: Box<dyn Backbone>,
    placement: Placement,
}

impl Model for FrozenFeatures {
    /// No epochs: the method makes a pass of its own when the task ends.
    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(Plan::epochs(0, BATCH, View::Test))
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        Ok(self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })?.blocks)
    }
}

impl FrozenFeatures {
    /// The features of a setup's backbone.
    pub fn new(setup: Setup) -> Self {
        Self { backbone: setup.backbone, placement: setup.placement }
    }

    /// The width of a feature.
    pub fn dim(&self) -> usize {
        self.backbone.info().dim
    }

    /// Features (batch, dim) of images.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn of(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.backbone.forward(images, Pass::default())?.cls)
    }

    /// Features (n, dim) of all the task's training images with the test transform, and their
    /// classes.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn of_task(&self, ctx: &mut Context) -> Result<(Tensor, Vec<i64>)> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            features.push(self.of(&batch.images)?);
            labels.extend(batch.host_labels);
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

    /// The run's device and floating-point type.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }
}
