//! A backbone and heads that are trained task by task, with LoRA pairs, with all weights, or with
//! the heads alone: what all trained methods have in common.

use candle_core::{Tensor, Var};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Heads, LoraConfig, Pairs, Training};
use crate::backbone::{Backbone, Capability, Exported, Features, Pass};
use crate::context::{Carry, Images, Placement, Variable};
use crate::method::{Batch, Loss, Losses, Model, Plan, Setup};
use crate::nn;
use crate::optim::Optimiser;
use crate::scenario::TaskInfo;
use crate::state::Kind;
use crate::{Error, Result};

/// What is trained besides the heads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trainable {
    /// A LoRA pair per task, part of the weights when the task is over.
    #[default]
    Lora,
    /// Nothing: the backbone stays as it is.
    Head,
    /// All of the backbone's weights.
    All,
}

/// Classes of a loss, and the heads that it trains.
///
/// A method that trains all heads with a cross-entropy of the task's own classes takes
/// [`Classes::Seen`] and computes its loss from [`Heads::current`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Classes {
    /// The task's own classes: its head alone.
    #[default]
    Current,
    /// All classes seen so far: all heads.
    Seen,
}

/// What a forward pass gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The features: the CLS token after the last block.
    Features,
    /// The features, and the CLS token after every block.
    ClsTokens,
}

/// What is trained, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LearnerConfig {
    /// Epochs, batches and the optimiser.
    #[serde(flatten)]
    pub training: Training,
    /// What is trained besides the heads; rank and targets count with lora only, and all wants a
    /// learning_rate of 1e-5 or so.
    pub trainable: Trainable,
    /// The pairs, with trainable = lora.
    #[serde(flatten)]
    pub lora: LoraConfig,
}

impl LearnerConfig {
    /// LoRA pairs.
    pub fn lora(training: Training, lora: LoraConfig) -> Self {
        Self { training, trainable: Trainable::Lora, lora }
    }

    /// All weights, or the heads alone.
    pub fn without_pairs(training: Training, trainable: Trainable) -> Self {
        Self { training, trainable, lora: LoraConfig::default() }
    }
}

/// A backbone, the heads, and the optimiser of what is trained.
pub struct Learner {
    /// The backbone as it is now.
    pub backbone: Box<dyn Backbone>,
    /// The heads of all tasks.
    pub heads: Heads,
    /// The LoRA pairs; finished ones are part of the backbone's weights. There are none unless
    /// trainable = lora.
    pub pairs: Pairs,
    config: LearnerConfig,
    scope: Classes,
    /// The backbone's weights by name, where they are trained.
    weights: Vec<(String, Var)>,
    /// The same once a task has begun: before that they are the pre-trained ones and not carried.
    carried_weights: Vec<Variable>,
    optimiser: Option<Box<dyn Optimiser>>,
    placement: Placement,
}

impl Learner {
    /// Nothing learned yet; `scope` says which heads train.
    ///
    /// # Errors
    /// [`Error::Usage`] for a bad hyper-parameter, [`Error::Unsupported`] for a backbone that
    /// cannot be trained so.
    pub fn new(method: &str, config: LearnerConfig, scope: Classes, setup: Setup) -> Result<Self> {
        config.training.check()?;
        let Setup { mut backbone, placement } = setup;
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
        let (carried_weights, optimiser) = (Vec::new(), None);
        Ok(Self {
            backbone,
            heads,
            pairs,
            config,
            scope,
            weights,
            carried_weights,
            optimiser,
            placement,
        })
    }

    /// What it was made with.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// The run's device and floating-point type.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Forgets all that was learned: goes on from `backbone`, with new heads for these finished
    /// tasks.
    pub fn restart(
        &mut self,
        mut backbone: Box<dyn Backbone>,
        finished: &[TaskInfo],
        carry: &mut Carry,
    ) -> Result<()> {
        self.carried_weights.clear();
        match self.config.trainable {
            Trainable::Lora => {
                self.pairs = Pairs::new(self.config.lora.clone(), backbone.as_ref())?
            }
            Trainable::Head => {}
            Trainable::All => self.weights = backbone.unfreeze()?,
        }
        self.backbone = backbone;
        self.heads = Heads::new(self.backbone.info().dim);
        finished.iter().try_for_each(|task| self.heads.grow(task, carry))
    }

    fn new_optimiser(&self, carry: &mut Carry) -> Result<Box<dyn Optimiser>> {
        let mut variables = self.carried_weights.clone();
        variables.extend(self.pairs.running_variables());
        let heads = match self.scope {
            Classes::Current => self.heads.current_variables(),
            Classes::Seen => self.heads.variables(),
        };
        self.config.training.optimiser(variables, heads, carry)
    }

