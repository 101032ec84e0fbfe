//! Experience replay: a batch of exemplars beside every batch of the task's images, cross-entropy over all classes seen (Chaudhry et al. 2019).
//!
//! ```sh
//! cilbench run --method er
//! ```

use candle_core::Tensor;
use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig, Replay, ReplayConfig, together};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Er>() }

/// Hyper-parameters of experience replay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    learner: LearnerConfig,
    #[serde(flatten)]
    replay: ReplayConfig,
}

/// Experience replay.
pub struct Er {
    learner: Learner,
    replay: Replay,
}

impl Registered for Er {
    type Config = Config;
    const ABOUT: About = About {
        name: "er",
        version: "1",
        summary: "experience replay: exemplars beside every batch, cross-entropy over all classes seen",
        paper: r"@article{chaudhry2019tiny,
  title={On Tiny Episodic Memories in Continual Learning},
  author={Chaudhry, Arslan and Rohrbach, Marcus and Elhoseiny, Mohamed and Ajanthan, Thalaiyasingam and Dokania, Puneet K. and Torr, Philip H. S. and Ranzato, Marc'Aurelio},
  journal={arXiv:1902.10486}, year={2019}
}",
        access: Access::Memory,
        trains: "the current task's LoRA pair, or all weights, or nothing of the backbone; all heads",
        presets: include_str!("../presets/er.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let replay = Replay::new(config.replay)?;
        Ok(Self { learner: Learner::new(Self::ABOUT.name, config.learner, Classes::Seen, setup)?, replay })
    }
}

impl Method for Er {
    fn check(&self, classes: usize) -> Result<()> {
        self.replay.check(classes)
    }

    fn plan(&self, _: &TaskInfo) -> Plan {
        self.learner.config().training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.learner.begin_task(task, ctx)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let recalled = self.replay.batch("step", ctx)?;
        let data = together(&batch.data, recalled.as_ref().map(|r| &r.data))?;
        self.learner.learn(&data, batch.epoch, task)
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.learner.end_task()?;
        let learner = &self.learner;
        self.replay.end_task(ctx, &|images| Ok(learner.infer(images, false)?.cls), None)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.learner.predict(images)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.learner.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        let mut state = self.learner.state()?;
        self.replay.save(&mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.learner.restore(state, tasks, running)?;
        self.replay.restore(state)
    }

    fn export(&self) -> Result<Exported> {
        self.learner.export()
    }
}
