//! A backbone and heads trained task by task, with LoRA pairs, with all weights or with the heads alone: what all trained methods have in common.

use candle_core::{DType, Device, Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Heads, LoraConfig, Pairs, Training, restore_optimiser, restore_var, save_optimiser};
use crate::backbone::{Backbone, Capability, Features, Pass};
use crate::context::{Context, Images};
use crate::method::{Exported, Losses, Setup};
use crate::nn::{self, Optimiser};
use crate::scenario::TaskInfo;
use crate::state::{Kind, State};
use crate::{Error, Result};

/// What is trained besides the heads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trainable {
    /// A LoRA pair a task, part of the weights when the task is over.
    #[default]
    Lora,
    /// Nothing: the backbone stays as it is.
    Head,
    /// All of the backbone's weights.
    All,
}

/// Classes of a loss, and the heads that it trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Classes {
    /// The task's own classes: its head alone.
    #[default]
    Current,
    /// All classes seen so far: all heads.
    Seen,
}

/// What is trained, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LearnerConfig {
    /// Epochs, batches and the optimiser.
    #[serde(flatten)]
    pub training: Training,
    /// What is trained besides the heads; rank and targets count with lora only, and all wants a learning_rate of 1e-5 or so.
    pub trainable: Trainable,
    /// The pairs, with trainable = lora.
    #[serde(flatten)]
    pub lora: LoraConfig,
}

/// A backbone, the heads, and the optimiser of what is trained.
pub struct Learner {
    /// The backbone as it is now.
    pub backbone: Box<dyn Backbone>,
    /// The heads of all tasks.
    pub heads: Heads,
    /// The LoRA pairs; finished ones are part of the backbone's weights. There are none unless trainable = lora.
    pub pairs: Pairs,
    config: LearnerConfig,
    scope: Classes,
    /// The backbone's weights, where they are trained.
    weights: Vec<(String, Var)>,
    optimiser: Option<Box<dyn Optimiser>>,
    device: Device,
    dtype: DType,
}

impl Learner {
    /// Nothing learned yet; `scope` says which heads train.
    ///
    /// # Errors
    /// [`Error::Usage`] for a bad hyper-parameter, [`Error::Unsupported`] for a backbone that cannot be trained so.
    pub fn new(method: &str, config: LearnerConfig, scope: Classes, setup: Setup) -> Result<Self> {
        config.training.check()?;
        let Setup { mut backbone, device, dtype } = setup;
        let (mut pairs, mut weights) = (Pairs::none(), Vec::new());
        match config.trainable {
            Trainable::Lora => {
                backbone.require(method, &[Capability::LowRank])?;
                pairs = Pairs::new(config.lora.clone(), backbone.as_ref())?;
            }
            Trainable::Head => {}
            Trainable::All => {
                backbone.require(method, &[Capability::FullTraining])?;
                weights = backbone.unfreeze()?;
            }
        }
        let heads = Heads::new(backbone.info().dim);
        Ok(Self { backbone, heads, pairs, config, scope, weights, optimiser: None, device, dtype })
    }

    /// What it was made with.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Forgets all that was learned: goes on from `backbone`, with new heads for these finished tasks.
    ///
    /// # Errors
    /// If a draw fails.
    pub fn restart(&mut self, mut backbone: Box<dyn Backbone>, finished: &[TaskInfo], ctx: &mut Context) -> Result<()> {
        match self.config.trainable {
            Trainable::Lora => self.pairs = Pairs::new(self.config.lora.clone(), backbone.as_ref())?,
            Trainable::Head => {}
            Trainable::All => self.weights = backbone.unfreeze()?,
        }
        self.backbone = backbone;
        self.heads = Heads::new(self.backbone.info().dim);
        finished.iter().try_for_each(|task| self.heads.grow(task, ctx))
    }

