//! SR²-LoRA: self-rectifying inter-layer relations in low-rank adaptation (arXiv 2605.07420).
//!
//! ```sh
//! cilbench run --method sr2-lora
//! ```
//!
//! Each task adds one LoRA pair to k and v. While it trains, the singular values of the inter-layer
//! relation matrix (the Gram matrix of the CLS tokens after every block, for each image) are held
//! to those of the previous model; afterwards the heads are realigned on features drawn from class
//! statistics.

use candle_core::Tensor;
use cilbench::backbone::Capability;
use cilbench::context::Context;
use cilbench::method::{About, Batch, Carry, Loss, Losses, Method, MethodEntry, Model, Setup};
use cilbench::nn;
use cilbench::parts::{AlignmentLoss, ClassifierAlignment, Learner, LoraConfig, Training, Want};
use cilbench::scenario::TaskInfo;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Sr2Lora>() }

/// What is held to the previous model (the paper's ablation).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// The singular values of the relation matrix (the method itself).
    #[default]
    Spectral,
    /// The CLS tokens of all blocks.
    Features,
    /// The CLS token of the last block.
    LastFeature,
    /// The entries of the relation matrix.
    Entrywise,
    /// Nothing.
    None,
}

impl Alignment {
    /// The relation term between CLS tokens (batch, blocks, dim) of the current and the previous
    /// model; none without alignment.
    fn between(self, new: &Tensor, old: &Tensor) -> Result<Option<Tensor>> {
        // λ: the singular values of the relation matrix, which is symmetric and positive.
        let spectrum = |tokens: &Tensor| nn::eigenvalues(&nn::relation(tokens)?);
        let last =
            |tokens: &Tensor| -> Result<Tensor> { Ok(tokens.narrow(1, tokens.dim(1)? - 1, 1)?) };
        Ok(Some(match self {
            Self::Spectral => nn::smooth_l1(&spectrum(new)?, &spectrum(old)?)?,
            Self::Entrywise => nn::smooth_l1(&nn::relation(new)?, &nn::relation(old)?)?,
            Self::Features => nn::mse(new, old)?,
            Self::LastFeature => nn::mse(&last(new)?, &last(old)?)?,
            Self::None => return Ok(None),
        }))
    }
}

/// The loss of the task at hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskLoss {
    /// Cross-entropy of the current head's logits.
    #[default]
    CrossEntropy,
    /// Cross-entropy of the logits divided by their norm and by 0.1 (the authors' choice for
    /// ImageNet-A).
    Normalised,
}

impl TaskLoss {
    /// The loss of logits (batch, classes of the task) for labels (batch) within the task.
    fn of(self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        match self {
            Self::CrossEntropy => nn::cross_entropy(logits, labels),
            Self::Normalised => nn::cross_entropy(&nn::normalised(logits)?, labels),
        }
    }
}

/// Hyper-parameters of SR²-LoRA; defaults are the authors' base configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
    /// What is held to the previous model while a task trains.
    alignment: Alignment,
    /// Weight of that relation term (w).
    relation_weight: f64,
    /// Loss of the task at hand.
    task_loss: TaskLoss,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            training: Training::default(),
            lora: LoraConfig::default(),
            alignment: Alignment::default(),
            relation_weight: 1.0,
            task_loss: TaskLoss::default(),
        }
    }
}

/// SR²-LoRA.
pub struct Sr2Lora {
    config: Config,
    learner: Learner,
    classifier: ClassifierAlignment,
}

impl Method for Sr2Lora {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "sr2-lora",
        version: "3",
        summary: "LoRA that holds the singular values of inter-layer relations to the previous model's",
        paper: r"@article{sr2lora2026,
  title={{SR}$^2$-{LoRA}: Self-Rectifying Inter-layer Relations in Low-Rank Adaptation for Class-Incremental Learning},
  journal={arXiv preprint arXiv:2605.07420}, year={2026}
}",
        trains: "the current task's LoRA pair and head; after the task all heads",
        presets: include_str!("../presets/sr2-lora.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if !(config.relation_weight.is_finite() && config.relation_weight >= 0.0) {
            return Err(Error::usage(format!(
                "relation_weight = {}: must not be negative",
                config.relation_weight
            )));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::ClsTokens])?;
        let classifier =
            ClassifierAlignment::new(AlignmentLoss::EntropyNormalised, &config.training);
        let learner =
            Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        Ok(Self { config, learner, classifier })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let related = task.index > 0 && self.config.alignment != Alignment::None;
        let want = if related { Want::ClsTokens } else { Want::Features };
        let features = self.learner.forward(&batch.data.images, want)?;
        let logits = self.learner.heads.current(&features.cls)?;
        let ce = self.config.task_loss.of(&logits, &task.within(&batch.data.labels)?)?;
        let relation = self.relation(features.blocks.as_ref(), &batch.data.images, ctx)?;
        // The training loss: the task's own, plus w times the distance of the relations' spectra.
        let loss =
            Loss::new("ce", ce).add_some("relation", self.config.relation_weight, relation)?;
        self.learner.step(loss, batch.epoch)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.learner.settle(task, carry)?;
        self.classifier.settle(task, carry)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.classifier.realign(&self.learner, task, ctx)
    }
}

impl Sr2Lora {
    /// The relation term for the CLS tokens (batch, blocks, dim) of the current model, if they are
    /// held to those of the previous one.
    fn relation(
        &self,
        new: Option<&Tensor>,
        images: &Tensor,
        ctx: &mut Context,
    ) -> Result<Option<Tensor>> {
        let Some(new) = new else { return Ok(None) };
        let old = self.learner.forward_previous(images)?.blocks;
        let old =
            old.ok_or_else(|| Error::Unsupported("the backbone gave no CLS tokens".into()))?;
        ctx.probe("relation_new", || nn::relation(new))?;
        ctx.probe("relation_old", || nn::relation(&old))?;
        let relation = self.config.alignment.between(new, &old)?;
        if let Some(relation) = &relation {
            ctx.probe("relation_loss", || Ok(relation.clone()))?;
        }
        Ok(relation)
    }
}
