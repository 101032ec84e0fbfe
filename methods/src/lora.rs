//! Sequential LoRA: one pair a task on top of all former ones, nothing against forgetting (Hu et al. 2022).
//!
//! ```sh
//! cilbench run --method lora
//! ```

use candle_core::Tensor;
use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
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
    config: Config,
    model: Learner,
}

impl Registered for Lora {
    type Config = Config;
    const ABOUT: About = About {
        name: "lora",
        version: "1",
        summary: "sequential LoRA: one pair a task, nothing against forgetting",
        paper: r"@inproceedings{hu2022lora,
  title={{LoRA}: Low-Rank Adaptation of Large Language Models},
  author={Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle={ICLR}, year={2022}
}",
        access: Access::Stream,
        trains: "the current task's LoRA pair and head",
        presets: include_str!("../presets/lora.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let model = Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        Ok(Self { config, model })
    }
}

impl Method for Lora {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.begin_task(task, ctx)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.model.learn(&batch.data, batch.epoch, task)
    }

    fn end_task(&mut self, _: &TaskInfo, _: &mut Context) -> Result<()> {
        self.model.end_task()
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.model.predict(images)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.model.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        self.model.state()
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.model.restore(state, tasks, running)
    }

    fn export(&self) -> Result<Exported> {
        self.model.export()
    }
}
