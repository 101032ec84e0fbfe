//! Nearest class mean on frozen features: the smallest complete method, written as a third party
//! would.
//!
//! Naming the crate is enough to register it:
//!
//! ```
//! use nearest_mean as _;
//! assert!(cilbench::method::find("nearest-mean").is_ok());
//! ```

use candle_core::{D, Tensor};
use cilbench::backbone::{Backbone, Pass};
use cilbench::context::Context;
use cilbench::data::View;
use cilbench::method::{About, Carry, Fresh, Method, MethodEntry, Model, Plan, Setup, Value};
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<NearestMean>() }

/// Hyper-parameters.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Images per forward pass.
    batch_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { batch_size: 64 }
    }
}

/// Nearest class mean.
pub struct NearestMean {
    features: UnitFeatures,
    /// The mean feature (dim) of every class seen.
    means: Vec<Value>,
}

/// Features of length one of a frozen backbone.
pub struct UnitFeatures {
    backbone: Box<dyn Backbone>,
    batch_size: usize,
}

impl Method for NearestMean {
    type Config = Config;
    cilbench::model!(features: UnitFeatures);
    const ABOUT: About = About {
        name: "nearest-mean",
        summary: "nearest class mean on frozen features, by cosine",
        trains: "nothing",
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if config.batch_size == 0 {
            return Err(Error::usage("batch_size = 0: a pass needs at least one image"));
        }
        let features = UnitFeatures { backbone: setup.backbone, batch_size: config.batch_size };
        Ok(Self { features, means: Vec::new() })
    }

    /// Declares the means of the task's classes. A run that resumes gets the saved ones here.
    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        let dim = self.features.backbone.info().dim;
        for class in &task.classes {
            self.means.push(carry.value(
                format!("mean.{class}"),
                Kind::Statistic,
                &[dim],
                Fresh::Zeros,
            )?);
        }
        Ok(())
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, self.features.batch_size, |batch| {
            features.push(self.features.of(&batch.images)?);
            labels.extend(batch.host_labels);
            Ok(())
        })?;
        let features = Tensor::cat(&features, 0)?;
        for class in &task.classes {
            let rows: Vec<u32> =
                (0..).zip(&labels).filter(|(_, l)| **l == *class as i64).map(|(i, _)| i).collect();
            let rows = features.index_select(&Tensor::new(rows, ctx.device())?, 0)?;
            self.means[*class].replace(&rows.mean(0)?)?;
        }
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let means =
            self.means.iter().map(|m| Ok(m.get()?.as_ref().clone())).collect::<Result<Vec<_>>>()?;
        Ok(self.features.of(images)?.matmul(&Tensor::stack(&means, 0)?.t()?)?)
    }
}

impl UnitFeatures {
    fn of(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.backbone.forward(images, Pass::default())?.cls;
        Ok(x.broadcast_div(&x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?)
    }
}

impl Model for UnitFeatures {
    /// No epochs: one pass of the method's own, in `end_task`.
    fn plan(&self, _: &TaskInfo) -> Result<Plan> {
        Ok(Plan::epochs(0, self.batch_size, View::Test))
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backbone.forward(images, Pass { cls_tokens: true, ..Pass::default() })?.blocks)
    }
}
