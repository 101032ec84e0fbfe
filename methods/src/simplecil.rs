//! SimpleCIL: class-mean prototypes of frozen features and a cosine classifier (Zhou et al., IJCV
//! 2024). No gradient, one pass.
//!
//! ```sh
//! cilbench run --method simplecil
//! ```

use candle_core::Tensor;
use cilbench::Result;
use cilbench::context::Context;
use cilbench::method::{About, Carry, Method, MethodEntry, Setup};
use cilbench::parts::{FrozenFeatures, Prototypes};
use cilbench::scenario::TaskInfo;
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

impl Method for SimpleCil {
    type Config = Config;
    cilbench::model!(frozen: FrozenFeatures);
    const ABOUT: About = About {
        name: "simplecil",
        version: "1",
        summary: "class-mean prototypes of frozen features, cosine classifier; no training",
        paper: r"@article{zhou2024revisiting,
  title={Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need},
  author={Zhou, Da-Wei and Cai, Zi-Wen and Ye, Han-Jia and Zhan, De-Chuan and Liu, Ziwei},
  journal={IJCV}, year={2024}
}",
        trains: "nothing",
        ..About::DEFAULT
    };

    fn new(_: Config, setup: Setup) -> Result<Self> {
        Ok(Self { frozen: FrozenFeatures::new(setup), prototypes: Prototypes::default() })
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.prototypes.settle(task, self.frozen.dim(), carry)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (features, labels) = self.frozen.of_task(ctx)?;
        self.prototypes.add(task, &features, &labels)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.prototypes.cosines(&self.frozen.of(images)?)
    }
}
