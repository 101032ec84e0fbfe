//! Sequential LoRA: one pair and one head a task, everything else frozen. What SR²-LoRA, LoRA, LoRA-CA and InfLoRA have in common.

use candle_core::{DType, Device, Tensor};

use super::{ClassStatistics, Heads, LoraConfig, Pairs, Training};
use crate::backbone::{Backbone, Capability, Features, Pass};
use crate::context::Context;
use crate::data::View;
use crate::method::{Exported, Setup};
use crate::nn::Optimiser;
use crate::scenario::TaskInfo;
use crate::state::{Kind, State};
use crate::{Error, Result};

/// Images a forward pass without gradients.
const INFERENCE_BATCH: usize = 64;

/// A frozen backbone with one running LoRA pair, the heads, and the optimiser of both.
pub struct SequentialLora {
    /// The frozen backbone; finished pairs are part of its weights.
    pub backbone: Box<dyn Backbone>,
    /// The pairs of all tasks.
    pub pairs: Pairs,
    /// The heads of all tasks.
    pub heads: Heads,
    training: Training,
    optimiser: Option<Box<dyn Optimiser>>,
    device: Device,
    dtype: DType,
}

impl SequentialLora {
    /// Nothing learned yet.
    ///
    /// # Errors
    /// [`Error::Usage`] for a bad hyper-parameter, [`Error::Unsupported`] for a backbone without low-rank paths.
    pub fn new(method: &str, training: Training, lora: LoraConfig, setup: Setup) -> Result<Self> {
        training.check()?;
        setup.backbone.require(method, &[Capability::LowRank])?;
        let pairs = Pairs::new(lora, setup.backbone.as_ref())?;
        let heads = Heads::new(setup.backbone.info().dim);
        Ok(Self { backbone: setup.backbone, pairs, heads, training, optimiser: None, device: setup.device, dtype: setup.dtype })
    }

