//! APER with adapters: the backbone is adapted to the first task, then class means of its features
//! beside those of the pre-trained one (Zhou et al., IJCV 2024).
//!
//! ```sh
//! cilbench run --method aper-adapter
//! ```
//!
//! In the first task a bottleneck beside the MLP of every block (AdaptFormer) and a head are
//! trained by cross-entropy; then everything is frozen and the head is dropped. The feature of an
//! image is the pre-trained network's CLS token followed by the adapted one's; classes are told
//! apart by the cosine to their mean features, as in simplecil. Gradients are needed in the first
//! task only. The head of the first task is linear; the authors' is a cosine classifier with a
//! trained scale.

use candle_core::Tensor;
use cilbench::backbone::{Backbone, Capability, Pass};
use cilbench::context::Context;
use cilbench::data::View;
use cilbench::method::{
    About, Batch, Carry, Loss, Losses, Method, MethodEntry, Model, Plan, Setup, Trial,
    TrialBackbone,
};
use cilbench::nn;
use cilbench::optim::Optimiser;
use cilbench::parts::{Bottlenecks, Gradients, Heads, OptimiserKind, Prototypes, Training};
use cilbench::scenario::TaskInfo;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<AperAdapter>() }

/// Images a forward pass.
const BATCH: usize = 64;

/// Hyper-parameters of APER with adapters; epochs, rates and batches are those of the first task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    training: Training,
    /// Width of the bottleneck in every block.
    adapter_width: usize,
    /// Factor of the bottleneck's output.
    adapter_scale: f64,
}

impl Default for Config {
    fn default() -> Self {
        let training = Training {
            epochs: 20,
            batch_size: 48,
            optimiser: OptimiserKind::Sgd,
            learning_rate: 0.01,
            weight_decay: 5e-4,
            ..Training::default()
        };
        Self { training, adapter_width: 64, adapter_scale: 0.1 }
    }
}

/// APER with adapters.
pub struct AperAdapter {
    network: Adapted,
    /// The mean feature of every class seen, (2·dim).
    prototypes: Prototypes,
}

/// The pre-trained backbone, the adapters, and the head of the first task.
pub struct Adapted {
    config: Config,
    backbone: Box<dyn Backbone>,
    adapters: Option<Bottlenecks>,
    /// The head of the first task; none once it is over.
    heads: Heads,
    optimiser: Option<Box<dyn Optimiser>>,
}

impl Method for AperAdapter {
    type Config = Config;
    cilbench::model!(network: Adapted);
    const ABOUT: About = About {
        name: "aper-adapter",
        version: "1",
        summary: "adapters trained on the first task, then class means of old and adapted features",
        paper: r"@article{zhou2024revisiting,
  title={Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need},
  author={Zhou, Da-Wei and Cai, Zi-Wen and Ye, Han-Jia and Zhan, De-Chuan and Liu, Ziwei},
  journal={IJCV}, year={2024}
}",
        trains: "adapters and a head in the first task, nothing later",
        presets: include_str!("../presets/aper-adapter.toml"),
        trial: Trial { settings: "adapter_width = 4", backbone: TrialBackbone::Vit },
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.training.check()?;
        let dim = setup.backbone.info().dim;
        if config.adapter_width == 0 || config.adapter_width > dim {
            return Err(Error::usage(format!(
                "adapter_width = {}: must be from 1 to the backbone's width, {dim}",
                config.adapter_width
            )));
        }
        if !(config.adapter_scale.is_finite() && config.adapter_scale > 0.0) {
            return Err(Error::usage(format!(
                "adapter_scale = {}: must be a positive number",
                config.adapter_scale
            )));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::MlpAdapters])?;
        let network = Adapted {
            config,
            backbone: setup.backbone,
            adapters: None,
            heads: Heads::new(dim),
            optimiser: None,
        };
        Ok(Self { network, prototypes: Prototypes::default() })
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        self.network.learn(batch, task)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.network.settle(task, carry)?;
        self.prototypes.settle(task, 2 * self.network.backbone.info().dim, carry)
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            features.push(self.network.features(&batch.images)?);
            labels.extend(batch.host_labels);
            Ok(())
        })?;
        self.prototypes.add(task, &Tensor::cat(&features, 0)?, &labels)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.prototypes.cosines(&self.network.features(images)?)
    }
}

impl Model for Adapted {
    /// Only the first task trains.
    fn plan(&self, task: &TaskInfo) -> Result<Plan> {
        let plan = self.config.training.plan();
        Ok(if task.index == 0 { plan } else { Plan { epochs: 0, view: View::Test, ..plan } })
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if task.index > 0 {
            return Ok(());
        }
        let (width, scale) = (self.config.adapter_width, self.config.adapter_scale);
        let adapters = Bottlenecks::grow(width, scale, self.backbone.as_ref(), carry)?;
        if carry.training() {
            self.heads.grow(task, carry)?;
            let (adapters, head) = (adapters.variables(), self.heads.current_variables());
            self.optimiser = Some(self.config.training.optimiser(adapters, head, carry)?);
        }
        self.adapters = Some(adapters);
        Ok(())
    }

    fn settle(&mut self, _: &TaskInfo, _: &mut Carry) -> Result<()> {
        self.optimiser = None;
        self.heads = Heads::new(self.backbone.info().dim);
        Ok(())
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        let adapters = self.adapters.as_ref().map(|a| a.adapters(Gradients::Detached));
        let pass = Pass { adapters: adapters.as_ref(), cls_tokens: true, ..Pass::default() };
        Ok(self.backbone.forward(images, pass)?.blocks.map(|b| b.detach()))
    }
}

impl Adapted {
    /// A step of the first task on its cross-entropy; nothing later.
    fn learn(&mut self, batch: &Batch, task: &TaskInfo) -> Result<Losses> {
        let adapters = self.adapters.as_ref().map(|a| a.adapters(Gradients::Tracked));
        let (Some(adapters), Some(optimiser)) = (adapters, &mut self.optimiser) else {
            return Ok(Losses::default());
        };
        let pass = Pass { adapters: Some(&adapters), ..Pass::default() };
        let features = self.backbone.forward(&batch.data.images, pass)?.cls;
        let logits = self.heads.current(&features)?;
        let loss = Loss::new("ce", nn::cross_entropy(&logits, &task.within(&batch.data.labels)?)?);
        optimiser.set_learning_rate(self.config.training.rate(batch.epoch));
        optimiser.step(&loss.total().backward()?)?;
        loss.losses()
    }

    /// Features (batch, 2·dim): the pre-trained network's, then the adapted one's.
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let adapters = self.adapters.as_ref().map(|a| a.adapters(Gradients::Detached));
        let plain = self.backbone.forward(images, Pass::default())?.cls;
        let adapted = self
            .backbone
            .forward(images, Pass { adapters: adapters.as_ref(), ..Pass::default() })?
            .cls;
        Ok(Tensor::cat(&[plain, adapted], 1)?.detach())
    }
}
