//! Experience replay: a batch of exemplars beside every batch of the task's images, cross-entropy over all classes seen (Chaudhry et al. 2019).
//!
//! ```sh
//! cilbench run --method er
//! ```

use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Carry, Losses, Method, MethodEntry, Model, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig, Replay, ReplayConfig, Want, together};
use cilbench::scenario::{ScenarioFacts, TaskInfo};
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

impl Method for Er {
    type Config = Config;
    type Model = Learner;
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
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let replay = Replay::new(config.replay)?;
        Ok(Self { learner: Learner::new(Self::ABOUT.name, config.learner, Classes::Seen, setup)?, replay })
    }

    fn model(&self) -> &Learner {
        &self.learner
    }

    fn model_mut(&mut self) -> &mut Learner {
        &mut self.learner
    }

    fn check(&self, scenario: &ScenarioFacts) -> Result<()> {
        self.replay.check(scenario)
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.replay.grow(carry)?;
        self.learner.grow(task, carry)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let recalled = self.replay.batch("step", ctx)?;
        let data = together(&batch.data, recalled.as_ref().map(|r| &r.data))?;
        self.learner.learn_from(&data, batch.epoch, task)
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let learner = &self.learner;
        self.replay.end_task(ctx, &|images| Ok(learner.infer(images, Want::Features)?.cls), None)
    }
}
