//! APER with adapters: the backbone is adapted to the first task, then class means of its features beside those of the pre-trained one (Zhou et al., IJCV 2024).
//!
//! ```sh
//! cilbench run --method aper-adapter
//! ```
//!
//! In the first task a bottleneck beside the MLP of every block (AdaptFormer) and a head are trained by cross-entropy; then everything is frozen and the head is
//! dropped. The feature of an image is the pre-trained network's CLS token followed by the adapted one's; classes are told apart by the cosine to their mean
//! features, as in simplecil. Gradients are needed in the first task only. The head of the first task is linear; the authors' is a cosine classifier with a trained scale.

use candle_core::{DType, Device, Tensor};
use cilbench::backbone::{Backbone, Capability, Pass};
use cilbench::context::Context;
use cilbench::data::View;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::nn::{self, Optimiser};
use cilbench::parts::{Bottlenecks, Heads, OptimiserKind, Prototypes, Training, restore_optimiser, save_optimiser};
use cilbench::scenario::TaskInfo;
use cilbench::state::State;
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
    config: Config,
    backbone: Box<dyn Backbone>,
    adapters: Option<Bottlenecks>,
    /// The head of the first task; none once it is over.
    heads: Heads,
    optimiser: Option<Box<dyn Optimiser>>,
    /// The mean feature of every class seen, (2·dim).
    prototypes: Prototypes,
    device: Device,
    dtype: DType,
}

impl Registered for AperAdapter {
    type Config = Config;
    const ABOUT: About = About {
        name: "aper-adapter",
        version: "1",
        summary: "adapters trained on the first task, then class means of old and adapted features",
        paper: r"@article{zhou2024revisiting,
  title={Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need},
  author={Zhou, Da-Wei and Cai, Zi-Wen and Ye, Han-Jia and Zhan, De-Chuan and Liu, Ziwei},
  journal={IJCV}, year={2024}
}",
        access: Access::Stream,
        trains: "adapters and a head in the first task, nothing later",
        presets: include_str!("../presets/aper-adapter.toml"),
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.training.check()?;
        let dim = setup.backbone.info().dim;
        if config.adapter_width == 0 || config.adapter_width > dim {
            return Err(Error::usage(format!("adapter_width = {}: must be from 1 to the backbone's width, {dim}", config.adapter_width)));
        }
        if !(config.adapter_scale.is_finite() && config.adapter_scale > 0.0) {
            return Err(Error::usage(format!("adapter_scale = {}: must be a positive number", config.adapter_scale)));
        }
        setup.backbone.require(Self::ABOUT.name, &[Capability::MlpAdapters])?;
        let Setup { backbone, device, dtype } = setup;
        Ok(Self {
            config,
            backbone,
            adapters: None,
            heads: Heads::new(dim),
            optimiser: None,
            prototypes: Prototypes::default(),
            device,
            dtype,
        })
    }
}

impl AperAdapter {
    /// Features (batch, 2·dim): the pre-trained network's, then the adapted one's.
    fn features(&self, images: &Tensor) -> Result<Tensor> {
        let adapters = self.adapters.as_ref().map(|a| a.adapters(true));
        let plain = self.backbone.forward(images, Pass::default())?.cls;
        let adapted = self.backbone.forward(images, Pass { adapters: adapters.as_ref(), ..Pass::default() })?.cls;
        Ok(Tensor::cat(&[plain, adapted], 1)?.detach())
    }

    fn new_optimiser(&self) -> Result<Box<dyn Optimiser>> {
        self.config.training.optimiser(self.adapters.iter().flat_map(Bottlenecks::vars).collect(), self.heads.current_vars())
    }
}

impl Method for AperAdapter {
    fn plan(&self, task: &TaskInfo) -> Plan {
        let plan = self.config.training.plan();
        if task.index == 0 { plan } else { Plan { epochs: 0, view: View::Test, ..plan } }
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        if task.index == 0 {
            let (width, scale) = (self.config.adapter_width, self.config.adapter_scale);
            self.adapters = Some(Bottlenecks::new(width, scale, self.backbone.as_ref(), ctx)?);
            self.heads.grow(task, ctx)?;
            self.optimiser = Some(self.new_optimiser()?);
        }
        Ok(())
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        let adapters = self.adapters.as_ref().map(|a| a.adapters(false));
        let (Some(adapters), Some(optimiser)) = (adapters, &mut self.optimiser) else { return Ok(Losses(Vec::new())) };
        let features = self.backbone.forward(&batch.data.images, Pass { adapters: Some(&adapters), ..Pass::default() })?.cls;
        let ce = nn::cross_entropy(&self.heads.current(&features)?, &task.within(&batch.data.labels)?)?;
        optimiser.set_learning_rate(self.config.training.rate(batch.epoch));
        optimiser.step(&ce.backward()?)?;
        Losses::read(&[("ce", &ce)])
    }

    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.optimiser = None;
        self.heads = Heads::new(self.backbone.info().dim);
        let (mut features, mut labels) = (Vec::new(), Vec::new());
        ctx.pass(View::Test, BATCH, |batch| {
            features.push(self.features(&batch.images)?);
            labels.extend(batch.classes);
            Ok(())
        })?;
        self.prototypes.add(task, &Tensor::cat(&features, 0)?, &labels)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.prototypes.cosines(&self.features(images)?)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        if !self.backbone.supports(Capability::ClsTokens) {
            return Ok(None);
        }
        let adapters = self.adapters.as_ref().map(|a| a.adapters(true));
        let pass = Pass { adapters: adapters.as_ref(), cls_tokens: true, ..Pass::default() };
        Ok(self.backbone.forward(images, pass)?.blocks.map(|b| b.detach()))
    }

    fn state(&self) -> Result<State> {
        let mut state = State::new();
        if let Some(adapters) = &self.adapters {
            adapters.save(&mut state)?;
        }
        self.heads.save(&mut state)?;
        save_optimiser(self.optimiser.as_deref(), &mut state)?;
        self.prototypes.save(&mut state)?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.optimiser = None;
        if tasks.is_empty() {
            return Ok(());
        }
        let (dtype, device) = (self.dtype, self.device.clone());
        let (width, scale) = (self.config.adapter_width, self.config.adapter_scale);
        self.adapters = Some(Bottlenecks::restore(width, scale, self.backbone.as_ref(), state, dtype, &device)?);
        if running && tasks.len() == 1 {
            self.heads.restore(state, tasks, dtype, &device)?;
            let mut optimiser = self.new_optimiser()?;
            restore_optimiser(optimiser.as_mut(), state, &device)?;
            self.optimiser = Some(optimiser);
        }
        let finished = tasks[..tasks.len() - usize::from(running)].iter().flat_map(|t| &t.classes).max().map_or(0, |c| c + 1);
        self.prototypes.restore(state, finished, dtype, &device)
    }
}
