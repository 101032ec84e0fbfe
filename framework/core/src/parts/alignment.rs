//! Classifier alignment: after a task, all heads are retrained on features drawn from the classes' Gaussians (SLCA, Zhang et al. 2023).
//!
//! 20 epochs; each draws 5·batch features of every class seen, shuffles them, and takes as many steps of 5·batch as there are classes. SGD
//! with momentum 0.9, rate 0.005, cosine with T = 5 stepped once an epoch for all 20, so that the rate goes down and up again.

use candle_core::{DType, Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassStatistics, Heads};
use crate::context::{Context, Law};
use crate::nn::{self, Optimiser, Sgd};
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

/// Classifier alignment with the method's batch size and weight decay.
#[derive(Debug, Clone, Copy)]
pub struct Alignment {
    /// Which loss.
    pub loss: AlignmentLoss,
    /// The method's batch size; a step takes 5 times as many features.
    pub batch_size: usize,
    /// The method's weight decay.
    pub weight_decay: f64,
}

impl Alignment {
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
    pub fn run(&self, heads: &Heads, statistics: &ClassStatistics, ctx: &mut Context) -> Result<()> {
        let per_class = self.samples_per_class();
        // All heads as one layer: each of its numbers is updated as it would be in its own head.
        let (weight, bias) = heads.stacked()?;
        let (weight, bias) = (Var::from_tensor(&weight.detach())?, Var::from_tensor(&bias.detach())?);
        let vars = [("weight", &weight), ("bias", &bias)].map(|(name, var)| (name.to_owned(), var.clone(), 1.0));
        let mut optimiser = Sgd::new(vars.into(), RATE, MOMENTUM, self.weight_decay)?;
        for epoch in 0..Self::EPOCHS {
            optimiser.set_learning_rate(nn::cosine(RATE, epoch as f64, COSINE_EPOCHS));
            let Samples { features, labels, order } = self.samples(epoch, per_class, statistics, ctx)?;
            let total = order.dim(0)?;
            // Summed where they are and read once: on a GPU, reading each would cost more than its step.
            let mut sum = Tensor::zeros((), features.dtype(), features.device())?;
            for start in (0..total).step_by(per_class) {
                let rows = order.narrow(0, start, per_class.min(total - start))?;
                let logits = nn::linear(&features.index_select(&rows, 0)?, &weight, &bias)?;
                let labels = labels.index_select(&rows, 0)?;
                let loss = match self.loss {
                    AlignmentLoss::CrossEntropy => nn::cross_entropy(&logits, &labels)?,
                    AlignmentLoss::EntropyNormalised => {
                        (nn::mean_entropy(&logits)? + nn::cross_entropy(&nn::normalised(&logits)?, &labels)?)?
                    }
                };
                sum = (sum + loss.detach())?;
                optimiser.step(&loss.backward()?)?;
            }
            let sum = sum.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if !sum.is_finite() {
                return Err(Error::Diverged(format!("classifier alignment, epoch {epoch}: the losses of its steps sum to {sum}")));
            }
        }
        heads.set_stacked(&weight, &bias)
    }

    /// An epoch's features: drawn, or those that a replay prescribes.
    fn samples(&self, epoch: usize, per_class: usize, statistics: &ClassStatistics, ctx: &mut Context) -> Result<Samples> {
        if let (Some(features), Some(labels)) = (ctx.given(format!("align.samples.{epoch}"))?, ctx.given(format!("align.labels.{epoch}"))?)
        {
            let features = features.to_dtype(ctx.dtype(), ctx.device())?;
            let order = Tensor::arange(0, labels.len() as i64, ctx.device())?;
            return Ok(Samples { features, labels: labels.to_tensor(ctx.device())?, order });
        }
        let (classes, gaussians): (Vec<_>, Vec<_>) = statistics.gaussians().unzip();
        let labels: Vec<i64> = classes.iter().flat_map(|class| std::iter::repeat_n(*class, per_class)).collect();
        let features = nn::sample_each(&gaussians, |i, gaussian| {
            ctx.draw(format!("align.normals.{epoch}.{i}"), &[per_class, gaussian.dim()], Law::Normal)
        })?;
        let order = ctx.permutation(format!("align.order.{epoch}"), labels.len())?;
        Ok(Samples { features, labels: Tensor::new(labels, ctx.device())?, order })
    }
}

/// An epoch's features.
struct Samples {
    /// (n, dim).
    features: Tensor,
    /// (n), i64.
    labels: Tensor,
    /// (n), i64: the order in which they are learned.
    order: Tensor,
}