    /// Features of the model as it is now, with a graph of what is trained.
    pub fn forward(&self, images: &Tensor, want: Want) -> Result<Features> {
        let running = self.pairs.running();
        let low_rank = (self.config.trainable == Trainable::Lora).then_some(&running);
        let train_weights = self.config.trainable == Trainable::All;
        let cls_tokens = want == Want::ClsTokens;
        self.backbone
            .forward(images, Pass { low_rank, cls_tokens, train_weights, ..Pass::default() })
    }

    /// Features without a graph.
    pub fn infer(&self, images: &Tensor, want: Want) -> Result<Features> {
        let running = self.pairs.running_detached();
        let low_rank = (self.config.trainable == Trainable::Lora).then_some(&running);
        let cls_tokens = want == Want::ClsTokens;
        self.backbone.forward(images, Pass { low_rank, cls_tokens, ..Pass::default() })
    }

    /// Mean cross-entropy of features (batch, dim) over the classes that the heads in training
    /// stand for.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a label is none of them.
    pub fn cross_entropy(
        &self,
        features: &Tensor,
        data: &Images,
        task: &TaskInfo,
    ) -> Result<Tensor> {
        match self.scope {
            Classes::Current => {
                nn::cross_entropy(&self.heads.current(features)?, &task.within(&data.labels)?)
            }
            Classes::Seen => nn::cross_entropy(&self.heads.all(features)?, &data.labels),
        }
    }

    /// One optimisation step on the cross-entropy of a batch, named `ce`.
    pub fn learn(&mut self, batch: &Batch, task: &TaskInfo) -> Result<Losses> {
        self.learn_from(&batch.data, batch.epoch, task)
    }

    /// The same for images that are not the batch as it came.
    pub fn learn_from(&mut self, data: &Images, epoch: usize, task: &TaskInfo) -> Result<Losses> {
        let features = self.forward(&data.images, Want::Features)?.cls;
        self.step(Loss::new("ce", self.cross_entropy(&features, data, task)?), epoch)
    }

    /// One optimisation step on a loss at the learning rate of `epoch`. Gives the loss's terms.
    ///
    /// # Errors
    /// [`Error::Protocol`] outside a task.
    pub fn step(&mut self, loss: Loss, epoch: usize) -> Result<Losses> {
        let Some(optimiser) = &mut self.optimiser else {
            return Err(Error::Protocol("a training step was asked for outside a task".into()));
        };
        optimiser.set_learning_rate(self.config.training.rate(epoch));
        optimiser.step(&loss.total().backward()?)?;
        loss.losses()
    }
}

impl Model for Learner {
    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(self.config.training.plan())
    }

    /// A new head, with LoRA a new pair, and a new optimiser. Trained weights are carried as
    /// `backbone.<name>`.
    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if self.carried_weights.is_empty() {
            let adopt = |(name, var): &(String, Var)| {
                carry.adopt(format!("backbone.{name}"), Kind::Trained, var)
            };
            self.carried_weights = self.weights.iter().map(adopt).collect::<Result<_>>()?;
        }
        self.pairs.grow(self.backbone.as_ref(), carry)?;
        self.heads.grow(task, carry)?;
        if carry.training() {
            self.optimiser = Some(self.new_optimiser(carry)?);
        }
        Ok(())
    }

    /// A LoRA pair becomes part of the weights, and the optimiser is dropped.
    fn settle(&mut self, _: &TaskInfo, _: &mut Carry) -> Result<()> {
        self.optimiser = None;
        self.pairs.fold(self.backbone.as_mut())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.heads.all(&self.infer(images, Want::Features)?.cls)?.detach())
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        Ok(self.infer(images, Want::ClsTokens)?.blocks)
    }

    /// The backbone as it is now, and all heads as one.
    ///
    /// # Errors
    /// [`Error::Protocol`] within a task; [`Error::Unsupported`] for a backbone that cannot be
    /// exported.
    fn export(&self) -> Result<Exported> {
        if self.optimiser.is_some() {
            return Err(Error::Protocol(
                "a model is exported between tasks, not within one".into(),
            ));
        }
        let mut out = self.backbone.export()?;
        let (weight, bias) = self.heads.stacked()?;
        out.tensors.extend([
            ("head.weight".to_owned(), weight.detach()),
            ("head.bias".to_owned(), bias.detach()),
        ]);
        Ok(out)
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
        host_labels: [task.host_labels.as_slice(), &recalled.host_labels].concat(),
        positions: [task.positions.as_slice(), &recalled.positions].concat(),
    })
}