    /// A new head, with LoRA a new pair, and a new optimiser.
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
        let named = |(name, var): &(String, Var)| (format!("backbone.{name}"), var.clone());
        let mut vars: Vec<_> = self.weights.iter().map(named).collect();
        vars.extend(self.pairs.running_vars());
        let heads = match self.scope {
            Classes::Current => self.heads.current_vars(),
            Classes::Seen => self.heads.vars(),
        };
        self.config.training.optimiser(vars, heads)
    }

    /// Features of the model as it is now, with a graph of what is trained.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn forward(&self, images: &Tensor, cls_tokens: bool) -> Result<Features> {
        let running = self.pairs.running();
        let low_rank = (self.config.trainable == Trainable::Lora).then_some(&running);
        let train_weights = self.config.trainable == Trainable::All;
        self.backbone.forward(images, Pass { low_rank, cls_tokens, train_weights, ..Pass::default() })
    }

    /// Features without a graph.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn infer(&self, images: &Tensor, cls_tokens: bool) -> Result<Features> {
        let running = self.pairs.running_detached();
        let low_rank = (self.config.trainable == Trainable::Lora).then_some(&running);
        self.backbone.forward(images, Pass { low_rank, cls_tokens, ..Pass::default() })
    }

    /// Mean cross-entropy of features (batch, dim) over the classes that the heads in training stand for.
    ///
    /// # Errors
    /// If a label is none of them.
    pub fn cross_entropy(&self, features: &Tensor, data: &Images, task: &TaskInfo) -> Result<Tensor> {
        match self.scope {
            Classes::Current => nn::cross_entropy(&self.heads.current(features)?, &task.within(&data.labels)?),
            Classes::Seen => nn::cross_entropy(&self.heads.all(features)?, &data.labels),
        }
    }

    /// One optimisation step on the cross-entropy of a batch, named `ce`.
    ///
    /// # Errors
    /// If a label is none of the classes in training; [`Error::Protocol`] outside a task.
    pub fn learn(&mut self, data: &Images, epoch: usize, task: &TaskInfo) -> Result<Losses> {
        let ce = self.cross_entropy(&self.forward(&data.images, false)?.cls, data, task)?;
        self.step(&ce, epoch)?;
        Losses::read(&[("ce", &ce)])
    }

    /// One optimisation step on `loss` at the rate of `epoch`.
    ///
    /// # Errors
    /// [`Error::Protocol`] outside a task.
    pub fn step(&mut self, loss: &Tensor, epoch: usize) -> Result<()> {
        let Some(optimiser) = &mut self.optimiser else {
            return Err(Error::Protocol("a training step was asked for outside a task".into()));
        };
        optimiser.set_learning_rate(self.config.training.rate(epoch));
        optimiser.step(&loss.backward()?)
    }

    /// The task's training is over; a LoRA pair becomes part of the weights.
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

    /// The backbone as it is now, and all heads as one.
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

    /// Pairs or weights (`backbone.<name>`), heads and, within a task, the optimiser. Weights that no task has trained yet are not part of it.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn state(&self) -> Result<State> {
        let mut state = State::new();
        self.pairs.save(&mut state)?;
        if self.heads.classes()? > 0 {
            self.weights.iter().try_for_each(|(name, var)| state.put(format!("backbone.{name}"), Kind::Trained, var))?;
        }
        self.heads.save(&mut state)?;
        save_optimiser(self.optimiser.as_deref(), &mut state)?;
        Ok(state)
    }

    /// Takes over a state; see [`Method::restore`](crate::method::Method::restore).
    ///
    /// # Errors
    /// Names a tensor that is missing or of another shape.
    pub fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.restore_with(state, tasks, tasks.len(), running)
    }

    /// The same of a method that restarts: `pairs` is the number of tasks whose LoRA pairs are in the state.
    ///
    /// # Errors
    /// As [`Learner::restore`].
    pub fn restore_with(&mut self, state: &State, tasks: &[TaskInfo], pairs: usize, running: bool) -> Result<()> {
        self.pairs.restore(state, pairs, running, self.backbone.as_mut(), self.dtype, &self.device)?;
        if !tasks.is_empty() {
            self.weights.iter().try_for_each(|(name, var)| restore_var(var, state, &format!("backbone.{name}")))?;
        }
        self.heads.restore(state, tasks, self.dtype, &self.device)?;
        self.optimiser = None;
        if running {
            let mut optimiser = self.new_optimiser()?;
            restore_optimiser(optimiser.as_mut(), state, &self.device)?;
            self.optimiser = Some(optimiser);
        }
        Ok(())
    }

    /// The type everything is computed in, and where.
    pub fn placement(&self) -> (DType, &Device) {
        (self.dtype, &self.device)
    }
}

/// Both batches as one, the task's images first.
///
/// # Errors
/// If the shapes do not fit.
pub fn together(task: &Images, recalled: Option<&Images>) -> Result<Images> {
    let Some(recalled) = recalled else { return Ok(task.clone()) };
    Ok(Images {
        images: Tensor::cat(&[&task.images, &recalled.images], 0)?,
        labels: Tensor::cat(&[&task.labels, &recalled.labels], 0)?,
        classes: [task.classes.as_slice(), &recalled.classes].concat(),
        positions: [task.positions.as_slice(), &recalled.positions].concat(),
    })
}
