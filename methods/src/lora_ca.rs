//! Sequential LoRA with classifier alignment by plain cross-entropy.
//!
//! ```sh
//! cilbench run --method lora-ca
//! ```
//!
//! The relation-free baseline of SR²-LoRA (arXiv 2605.07420): the heads are realigned on features
//! drawn from class statistics, the backbone drifts.

use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Batch, Carry, Losses, Method, MethodEntry, Model, Setup};
use cilbench::parts::{AlignmentLoss, ClassifierAlignment, Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<LoraCa>() }

/// Hyper-parameters of LoRA-CA.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
}

/// Sequential LoRA with classifier alignment.
pub struct LoraCa {
    learner: Learner,
    classifier: ClassifierAlignment,
}

impl Method for LoraCa {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "lora-ca",
        version: "3",
        summary: "sequential LoRA, heads realigned on features drawn from class statistics",
        paper: r"@inproceedings{zhang2023slca,
  title={{SLCA}: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained Model},
  author={Zhang, Gengwei and Wang, Liyuan and Kang, Guoliang and Chen, Ling and Wei, Yunchao},
  booktitle={ICCV}, year={2023}
}",
        trains: "the current task's LoRA pair and head; after the task all heads",
        presets: include_str!("../presets/lora-ca.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let classifier = ClassifierAlignment::new(AlignmentLoss::CrossEntropy, &config.training);
        let learner = Learner::lora(Self::ABOUT.name, config.training, config.lora, setup)?;
        Ok(Self { learner, classifier })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(batch, task)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.learner.settle(task, carry)?;
        self.classifier.settle(task, carry)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.classifier.realign(&self.learner, task, ctx)
    }
}
