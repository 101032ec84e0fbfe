//! InfLoRA: interference-free low-rank adaptation (Liang and Li, CVPR 2024).
//!
//! ```sh
//! cilbench run --method inflora
//! ```
//!
//! Each task's A is designed from the covariance of the attention's inputs, outside the directions
//! that past tasks used, and frozen; only B and the head train. DualGPM keeps those directions, or
//! their complement once they are more than half.
//!
//! With `classifier_alignment = true` the heads are realigned as in lora-ca; the authors' own
//! variant with alignment (InfLoRA+CA) uses the settings of SLCA.

mod dual_gpm;

use cilbench::backbone::{Capability, Projection};
use cilbench::context::Context;
use cilbench::data::View;
use cilbench::method::{
    About, Batch, Carry, Losses, Method, MethodEntry, Model, RecordedSetting, Setup,
};
use cilbench::parts::{AlignmentLoss, ClassifierAlignment, Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use dual_gpm::DualGpm;

inventory::submit! { MethodEntry::of::<InfLora>() }
inventory::submit! { RecordedSetting { recorded: "lamb", key: "threshold" } }

/// Hyper-parameters of InfLoRA; defaults are the authors' for CIFAR-100.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
    /// Share of the inputs' energy that is protected after the first task (ε), in (0, 1]; after
    /// task t of T it is ε + (1−ε)·t/T.
    threshold: f64,
    /// Pairs only in the last so many blocks (InfLoRA-b5: 5); 0 means all blocks.
    last_blocks: usize,
    /// Whether the heads are realigned after each task on features drawn from class statistics, by
    /// plain cross-entropy.
    classifier_alignment: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            training: Training::default(),
            lora: LoraConfig::default(),
            threshold: 0.95,
            last_blocks: 0,
            classifier_alignment: false,
        }
    }
}

/// InfLoRA.
pub struct InfLora {
    config: Config,
    learner: Learner,
    gpm: DualGpm,
    /// With classifier alignment.
    classifier: Option<ClassifierAlignment>,
}

impl Method for InfLora {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "inflora",
        version: "3",
        summary: "LoRA whose A is designed outside the directions that past tasks used; only B trains",
        paper: r"@inproceedings{liang2024inflora,
  title={{InfLoRA}: Interference-Free Low-Rank Adaptation for Continual Learning},
  author={Liang, Yan-Shuo and Li, Wu-Jun},
  booktitle={CVPR}, year={2024}
}",
        trains: "the current task's B and head; with classifier alignment, after the task all heads",
        presets: include_str!("../../presets/inflora.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if !(config.threshold > 0.0 && config.threshold <= 1.0) {
            return Err(Error::usage(format!(
                "threshold = {}: must be above 0 and at most 1",
                config.threshold
            )));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::AttentionInputs])?;
        let of_attention =
            |p: &&Projection| matches!(p, Projection::Q | Projection::K | Projection::V);
        if let Some(target) = config.lora.targets.iter().find(|t| !of_attention(t)) {
            return Err(Error::usage(format!(
                "targets: '{target}' does not take the attention's input; InfLoRA's A is designed for q, k and v"
            )));
        }
        let mut learner =
            Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        let last_blocks = (config.last_blocks > 0).then_some(config.last_blocks);
        learner.pairs = learner.pairs.designed(last_blocks, learner.backbone.as_ref())?;
        let alignment = || ClassifierAlignment::new(AlignmentLoss::CrossEntropy, &config.training);
        let classifier = config.classifier_alignment.then(alignment);
        Ok(Self { config, learner, gpm: DualGpm::default(), classifier })
    }

    fn begin_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        // A is the leading directions of the inputs, outside those that past tasks used.
        let covariances = self.learner.input_covariances(View::Train, ctx)?;
        self.learner.pairs.set_a(&self.gpm.design(&covariances, self.config.lora.rank)?)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(batch, task)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.learner.settle(task, carry)?;
        self.gpm.settle(self.learner.backbone.info().blocks, carry)?;
        self.classifier.iter_mut().try_for_each(|classifier| classifier.settle(task, carry))
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let epsilon = self.config.threshold;
        let threshold = epsilon + (1.0 - epsilon) * task.index as f64 / task.tasks as f64; // ε + (1−ε)·t/T
        self.gpm.update(&self.learner.input_covariances(View::Train, ctx)?, threshold)?;
        self.classifier
            .iter_mut()
            .try_for_each(|classifier| classifier.realign(&self.learner, task, ctx))
    }
}
