//! SimpleCIL: class-mean prototypes of frozen features and a cosine classifier (Zhou et al., IJCV 2024). No gradient, one pass.
//!
//! ```sh
//! cilbench run --method simplecil
//! ```

use candle_core::Tensor;
use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::parts::{FrozenFeatures, Prototypes};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<SimpleCil>() }

/// SimpleCIL has no hyper-parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {}

/// SimpleCIL.
pub struct SimpleCil {
    frozen: FrozenFeatures,
    prototypes: Prototypes,
}

impl Registered for SimpleCil {
    type Config = Config;
    const ABOUT: About = About {
        name: "simplecil",
        version: "1",
        summary: "class-mean prototypes of frozen features, cosine classifier; no training",
        paper: r"@article{zhou2024revisiting,
  title={Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need},
  author={Zhou, Da-Wei and Cai, Zi-Wen and Ye, Han-Jia and Zhan, De-Chuan and Liu, Ziwei},
  journal={IJCV}, year={2024}
}",
        access: Access::Stream,
        trains: "nothing",
        presets: "",
    };

    fn new(_: Config, setup: Setup) -> Result<Self> {
        Ok(Self { frozen: FrozenFeatures::new(setup), prototypes: Prototypes::default() })
    }
}

impl Method for SimpleCil {
    fn plan(&self, _: &TaskInfo) -> Plan {
        FrozenFeatures::plan()
    }

    fn begin_task(&mut self, _: &TaskInfo, _: &mut Context) -> Result<()> {
        Ok(())
    }

    fn observe(&mut self, _: &Batch, _: &TaskInfo, _: &mut Context) -> Result<Losses> {
        Ok(Losses(Vec::new()))
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (features, labels) = self.frozen.of_task(ctx)?;
        self.prototypes.add(task, &features, &labels)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.prototypes.cosines(&self.frozen.of(images)?)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.frozen.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        let mut state = State::new();
        self.prototypes.save(&mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        let (dtype, device) = self.frozen.placement();
        self.prototypes.restore(state, FrozenFeatures::classes(tasks, running), dtype, device)
    }
}
