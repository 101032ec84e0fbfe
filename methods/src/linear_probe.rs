//! A linear probe: the backbone stays as it is, only heads are trained (Alain and Bengio 2017).
//!
//! ```sh
//! cilbench run --method linear-probe
//! ```
//!
//! The default rate, 1e-3 with Adam, is ours.

use candle_core::Tensor;
use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Exported, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig, LoraConfig, Trainable, Training};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<LinearProbe>() }

/// Hyper-parameters of linear-probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    /// Classes of the cross-entropy, and the heads that it trains: the current task's alone, or all that were seen.
    classes: Classes,
}

impl Default for Config {
    fn default() -> Self {
        Self { training: Training { learning_rate: 1e-3, ..Training::default() }, classes: Classes::Current }
    }
}

/// A linear probe.
pub struct LinearProbe {
    learner: Learner,
}

impl Registered for LinearProbe {
    type Config = Config;
    const ABOUT: About = About {
        name: "linear-probe",
        version: "1",
        summary: "a frozen backbone, only heads are trained: what the pre-trained features are worth",
        paper: r"@inproceedings{alain2017understanding,
  title={Understanding Intermediate Layers Using Linear Classifier Probes},
  author={Alain, Guillaume and Bengio, Yoshua},
  booktitle={ICLR Workshops}, year={2017}
}",
        access: Access::Stream,
        trains: "the current task's head",
        presets: include_str!("../presets/linear-probe.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let own = LearnerConfig { training: config.training, trainable: Trainable::Head, lora: LoraConfig::default() };
        Ok(Self { learner: Learner::new(Self::ABOUT.name, own, config.classes, setup)? })
    }
}

impl Method for LinearProbe {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.learner.config().training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
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
        self.learner.restore(state, tasks, running)
    }

    fn export(&self) -> Result<Exported> {
        self.learner.export()
    }
}
