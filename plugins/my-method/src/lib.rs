//! my-method: a linear head for each task on the features of a frozen backbone, trained by gradient descent. A beginning: change what you like.

use candle_core::{DType, Device, Tensor};
use cilbench::backbone::{Backbone, Pass};
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::nn::{self, Optimiser};
use cilbench::parts::{Heads, Training, restore_optimiser, save_optimiser};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
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
        Self { training: Training { epochs: 5, learning_rate: 1e-2, ..Training::default() }, loss_weight: 1.0 }
    }
}

/// A frozen backbone, and the heads of all tasks.
pub struct MyMethod {
    config: Config,
    backbone: Box<dyn Backbone>,
    heads: Heads,
    /// Within a task, what trains its head.
    optimiser: Option<Box<dyn Optimiser>>,
    device: Device,
    dtype: DType,
}

impl Registered for MyMethod {
    type Config = Config;
    const ABOUT: About = About {
        name: "my-method",
        version: "1", // raise it whenever results change by more than rounding
        summary: "a linear head for each task on frozen features",
        paper: "",
        access: Access::Stream,
        trains: "the current task's head",
        presets: "",
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.training.check()?;
        if !(config.loss_weight > 0.0 && config.loss_weight.is_finite()) {
            return Err(Error::usage(format!("loss_weight = {}: must be positive", config.loss_weight)));
        }
        let Setup { backbone, device, dtype, .. } = setup;
        let heads = Heads::new(backbone.info().dim);
        Ok(Self { config, backbone, heads, optimiser: None, device, dtype })
    }
}

impl MyMethod {
    /// Features (batch, dim).
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.backbone.forward(images, Pass::default())?.cls)
    }

    fn new_optimiser(&self) -> Result<Box<dyn Optimiser>> {
        self.config.training.optimiser(Vec::new(), self.heads.current_vars())
    }
}

impl Method for MyMethod {
    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.heads.grow(task, ctx)?; // initial weights are drawn from the harness' stream
        self.optimiser = Some(self.new_optimiser()?);
        Ok(())
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        let logits = self.heads.current(&self.features(&batch.data.images)?)?;
        let ce = (nn::cross_entropy(&logits, &task.within(&batch.data.labels)?)? * self.config.loss_weight)?;
        let Some(optimiser) = &mut self.optimiser else { return Err(Error::Protocol("a step outside a task".into())) };
        optimiser.set_learning_rate(self.config.training.rate(batch.epoch));
        optimiser.step(&ce.backward()?)?;
        Losses::read(&[("ce", &ce)])
    }

    fn end_task(&mut self, _: &TaskInfo, _: &mut Context) -> Result<()> {
        self.optimiser = None;
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.heads.all(&self.features(images)?)?.detach())
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })?.blocks)
    }

    fn state(&self) -> Result<State> {
        let mut state = State::new();
        self.heads.save(&mut state)?;
        save_optimiser(self.optimiser.as_deref(), &mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.heads.restore(state, tasks, self.dtype, &self.device)?;
        self.optimiser = None;
        if running {
            let mut optimiser = self.new_optimiser()?;
            restore_optimiser(optimiser.as_mut(), state, &self.device)?;
            self.optimiser = Some(optimiser);
        }
        Ok(())
    }
}
