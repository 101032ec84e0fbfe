//! Classifier alignment: after a task, all heads are retrained on features drawn from the classes'
//! Gaussians (SLCA, Zhang et al. 2023).
//!
//! 20 epochs; each draws 5·batch features of every class seen, shuffles them, and takes as many
//! steps of 5·batch as there are classes. SGD with momentum 0.9, rate 0.005, cosine with T = 5
//! stepped once an epoch for all 20, so that the rate goes down and up again.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassStatistics, Heads, Learner, Training};
use crate::context::{Carry, Context};
use crate::nn::{Features, Gaussian, LayerLoss, LayerSgd};
use crate::optim;
use crate::scenario::TaskInfo;
use crate::{Error, Result};

const RATE: f64 = 0.005;
const MOMENTUM: f64 = 0.9;
const COSINE_EPOCHS: f64 = 5.0;
const SAMPLES_PER_BATCH_IMAGE: usize = 5;

/// The loss of the alignment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlignmentLoss {
    /// Mean entropy of softmax(z) + cross-entropy of z / (‖z‖ + 1e-7) / 0.1 (SR²-LoRA).
    #[default]
    EntropyNormalised,
    /// Plain cross-entropy (LoRA-CA).
    CrossEntropy,
}

/// Classifier alignment: class statistics of every task, and all heads trained anew on features
/// that are drawn from them.
pub struct ClassifierAlignment {
    loss: AlignmentLoss,
    /// The method's batch size; a step takes 5 times as many features.
    batch_size: usize,
    /// The method's weight decay.
    weight_decay: f64,
    statistics: ClassStatistics,
}

impl ClassifierAlignment {
    /// An alignment with the method's batch size and weight decay, and no statistics yet.
    pub fn new(loss: AlignmentLoss, training: &Training) -> Self {
        let Training { batch_size, weight_decay, .. } = *training;
        Self { loss, batch_size, weight_decay, statistics: ClassStatistics::default() }
    }

    /// Declares the statistics of a task's classes.
    pub fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.statistics.settle(task, carry)
    }

    /// The task is over: fits the statistics of its classes and, from the second task on, aligns
    /// all heads.
    pub fn realign(&mut self, learner: &Learner, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (features, labels) = learner.features_of_task(task, ctx)?;
        self.fit(task, &features, &labels)?;
        if task.index == 0 { Ok(()) } else { self.align(&learner.heads, ctx) }
    }

    /// Fits the statistics of a task's classes from its features (n, dim) and labels (n).
    pub fn fit(&mut self, task: &TaskInfo, features: &Tensor, labels: &[i64]) -> Result<()> {
        self.statistics.fit(task, features, labels)
    }

    /// Epochs of an alignment.
    pub const EPOCHS: usize = 20;

    /// Features drawn of each class in an epoch.
    pub fn samples_per_class(&self) -> usize {
        SAMPLES_PER_BATCH_IMAGE * self.batch_size
    }

    /// Retrains all heads.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss stops being finite.
    pub fn align(&self, heads: &Heads, ctx: &mut Context) -> Result<()> {
        let loss = match self.loss {
            AlignmentLoss::CrossEntropy => LayerLoss::CrossEntropy,
            AlignmentLoss::EntropyNormalised => LayerLoss::EntropyNormalised,
        };
        // All heads as one layer: each of its numbers is updated as it would be in its own head.
        let (weight, bias) = heads.stacked()?;
        let mut layer = LayerSgd::new(loss, (&weight, &bias), MOMENTUM, self.weight_decay)?;
        let mut features = Features::default();
        for epoch in 0..Self::EPOCHS {
            let (labels, order) = self.samples(epoch, &mut features, ctx)?;
            let rate = optim::cosine(RATE, epoch as f64, COSINE_EPOCHS);
            let sum = layer.epoch(rate, &features, (&labels, &order), self.samples_per_class())?;
            if !sum.is_finite() {
                return Err(Error::Diverged(format!(
                    "classifier alignment, epoch {}: the losses of its steps sum to {sum}",
                    epoch + 1
                )));
            }
        }
        let (weight, bias) = layer.layer()?;
        heads.set_stacked(&weight, &bias)
    }

    /// An epoch's features, drawn or those that a replay prescribes; their labels (n), i64, and the
    /// order in which they are learned (n), i64.
    fn samples(
        &self,
        epoch: usize,
        features: &mut Features,
        ctx: &mut Context,
    ) -> Result<(Tensor, Tensor)> {
        if let (Some(given), Some(labels)) = (
            ctx.given(format!("align.samples.{epoch}"))?,
            ctx.given(format!("align.labels.{epoch}"))?,
        ) {
            *features = Features::of(given.to_dtype(ctx.dtype(), ctx.device())?);
            return Ok((
                labels.to_tensor(ctx.device())?,
                Tensor::arange(0, labels.len() as i64, ctx.device())?,
            ));
        }
        let per_class = self.samples_per_class();
        let (classes, gaussians): (Vec<_>, Vec<_>) =
            self.statistics.gaussians()?.into_iter().unzip();
        let gaussians: Vec<&Gaussian> = gaussians.iter().map(AsRef::as_ref).collect();
        let labels: Vec<i64> =
            classes.iter().flat_map(|class| std::iter::repeat_n(*class, per_class)).collect();
        features.draw(&gaussians, |i, gaussian| {
            ctx.normals(format!("align.normals.{epoch}.{i}"), [per_class, gaussian.dim()])
        })?;
        let order = ctx.permutation(format!("align.order.{epoch}"), labels.len())?;
        Ok((Tensor::new(labels, ctx.device())?, order))
    }
}
