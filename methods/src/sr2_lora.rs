//! SR²-LoRA: self-rectifying inter-layer relations in low-rank adaptation (arXiv 2605.07420).
//!
//! ```sh
//! cilbench run --method sr2-lora
//! ```
//!
//! Each task adds one LoRA pair to k and v. While it trains, the singular values of the inter-layer relation matrix (the Gram matrix of the CLS
//! tokens after every block, for each image) are held to those of the previous model; afterwards the heads are realigned on
//! features drawn from class statistics.

use candle_core::Tensor;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::nn;
use cilbench::parts::{self, AlignmentLoss, ClassStatistics, Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
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
    /// The relation term between CLS tokens (batch, blocks, dim) of the current and the previous model, and the two relation matrices if it has them.
    fn loss(self, new: &Tensor, old: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(match self {
            Self::Spectral => nn::smooth_l1(&nn::eigenvalues(&nn::relation(new)?)?, &nn::eigenvalues(&nn::relation(old)?)?)?,
            Self::Entrywise => nn::smooth_l1(&nn::relation(new)?, &nn::relation(old)?)?,
            Self::Features => nn::mse(new, old)?,
            Self::LastFeature => {
                let last = |t: &Tensor| -> Result<Tensor> { Ok(t.narrow(1, t.dim(1)? - 1, 1)?) };
                nn::mse(&last(new)?, &last(old)?)?
            }
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
    /// Cross-entropy of the logits divided by their norm and by 0.1 (the authors' choice for ImageNet-A).
    Normalised,
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
    model: Learner,
    statistics: ClassStatistics,
}

impl Registered for Sr2Lora {
    type Config = Config;
    const ABOUT: About = About {
        name: "sr2-lora",
        version: "2",
        summary: "LoRA that holds the singular values of inter-layer relations to the previous model's",
        paper: r"@article{sr2lora2026,
  title={{SR}$^2$-{LoRA}: Self-Rectifying Inter-layer Relations in Low-Rank Adaptation for Class-Incremental Learning},
  journal={arXiv preprint arXiv:2605.07420}, year={2026}
}",
        access: Access::Stream,
        trains: "the current task's LoRA pair and head; after the task all heads",
        presets: include_str!("../presets/sr2-lora.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if !(config.relation_weight.is_finite() && config.relation_weight >= 0.0) {
            return Err(Error::usage(format!("relation_weight = {}: must not be negative", config.relation_weight)));
        }
        setup.backbone.require(Self::ABOUT.name, &[cilbench::backbone::Capability::ClsTokens])?;
        let model = Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        Ok(Self { config, model, statistics: ClassStatistics::default() })
    }
}

impl Method for Sr2Lora {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.begin_task(task, ctx)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let related = task.index > 0 && self.config.alignment != Alignment::None;
        let features = self.model.forward(&batch.data.images, related)?;
        let logits = self.model.heads.current(&features.cls)?;
        let logits = if self.config.task_loss == TaskLoss::Normalised { nn::normalised(&logits)? } else { logits };
        let ce = nn::cross_entropy(&logits, &task.within(&batch.data.labels)?)?;
        let relation = match features.blocks {
            Some(new) => {
                let old = self.model.forward_previous(&batch.data.images)?.blocks;
                let old = old.ok_or_else(|| Error::Unsupported("the backbone gave no CLS tokens".into()))?;
                ctx.probe("relation_new", || nn::relation(&new))?;
                ctx.probe("relation_old", || nn::relation(&old))?;
                self.config.alignment.loss(&new, &old)?
            }
            None => None,
        };
        let Some(relation) = relation else {
            self.model.step(&ce, batch.epoch)?;
            return Losses::read(&[("ce", &ce)]);
        };
        ctx.probe("relation_loss", || Ok(relation.clone()))?;
        self.model.step(&(&ce + (&relation * self.config.relation_weight)?)?, batch.epoch)?;
        Losses::read(&[("ce", &ce), ("relation", &relation)])
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.end_task()?;
        self.model.fit_statistics(&mut self.statistics, task, ctx)?;
        if task.index > 0 {
            let Training { batch_size, weight_decay, .. } = self.config.training;
            let alignment = parts::Alignment { loss: AlignmentLoss::EntropyNormalised, batch_size, weight_decay };
            alignment.run(&self.model.heads, &self.statistics, ctx)?;
        }
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.model.predict(images)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.model.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        let mut state = self.model.state()?;
        self.statistics.save(&mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.model.restore(state, tasks, running)?;
        let (dtype, device) = self.model.placement();
        self.statistics.restore(state, &tasks[..tasks.len() - usize::from(running)], dtype, device)
    }

    fn export(&self) -> Result<Exported> {
        self.model.export()
    }
}
