//! What sequential LoRA methods do with a learner: one pair and one head per task, everything else
//! frozen.

use candle_core::{DType, Device, Tensor};

use super::{Classes, Learner, LearnerConfig, LoraConfig, Training, Want};
use crate::backbone::{Features, Pass};
use crate::context::Context;
use crate::data::View;
use crate::method::Setup;
use crate::scenario::TaskInfo;
use crate::{Error, Result};

/// Images a forward pass without gradients.
const INFERENCE_BATCH: usize = 64;

impl Learner {
    /// A learner of LoRA pairs and of the current task's head.
    ///
    /// # Errors
    /// [`Error::Usage`] for a bad hyper-parameter, [`Error::Unsupported`] for a backbone without
    /// low-rank paths.
    pub fn lora(method: &str, training: Training, lora: LoraConfig, setup: Setup) -> Result<Self> {
        Self::new(method, LearnerConfig::lora(training, lora), Classes::Current, setup)
    }

    /// Features of the model as it was before this task: the same network without its running pair.
    /// No graph.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn forward_previous(&self, images: &Tensor) -> Result<Features> {
        self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })
    }

    /// For every block, the mean over all tokens of all the task's training images of x·xᵀ, x being
    /// the attention's input: (dim, dim) in f64 on the host.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the backbone does not show its attention's inputs.
    pub fn input_covariances(&self, view: View, ctx: &mut Context) -> Result<Vec<Tensor>> {
        let info = self.backbone.info();
        let mut sums =
            vec![
                Tensor::zeros((info.dim, info.dim), DType::F64, &self.placement().device)?;
                info.blocks
            ];
        let mut tokens = 0;
        let running = self.pairs.running_detached();
        ctx.pass(view, INFERENCE_BATCH, |batch| {
            let mut tap = |block: usize, x: &Tensor| -> Result<()> {
                let rows = x.dim(0)? * x.dim(1)?;
                let x = x.reshape((rows, info.dim))?;
                let square = x.t()?.matmul(&x)?.to_dtype(DType::F64)?;
                sums[block] = (&sums[block] + square)?;
                tokens += if block == 0 { rows } else { 0 };
                Ok(())
            };
            let pass = Pass {
                low_rank: Some(&running),
                attention_inputs: Some(&mut tap),
                ..Pass::default()
            };
            self.backbone.forward(&batch.images, pass).map(drop)
        })?;
        sums.iter().map(|s| Ok((s / tokens.max(1) as f64)?.to_device(&Device::Cpu)?)).collect()
    }

    /// Features (n, dim) and labels of the task's training images with the test transform.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a task without a training image.
    pub fn features_of_task(
        &self,
        task: &TaskInfo,
        ctx: &mut Context,
    ) -> Result<(Tensor, Vec<i64>)> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, INFERENCE_BATCH, |batch| {
            features.push(self.infer(&batch.images, Want::Features)?.cls.detach());
            labels.extend(batch.host_labels);
            Ok(())
        })?;
        if features.is_empty() {
            return Err(Error::Protocol(format!("task {} has no training image", task.index + 1)));
        }
        Ok((Tensor::cat(&features, 0)?, labels))
    }
}
