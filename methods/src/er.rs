//! Experience replay: a batch of exemplars beside every batch of the task's images, cross-entropy
//! over all classes seen (Chaudhry et al. 2019).
//!
//! ```sh
//! cilbench run --method er
//! ```

use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Setup};
use cilbench::parts::{LearnerConfig, Rehearsal, ReplayConfig, together};
use cilbench::scenario::TaskInfo;
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
    model: Rehearsal,
}

impl Method for Er {
    type Config = Config;
    cilbench::model!(model: Rehearsal);
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
        Ok(Self { model: Rehearsal::new(Self::ABOUT.name, config.learner, config.replay, setup)? })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let recalled = self.model.replay.batch("step", ctx)?;
        let data = together(&batch.data, recalled.as_ref().map(|r| &r.data))?;
        self.model.learner.learn_from(&data, batch.epoch, task)
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.choose(ctx, None)
    }
}