    /// A new pair, a new head, a new optimiser of both.
    ///
    /// # Errors
    /// If a draw fails.
    pub fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.pairs.add(self.backbone.as_ref(), ctx)?;
        self.heads.grow(task, ctx)?;
        self.optimiser = Some(self.new_optimiser()?);
        Ok(())
    }

    fn new_optimiser(&self) -> Result<Box<dyn Optimiser>> {
        self.training.optimiser(self.pairs.running_vars(), self.heads.current_vars())
    }

    /// Features of the model as it is now, with the running pair.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn forward(&self, images: &Tensor, cls_tokens: bool) -> Result<Features> {
        let running = self.pairs.running();
        self.backbone.forward(images, Pass { low_rank: Some(&running), cls_tokens, ..Pass::default() })
    }

    /// Features of the model as it was before this task: the same network without its running pair. No graph.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn forward_previous(&self, images: &Tensor) -> Result<Features> {
        self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })
    }

    /// Features without a graph, with the running pair.
    fn infer(&self, images: &Tensor, cls_tokens: bool) -> Result<Features> {
        let paths = self.pairs.running_detached();
        self.backbone.forward(images, Pass { low_rank: Some(&paths), cls_tokens, ..Pass::default() })
    }

    /// One optimisation step on `loss` at the rate of `epoch`.
    ///
    /// # Errors
    /// [`Error::Protocol`] outside a task.
    pub fn step(&mut self, loss: &Tensor, epoch: usize) -> Result<()> {
        let Some(optimiser) = &mut self.optimiser else {
            return Err(Error::Protocol("a training step was asked for outside a task".into()));
        };
        optimiser.set_learning_rate(self.training.rate(epoch));
        optimiser.step(&loss.backward()?)
    }

    /// For every block, the mean over all tokens of all the task's training images of x·xᵀ, x being the attention's input: (dim, dim) in f64 on the host.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the backbone does not show its attention's inputs.
    pub fn input_covariances(&self, view: View, ctx: &mut Context) -> Result<Vec<Tensor>> {
        let info = self.backbone.info();
        let mut sums = vec![Tensor::zeros((info.dim, info.dim), DType::F64, &Device::Cpu)?; info.blocks];
        let mut tokens = 0;
        let running = self.pairs.running_detached();
        ctx.pass(view, INFERENCE_BATCH, |batch| {
            let mut tap = |block: usize, x: &Tensor| -> Result<()> {
                let rows = x.dim(0)? * x.dim(1)?;
                let x = x.reshape((rows, info.dim))?;
                let square = x.t()?.contiguous()?.matmul(&x)?.to_dtype(DType::F64)?.to_device(&Device::Cpu)?;
                sums[block] = (&sums[block] + square)?;
                tokens += if block == 0 { rows } else { 0 };
                Ok(())
            };
            let pass = Pass { low_rank: Some(&running), attention_inputs: Some(&mut tap), ..Pass::default() };
            self.backbone.forward(&batch.images, pass).map(drop)
        })?;
        sums.iter().map(|s| Ok((s / tokens.max(1) as f64)?)).collect()
    }

    /// Fits the statistics of the task's classes: features of its training images with the test transform.
    ///
    /// # Errors
    /// If an image cannot be read.
    pub fn fit_statistics(&self, statistics: &mut ClassStatistics, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, INFERENCE_BATCH, |batch| {
            features.push(self.infer(&batch.images, false)?.cls);
            labels.extend_from_slice(&batch.classes);
            Ok(())
        })?;
        if features.is_empty() {
            return Err(Error::Protocol(format!("task {} has no training image", task.index)));
        }
        statistics.fit(task, &Tensor::cat(&features, 0)?, &labels)
    }

    /// Folds the pair into the frozen weights; the task is over.
    ///
    /// # Errors
    /// If the backbone cannot fold.
    pub fn end_task(&mut self) -> Result<()> {
        self.optimiser = None;
        self.pairs.fold(self.backbone.as_mut())
    }

    /// Logits over all classes seen so far.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.heads.all(&self.infer(images, false)?.cls)?.detach())
    }

    /// The normalised CLS token after every block, if the backbone has them.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        Ok(self.infer(images, true)?.blocks)
    }

    /// The backbone with all pairs folded in, and all heads as one.
    ///
    /// # Errors
    /// [`Error::Protocol`] within a task; [`Error::Unsupported`] for a backbone that cannot be exported.
    pub fn export(&self) -> Result<Exported> {
        if self.optimiser.is_some() {
            return Err(Error::Protocol("a model is exported between tasks, not within one".into()));
        }
        let mut out = self.backbone.export()?;
        let (weight, bias) = self.heads.stacked()?;
        out.tensors.extend([("head.weight".to_owned(), weight.detach()), ("head.bias".to_owned(), bias.detach())]);
        Ok(out)
    }

    /// Pairs, heads and, within a task, the optimiser.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn state(&self) -> Result<State> {
        let mut state = State::new();
        self.pairs.save(&mut state)?;
        self.heads.save(&mut state)?;
        if let Some(optimiser) = &self.optimiser {
            for (name, tensor) in optimiser.state()? {
                state.put(format!("optimiser.{name}"), Kind::Optimiser, &tensor)?;
            }
        }
        Ok(state)
    }

    /// Takes over a state; see [`Method::restore`](crate::method::Method::restore).
    ///
    /// # Errors
    /// Names a tensor that is missing or of another shape.
    pub fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.pairs.restore(state, tasks.len(), running, self.backbone.as_mut(), self.dtype, &self.device)?;
        self.heads.restore(state, tasks, self.dtype, &self.device)?;
        self.optimiser = None;
        if running {
            let mut optimiser = self.new_optimiser()?;
            optimiser.restore(&|name| state.get(&format!("optimiser.{name}")).and_then(|e| e.value.to_tensor(&self.device).ok()))?;
            self.optimiser = Some(optimiser);
        }
        Ok(())
    }

    /// The type everything is computed in, and where.
    pub fn placement(&self) -> (DType, &Device) {
        (self.dtype, &self.device)
    }
}
