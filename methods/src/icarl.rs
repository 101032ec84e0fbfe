//! iCaRL: exemplars by herding, distillation, and classification by the nearest mean of exemplars
//! (Rebuffi et al., CVPR 2017).
//!
//! ```sh
//! cilbench run --method icarl
//! ```
//!
//! Each step takes a batch of the task's images and one of exemplars (the paper shuffles both into
//! one set). The loss is the paper's: a sigmoid for every class seen, whose targets are the labels
//! for the task's classes and the outputs of the model before the task for older ones, summed over
//! classes (common code takes their mean, which is another learning rate). With `distillation =
//! "softmax"` it is cross-entropy plus distillation at temperature 2, as many later comparisons
//! have it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::Tensor;
use cilbench::context::Context;
use cilbench::method::{
    About, Access, Batch, Carry, Fresh, Loss, Losses, Method, MethodEntry, Model, Setup, Value,
};
use cilbench::nn;
use cilbench::parts::{
    LearnerConfig, Rehearsal, Replay, ReplayConfig, Selection, Teacher, Want, together, unit,
};
use cilbench::scenario::TaskInfo;
use cilbench::state::Kind;
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Icarl>() }

const TEMPERATURE: f64 = 2.0;

/// How the old model is held on to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distillation {
    /// A sigmoid for every class, with the old model's outputs as targets of old classes (the
    /// paper).
    #[default]
    Binary,
    /// Cross-entropy over all classes seen plus softmax distillation of the old ones at temperature
    /// 2.
    Softmax,
}

/// Hyper-parameters of iCaRL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    #[serde(flatten)]
    learner: LearnerConfig,
    #[serde(flatten)]
    replay: ReplayConfig,
    /// How the old model is held on to.
    distillation: Distillation,
}

/// iCaRL.
pub struct Icarl {
    config: Config,
    model: Rehearsal,
    /// The model before the running task.
    teacher: Option<Teacher>,
    /// The mean of each class's exemplars, features and mean of length one, (dim).
    means: BTreeMap<i64, Value>,
}

impl Method for Icarl {
    type Config = Config;
    cilbench::model!(model: Rehearsal);
    const ABOUT: About = About {
        name: "icarl",
        version: "1",
        summary: "exemplars by herding, distillation, nearest mean of exemplars",
        paper: r"@inproceedings{rebuffi2017icarl,
  title={{iCaRL}: Incremental Classifier and Representation Learning},
  author={Rebuffi, Sylvestre-Alvise and Kolesnikov, Alexander and Sperl, Georg and Lampert, Christoph H.},
  booktitle={CVPR}, year={2017}
}",
        access: Access::Memory,
        trains: "the current task's LoRA pair, or all weights, or nothing of the backbone; all heads",
        presets: include_str!("../presets/icarl.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if config.replay.selection == Selection::Reservoir {
            return Err(Error::usage(
                "selection = \"reservoir\" may leave a class without an exemplar, and icarl classifies by them: use herding or random",
            ));
        }
        let model =
            Rehearsal::new(Self::ABOUT.name, config.learner.clone(), config.replay.clone(), setup)?;
        Ok(Self { config, model, teacher: None, means: BTreeMap::new() })
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        if carry.training() {
            self.teacher = Teacher::grow(&self.model.learner, carry)?;
        }
        self.model.grow(task, carry)
    }

    fn observe(&mut self, batch: &Batch, _: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let recalled = self.model.replay.batch("step", ctx)?;
        let data = together(&batch.data, recalled.as_ref().map(|r| &r.data))?;
        let logits = self
            .model
            .learner
            .heads
            .all(&self.model.learner.forward(&data.images, Want::Features)?.cls)?;
        let (learned, kept) = self.losses(&logits, &data.labels, &data.images)?;
        self.model
            .learner
            .step(Loss::new("ce", learned).add_some("distillation", 1.0, kept)?, batch.epoch)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.teacher = None;
        let dim = self.model.learner.backbone.info().dim;
        for class in &task.classes {
            if let Entry::Vacant(new) = self.means.entry(*class as i64) {
                let name = format!("mean.{class}");
                new.insert(carry.value(name, Kind::Statistic, &[dim], Fresh::Zeros)?);
            }
        }
        self.model.settle(task, carry)
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.model.choose(ctx, None)?;
        let learner = &self.model.learner;
        // The model has changed, so have the exemplars' features: all means are taken anew.
        let mut sums: BTreeMap<i64, Tensor> = BTreeMap::new();
        Replay::read_all(ctx, |batch| {
            let rows = unit(&learner.infer(&batch.images, Want::Features)?.cls)?;
            for (i, class) in batch.host_labels.iter().enumerate() {
                let row = rows.get(i)?;
                let sum = sums.remove(class).map_or(Ok(row.clone()), |sum| sum + row)?;
                sums.insert(*class, sum);
            }
            Ok(())
        })?;
        for (class, mean) in &self.means {
            let sum = sums.get(class);
            let sum = sum.ok_or_else(|| {
                Error::Protocol(format!("class {class} has no exemplar, so no mean"))
            })?;
            mean.replace(&unit(sum)?)?;
        }
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let means: Vec<Tensor> =
            self.means.values().map(|m| Ok(m.get()?.as_ref().clone())).collect::<Result<_>>()?;
        Ok(unit(&self.model.learner.infer(images, Want::Features)?.cls)?
            .matmul(&Tensor::stack(&means, 0)?.t()?)?)
    }
}

impl Icarl {
    /// The loss terms of logits (batch, classes) for labels (batch): what is learned, and what is
    /// kept.
    fn losses(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        images: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let classes = logits.dim(1)?;
        let old =
            self.teacher.as_ref().map(|t| t.logits(&self.model.learner, images)).transpose()?;
        let known = old.as_ref().map_or(Ok(0), |o| o.dim(1))?;
        let kept = logits.narrow(1, 0, known)?;
        match self.config.distillation {
            Distillation::Softmax => {
                let kd = old.map(|old| nn::distillation(&kept, &old, TEMPERATURE)).transpose()?;
                Ok((nn::cross_entropy(logits, labels)?, kd))
            }
            Distillation::Binary => {
                // Where tasks share their classes, the old model's outputs are all there is to hold
                // on to, and labels have a term of their own.
                let first = if known < classes { known } else { 0 };
                let hot = one_hot(labels, classes)?.to_dtype(logits.dtype())?.narrow(
                    1,
                    first,
                    classes - first,
                )?;
                let bce =
                    nn::binary_cross_entropy(&logits.narrow(1, first, classes - first)?, &hot)?;
                let sigmoid =
                    |z: &Tensor| -> Result<Tensor> { Ok(((z.neg()?.exp()? + 1.0)?.recip())?) };
                let kd =
                    old.map(|old| nn::binary_cross_entropy(&kept, &sigmoid(&old)?)).transpose()?;
                Ok((bce, kd))
            }
        }
    }
}

/// Rows with a one at the label, (batch, classes), f32.
fn one_hot(labels: &Tensor, classes: usize) -> Result<Tensor> {
    let all = Tensor::arange(0, classes as i64, labels.device())?.reshape((1, classes))?;
    Ok(labels.unsqueeze(1)?.broadcast_eq(&all)?.to_dtype(candle_core::DType::F32)?)
}
