//! my-method: a linear head per task on the features of a frozen backbone, trained by gradient
//! descent. It is a beginning: change what you like.

use candle_core::Tensor;
use cilbench::backbone::{Backbone, Pass};
use cilbench::context::Context;
use cilbench::method::{
    About, Batch, Carry, Loss, Losses, Method, MethodEntry, Model, Plan, Setup,
};
use cilbench::nn;
use cilbench::optim::Optimiser;
use cilbench::parts::{Heads, Training};
use cilbench::scenario::TaskInfo;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<MyMethod>() }

/// Hyper-parameters: each with a default and a doc comment, which `cilbench describe` shows.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Epochs, batches and the optimiser.
    #[serde(flatten)]
    training: Training,
    /// The loss is multiplied by this.
    loss_weight: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            training: Training { epochs: 5, learning_rate: 1e-2, ..Training::default() },
            loss_weight: 1.0,
        }
    }
}

/// The method: a network, and what it is trained for.
pub struct MyMethod {
    config: Config,
    network: Network,
}

/// A frozen backbone, and the heads of all tasks.
pub struct Network {
    backbone: Box<dyn Backbone>,
    heads: Heads,
    training: Training,
    /// Within a task, what trains its head.
    optimiser: Option<Box<dyn Optimiser>>,
}

impl Method for MyMethod {
    type Config = Config;
    cilbench::model!(network: Network);
    const ABOUT: About = About {
        name: "my-method",
        version: "1", // raise it whenever results change by more than rounding
        summary: "a linear head per task on frozen features",
        trains: "the current task's head",
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.training.check()?;
        if !(config.loss_weight > 0.0 && config.loss_weight.is_finite()) {
            return Err(Error::usage(format!(
                "loss_weight = {}: must be positive",
                config.loss_weight
            )));
        }
        let heads = Heads::new(setup.backbone.info().dim);
        let training = config.training.clone();
        Ok(Self {
            config,
            network: Network { backbone: setup.backbone, heads, training, optimiser: None },
        })
    }

    /// The loss of a step. Add a term with `.add("name", weight, term)?`.
    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        let logits = self.network.heads.current(&self.network.features(&batch.data.images)?)?;
        let ce = (nn::cross_entropy(&logits, &task.within(&batch.data.labels)?)?
            * self.config.loss_weight)?;
        self.network.step(Loss::new("ce", ce), batch.epoch)
    }
}

impl Network {
    /// Features (batch, dim).
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.backbone.forward(images, Pass::default())?.cls)
    }

    fn step(&mut self, loss: Loss, epoch: usize) -> Result<Losses> {
        let Some(optimiser) = &mut self.optimiser else {
            return Err(Error::Protocol("a step outside a task".into()));
        };
        optimiser.set_learning_rate(self.training.rate(epoch));
        optimiser.step(&loss.total().backward()?)?;
        loss.losses()
    }
}

impl Model for Network {
    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(self.training.plan())
    }

    /// Everything that is carried is declared here, once: a new task's head is drawn from the
    /// harness' stream, and a run that resumes gets the saved one.
    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.heads.grow(task, carry)?;
        if carry.training() {
            let head = self.heads.current_variables();
            self.optimiser = Some(self.training.optimiser(Vec::new(), head, carry)?);
        }
        Ok(())
    }

    fn settle(&mut self, _: &TaskInfo, _: &mut Carry) -> Result<()> {
        self.optimiser = None;
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.heads.all(&self.features(images)?)?.detach())
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })?.blocks)
    }
}
