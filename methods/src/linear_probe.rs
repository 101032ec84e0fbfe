//! A linear probe: the backbone stays as it is, only heads are trained (Alain and Bengio 2017).
//!
//! ```sh
//! cilbench run --method linear-probe
//! ```
//!
//! The default rate, 1e-3 with Adam, is ours.

use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Batch, Losses, Method, MethodEntry, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig, Trainable, Training};
use cilbench::scenario::TaskInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<LinearProbe>() }

/// Hyper-parameters of linear-probe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    /// Classes of the cross-entropy, and the heads that it trains: the current task's alone, or all
    /// that were seen.
    classes: Classes,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            training: Training { learning_rate: 1e-3, ..Training::default() },
            classes: Classes::Current,
        }
    }
}

/// A linear probe.
pub struct LinearProbe {
    learner: Learner,
}

impl Method for LinearProbe {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "linear-probe",
        version: "1",
        summary: "a frozen backbone, only heads are trained: what the pre-trained features are worth",
        paper: r"@inproceedings{alain2017understanding,
  title={Understanding Intermediate Layers Using Linear Classifier Probes},
  author={Alain, Guillaume and Bengio, Yoshua},
  booktitle={ICLR Workshops}, year={2017}
}",
        trains: "the current task's head",
        presets: include_str!("../presets/linear-probe.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let training = LearnerConfig::without_pairs(config.training, Trainable::Head);
        Ok(Self { learner: Learner::new(Self::ABOUT.name, training, config.classes, setup)? })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(batch, task)
    }
}
