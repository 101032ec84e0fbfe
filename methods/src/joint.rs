//! Joint training on all classes seen so far: an upper bound.
//!
//! ```sh
//! cilbench run --method joint
//! ```
//!
//! At every task the pre-trained network is trained anew on the training images of all tasks up to
//! it, with cross-entropy over all classes, so that each row of the accuracy matrix is the bound
//! for that many tasks. The whole run thus costs (T+1)/2 times its last task.

use cilbench::Result;
use cilbench::backbone::{Backbone, Capability};
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Carry, Losses, Method, MethodEntry, Model, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig};
use cilbench::scenario::TaskInfo;
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

impl Method for Joint {
    type Config = Config;
    cilbench::model!(learner: Learner);
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
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        setup.backbone.require(Self::ABOUT.name, &[Capability::FullTraining])?;
        let pristine = setup.backbone.snapshot()?;
        Ok(Self {
            pristine,
            learner: Learner::new(Self::ABOUT.name, config.learner, Classes::Seen, setup)?,
            tasks: Vec::new(),
        })
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.learner.restart(self.pristine.snapshot()?, &self.tasks, carry)?;
        self.tasks.push(task.clone());
        self.learner.grow(task, carry)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(batch, task)
    }
}
