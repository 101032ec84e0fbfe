//! Nearest class mean on frozen features: the smallest complete method, written as a third party would.
//!
//! Naming the crate is enough to register it:
//!
//! ```
//! use nearest_mean as _;
//! assert!(cilbench::method::find("nearest-mean").is_ok());
//! ```

use candle_core::{D, DType, Device, Tensor};
use cilbench::backbone::{Backbone, Pass};
use cilbench::context::Context;
use cilbench::data::View;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::scenario::TaskInfo;
use cilbench::state::{Kind, State};
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<NearestMean>() }

/// Hyper-parameters.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Images a forward pass.
    batch_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { batch_size: 64 }
    }
}

/// The mean feature of every class seen, (classes, dim).
pub struct NearestMean {
    config: Config,
    backbone: Box<dyn Backbone>,
    means: Vec<Tensor>,
    device: Device,
    dtype: DType,
}

impl Registered for NearestMean {
    type Config = Config;
    const ABOUT: About = About {
        name: "nearest-mean",
        version: "1",
        summary: "nearest class mean on frozen features, by cosine",
        paper: "",
        access: Access::Stream,
        trains: "nothing",
        presets: "",
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if config.batch_size == 0 {
            return Err(Error::usage("batch_size = 0: a pass needs at least one image"));
        }
        Ok(Self { config, backbone: setup.backbone, means: Vec::new(), device: setup.device, dtype: setup.dtype })
    }
}

impl NearestMean {
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.backbone.forward(images, Pass::default())?.cls;
        Ok(x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
    }
}

impl Method for NearestMean {
    fn plan(&self, _: &TaskInfo) -> Plan {
        Plan { epochs: 0, batch_size: self.config.batch_size, view: View::Test } // one pass of its own, in end_task
    }

    fn begin_task(&mut self, _: &TaskInfo, _: &mut Context) -> Result<()> {
        Ok(())
    }

    fn observe(&mut self, _: &Batch, _: &TaskInfo, _: &mut Context) -> Result<Losses> {
        Ok(Losses(Vec::new()))
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, self.config.batch_size, |batch| {
            features.push(self.features(&batch.images)?);
            labels.extend(batch.classes);
            Ok(())
        })?;
        let features = Tensor::cat(&features, 0)?;
        for class in &task.classes {
            let rows: Vec<u32> = (0..labels.len() as u32).filter(|i| labels[*i as usize] == *class as i64).collect();
            self.means.push(features.index_select(&Tensor::new(rows, &self.device)?, 0)?.mean(0)?);
        }
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.features(images)?.matmul(&Tensor::stack(&self.means, 0)?.t()?)?)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })?.blocks)
    }

    fn state(&self) -> Result<State> {
        let mut state = State::new();
        self.means.iter().enumerate().try_for_each(|(class, mean)| state.put(format!("mean.{class}"), Kind::Statistic, mean))?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        let finished = &tasks[..tasks.len() - usize::from(running)];
        let classes: usize = finished.iter().map(|t| t.classes.len()).sum();
        self.means = (0..classes).map(|c| state.tensor(&format!("mean.{c}"), self.dtype, &self.device)).collect::<Result<_>>()?;
        Ok(())
    }
}
