//! Classifier alignment: after a task, all heads are retrained on features drawn from the classes' Gaussians (SLCA, Zhang et al. 2023).
//!
//! 20 epochs; each draws 5·batch features of every class seen, shuffles them, and takes as many steps of 5·batch as there are classes. SGD
//! with momentum 0.9, rate 0.005, cosine with T = 5 stepped once an epoch for all 20, so that the rate goes down and up again.

use candle_core::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClassStatistics, Heads};
use crate::context::{Context, Law};
use crate::nn::{self, Optimiser, Sgd};
use crate::{Error, Result};

const EPOCHS: usize = 20;
const RATE: f64 = 0.005;
const MOMENTUM: f64 = 0.9;
const COSINE_EPOCHS: f64 = 5.0;
const SAMPLES_PER_BATCH_IMAGE: usize = 5;
const TEMPERATURE: f64 = 0.1;

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
    /// Retrains all heads.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss stops being finite.
    pub fn run(&self, heads: &Heads, statistics: &ClassStatistics, ctx: &mut Context) -> Result<()> {
        let per_class = SAMPLES_PER_BATCH_IMAGE * self.batch_size;
        let mut optimiser = Sgd::new(heads.vars().into_iter().map(|(n, v)| (n, v, 1.0)).collect(), RATE, MOMENTUM, self.weight_decay)?;
        for epoch in 0..EPOCHS {
            optimiser.set_learning_rate(nn::cosine(RATE, epoch as f64, COSINE_EPOCHS));
            let (samples, labels) = self.samples(epoch, per_class, statistics, ctx)?;
            let total = samples.dim(0)?;
            // Summed where they are and read once: on a GPU, reading each would cost more than its step.
            let mut sum = Tensor::zeros((), samples.dtype(), samples.device())?;
            for start in (0..total).step_by(per_class) {
                let len = per_class.min(total - start);
                let logits = heads.all(&samples.narrow(0, start, len)?)?;
                let labels = labels.narrow(0, start, len)?;
                let loss = match self.loss {
                    AlignmentLoss::CrossEntropy => nn::cross_entropy(&logits, &labels)?,
                    AlignmentLoss::EntropyNormalised => (nn::mean_entropy(&logits)? + nn::cross_entropy(&normalised(&logits)?, &labels)?)?,
                };
                sum = (sum + loss.detach())?;
                optimiser.step(&loss.backward()?)?;
            }
            let sum = sum.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if !sum.is_finite() {
                return Err(Error::Diverged(format!("classifier alignment, epoch {epoch}: the losses of its steps sum to {sum}")));
            }
        }
        Ok(())
    }

    /// An epoch's features (classes · per_class, dim) in random order, and their labels.
    fn samples(&self, epoch: usize, per_class: usize, statistics: &ClassStatistics, ctx: &mut Context) -> Result<(Tensor, Tensor)> {
        if let (Some(samples), Some(labels)) = (ctx.given(format!("align.samples.{epoch}"))?, ctx.given(format!("align.labels.{epoch}"))?) {
            return Ok((samples.to_dtype(ctx.dtype(), ctx.device())?, labels.to_tensor(ctx.device())?));
        }
        let (mut samples, mut labels) = (Vec::new(), Vec::new());
        for (i, (class, gaussian)) in statistics.gaussians().enumerate() {
            let normals = ctx.draw(format!("align.normals.{epoch}.{i}"), &[per_class, gaussian.dim()], Law::Normal)?;
            samples.push(gaussian.sample(&normals)?);
            labels.extend(std::iter::repeat_n(class, per_class));
        }
        let order = ctx.permutation(format!("align.order.{epoch}"), labels.len())?;
        let labels = Tensor::new(labels, ctx.device())?;
        Ok((Tensor::cat(&samples, 0)?.index_select(&order, 0)?, labels.index_select(&order, 0)?))
    }
}

/// z / (‖z‖ + 1e-7) / 0.1, row by row, for logits (batch, classes).
///
/// # Errors
/// If the tensor operation fails.
pub fn normalised(logits: &Tensor) -> Result<Tensor> {
    let norm = (logits.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-7)?;
    Ok((logits.broadcast_div(&norm)? / TEMPERATURE)?)
}
