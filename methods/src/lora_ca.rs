//! Sequential LoRA with classifier alignment by plain cross-entropy.
//!
//! ```sh
//! cilbench run --method lora-ca
//! ```
//!
//! The relation-free baseline of SR²-LoRA (arXiv 2605.07420): the heads are realigned on features drawn from class statistics, the backbone drifts.

use candle_core::Tensor;
use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{Alignment, AlignmentLoss, ClassStatistics, Learner, LoraConfig, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
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
    config: Config,
    model: Learner,
    statistics: ClassStatistics,
}

impl Registered for LoraCa {
    type Config = Config;
    const ABOUT: About = About {
        name: "lora-ca",
        version: "2",
        summary: "sequential LoRA, heads realigned on features drawn from class statistics",
        paper: r"@inproceedings{zhang2023slca,
  title={{SLCA}: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained Model},
  author={Zhang, Gengwei and Wang, Liyuan and Kang, Guoliang and Chen, Ling and Wei, Yunchao},
  booktitle={ICCV}, year={2023}
}",
        access: Access::Stream,
        trains: "the current task's LoRA pair and head; after the task all heads",
        presets: include_str!("../presets/lora-ca.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let model = Learner::lora(Self::ABOUT.name, config.training.clone(), config.lora.clone(), setup)?;
        Ok(Self { config, model, statistics: ClassStatistics::default() })
    }
}

impl Method for LoraCa {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.begin_task(task, ctx)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.model.learn(&batch.data, batch.epoch, task)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.end_task()?;
        self.model.fit_statistics(&mut self.statistics, task, ctx)?;
        if task.index > 0 {
            let Training { batch_size, weight_decay, .. } = self.config.training;
            Alignment { loss: AlignmentLoss::CrossEntropy, batch_size, weight_decay }.run(&self.model.heads, &self.statistics, ctx)?;
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
