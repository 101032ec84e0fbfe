//! Sequential fine-tuning of all weights, nothing against forgetting: a lower bound.
//!
//! ```sh
//! cilbench run --method finetune
//! ```
//!
//! The default rates, 1e-5 for the backbone and 1e-3 for the head with Adam, are ours; no paper
//! states this bound for every data set.

use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Batch, Losses, Method, MethodEntry, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig, Trainable, Training};
use cilbench::scenario::TaskInfo;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Finetune>() }

/// Hyper-parameters of finetune.
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
            training: Training {
                learning_rate: 1e-5,
                head_rate_factor: 100.0,
                ..Training::default()
            },
            classes: Classes::Current,
        }
    }
}

/// Sequential fine-tuning.
pub struct Finetune {
    learner: Learner,
}

impl Method for Finetune {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "finetune",
        version: "1",
        summary: "all weights trained task after task, nothing against forgetting: a lower bound",
        paper: r"@article{masana2023class,
  title={Class-Incremental Learning: Survey and Performance Evaluation on Image Classification},
  author={Masana, Marc and Liu, Xialei and Twardowski, Bart{\l}omiej and Menta, Mikel and Bagdanov, Andrew D. and van de Weijer, Joost},
  journal={TPAMI}, year={2023}
}",
        trains: "all weights of the backbone and the current task's head",
        presets: include_str!("../presets/finetune.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        let training = LearnerConfig::without_pairs(config.training, Trainable::All);
        Ok(Self { learner: Learner::new(Self::ABOUT.name, training, config.classes, setup)? })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.learner.learn(batch, task)
    }
}
