//! Sequential LoRA: one pair a task on top of all former ones, nothing against forgetting (Hu et
//! al. 2022).
//!
//! ```sh
//! cilbench run --method lora
//! ```

use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Batch, Losses, Method, MethodEntry, Setup};
use cilbench::parts::{Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Lora>() }

/// Hyper-parameters of sequential LoRA.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    #[serde(flatten)]
    lora: LoraConfig,
}

/// Sequential LoRA.
pub struct Lora {
    learner: Learner,
}

impl Method for Lora {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "lora",
        version: "1",
        summary: "sequential LoRA: one pair a task, nothing against forgetting",
        paper: r"@inproceedings{hu2022lora,
  title={{LoRA}: Low-Rank Adaptation of Large Language Models},
  author={Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle={ICLR}, year={2022}
}",
        trains: "the current task's LoRA pair and head",
        presets: include_str!("../presets/lora.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        Ok(Self { learner: Learner::lora(Self::ABOUT.name, config.training, config.lora, setup)? })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(batch, task)
    }
}
