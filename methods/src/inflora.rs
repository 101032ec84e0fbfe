//! InfLoRA: interference-free low-rank adaptation (Liang and Li, CVPR 2024).
//!
//! ```sh
//! cilbench run --method inflora
//! ```
//!
//! Each task's A is designed from the covariance of the attention's inputs, outside the directions that past tasks used, and frozen; only B and the head train.
//! DualGPM keeps those directions, or their complement once they are more than half.
//!
//! With `classifier_alignment = true` the heads are realigned as in lora-ca; the authors' own variant with alignment (InfLoRA+CA) uses the settings of SLCA.

use candle_core::Tensor;
use cilbench::backbone::Capability;
use cilbench::context::Context;
use cilbench::data::View;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{Alignment, AlignmentLoss, ClassStatistics, DualGpm, Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<InfLora>() }

/// Hyper-parameters of InfLoRA; defaults are the authors' for CIFAR-100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
    /// Share of the inputs' energy that is protected after the first task (ε), in (0, 1]; after task t of T it is ε + (1−ε)·t/T.
    threshold: f64,
    /// Pairs only in the last so many blocks (InfLoRA-b5: 5); 0 means all blocks.
    last_blocks: usize,
    /// Whether the heads are realigned after each task on features drawn from class statistics, by plain cross-entropy.
    classifier_alignment: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { training: Training::default(), lora: LoraConfig::default(), threshold: 0.95, last_blocks: 0, classifier_alignment: false }
    }
}

/// InfLoRA.
pub struct InfLora {
    config: Config,
    model: Learner,
    gpm: DualGpm,
    statistics: ClassStatistics,
}

impl Registered for InfLora {
    type Config = Config;
    const ABOUT: About = About {
        name: "inflora",
        version: "2",
        summary: "LoRA whose A is designed outside the directions that past tasks used; only B trains",
        paper: r"@inproceedings{liang2024inflora,
  title={{InfLoRA}: Interference-Free Low-Rank Adaptation for Continual Learning},
  author={Liang, Yan-Shuo and Li, Wu-Jun},
  booktitle={CVPR}, year={2024}
}",
        access: Access::Stream,
        trains: "the current task's B and head; with classifier alignment, after the task all heads",
        presets: include_str!("../presets/inflora.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if !(config.threshold > 0.0 && config.threshold <= 1.0) {
            return Err(Error::usage(format!("threshold = {}: must be above 0 and at most 1", config.threshold)));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::AttentionInputs])?;
        let inputs = |p: &cilbench::backbone::Projection| matches!(p.to_string().as_str(), "q" | "k" | "v");
        if let Some(target) = config.lora.targets.iter().find(|t| !inputs(t)) {
            return Err(Error::usage(format!(
                "targets: '{target}' does not take the attention's input; InfLoRA's A is designed for q, k and v"
            )));
        }
        let mut model = Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        let last_blocks = (config.last_blocks > 0).then_some(config.last_blocks);
        model.pairs = model.pairs.designed(last_blocks, model.backbone.as_ref())?;
        Ok(Self { config, model, gpm: DualGpm::default(), statistics: ClassStatistics::default() })
    }
}

impl Method for InfLora {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.begin_task(task, ctx)?;
        let covariances = self.model.input_covariances(View::Train, ctx)?;
        self.model.pairs.set_a(&self.gpm.design(&covariances, self.config.lora.rank)?)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.model.learn(&batch.data, batch.epoch, task)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.end_task()?;
        let threshold = self.config.threshold + (1.0 - self.config.threshold) * task.index as f64 / task.tasks as f64;
        self.gpm.update(&self.model.input_covariances(View::Train, ctx)?, threshold)?;
        if self.config.classifier_alignment {
            self.model.fit_statistics(&mut self.statistics, task, ctx)?;
            if task.index > 0 {
                let Training { batch_size, weight_decay, .. } = self.config.training;
                let alignment = Alignment { loss: AlignmentLoss::CrossEntropy, batch_size, weight_decay };
                alignment.run(&self.model.heads, &self.statistics, ctx)?;
            }
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
        self.gpm.save(&mut state)?;
        self.statistics.save(&mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.model.restore(state, tasks, running)?;
        self.gpm.restore(state)?;
        if !self.config.classifier_alignment {
            return Ok(());
        }
        let (dtype, device) = self.model.placement();
        self.statistics.restore(state, &tasks[..tasks.len() - usize::from(running)], dtype, device)
    }

    fn export(&self) -> Result<Exported> {
        self.model.export()
    }
}
