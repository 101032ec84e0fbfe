//! Joint training on all classes seen so far: an upper bound.
//!
//! ```sh
//! cilbench run --method joint
//! ```
//!
//! At every task the pre-trained network is trained anew on the training images of all tasks up to it, with cross-entropy over all classes, so that each row of the
//! accuracy matrix is the bound for that many tasks. The whole run thus costs (T+1)/2 times its last task.

use candle_core::Tensor;
use cilbench::Result;
use cilbench::backbone::{Backbone, Capability};
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Joint>() }

/// Hyper-parameters of joint training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    learner: LearnerConfig,
}

/// Joint training.
pub struct Joint {
    /// The network that every task begins with.
    pristine: Box<dyn Backbone>,
    learner: Learner,
    /// The tasks begun so far.
    tasks: Vec<TaskInfo>,
}

impl Registered for Joint {
    type Config = Config;
    const ABOUT: About = About {
        name: "joint",
        version: "1",
        summary: "trained anew at every task on the images of all tasks so far: an upper bound",
        paper: r"@article{masana2023class,
  title={Class-Incremental Learning: Survey and Performance Evaluation on Image Classification},
  author={Masana, Marc and Liu, Xialei and Twardowski, Bart{\l}omiej and Menta, Mikel and Bagdanov, Andrew D. and van de Weijer, Joost},
  journal={TPAMI}, year={2023}
}",
        access: Access::All,
        trains: "one LoRA pair, or all weights, or nothing of the backbone; all heads",
        presets: include_str!("../presets/joint.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        setup.backbone.require(Self::ABOUT.name, &[Capability::FullTraining])?;
        let pristine = setup.backbone.snapshot()?;
        Ok(Self { pristine, learner: Learner::new(Self::ABOUT.name, config.learner, Classes::Seen, setup)?, tasks: Vec::new() })
    }
}

impl Method for Joint {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.learner.config().training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.learner.restart(self.pristine.snapshot()?, &self.tasks, ctx)?;
        self.tasks.push(task.clone());
        self.learner.begin_task(task, ctx)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(&batch.data, batch.epoch, task)
    }

    fn end_task(&mut self, _: &TaskInfo, _: &mut Context) -> Result<()> {
        self.learner.end_task()
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.learner.predict(images)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.learner.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        self.learner.state()
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.tasks = tasks.to_vec();
        self.learner.restore_with(state, tasks, tasks.len().min(1), running)
    }

    fn export(&self) -> Result<Exported> {
        self.learner.export()
    }
}
