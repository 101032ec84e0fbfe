//! iCaRL: exemplars by herding, distillation, and classification by the nearest mean of exemplars (Rebuffi et al., CVPR 2017).
//!
//! ```sh
//! cilbench run --method icarl
//! ```
//!
//! Each step takes a batch of the task's images and one of exemplars (the paper shuffles both into one set). The loss is the paper's: a sigmoid for every class seen,
//! whose targets are the labels for the task's classes and the outputs of the model before the task for older ones, summed over classes (common code takes their mean, which
//! is another learning rate). With `distillation = "softmax"` it is
//! cross-entropy plus distillation at temperature 2, as many later comparisons have it.

use std::collections::BTreeMap;

use candle_core::Tensor;
use cilbench::context::Context;
use cilbench::method::{About, Access, Batch, Losses, Method, MethodEntry, Plan, Registered, Setup};
use cilbench::nn;
use cilbench::parts::{Classes, Learner, LearnerConfig, Replay, ReplayConfig, Selection, Teacher, together, unit};
use cilbench::scenario::TaskInfo;
use cilbench::state::{Kind, State};
use cilbench::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Icarl>() }

const TEMPERATURE: f64 = 2.0;

/// How the old model is held on to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Distillation {
    /// A sigmoid for every class, with the old model's outputs as targets of old classes (the paper).
    #[default]
    Binary,
    /// Cross-entropy over all classes seen plus softmax distillation of the old ones at temperature 2.
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
    learner: Learner,
    replay: Replay,
    /// The model before the running task.
    teacher: Option<Teacher>,
    /// The mean of each class's exemplars, features and mean of length one, (dim).
    means: BTreeMap<i64, Tensor>,
}

impl Registered for Icarl {
    type Config = Config;
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
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        if config.replay.selection == Selection::Reservoir {
            return Err(Error::usage(
                "selection = \"reservoir\" may leave a class without an exemplar, and icarl classifies by them: use herding or random",
            ));
        }
        let replay = Replay::new(config.replay.clone())?;
        let learner = Learner::new(Self::ABOUT.name, config.learner.clone(), Classes::Seen, setup)?;
        Ok(Self { config, learner, replay, teacher: None, means: BTreeMap::new() })
    }
}

impl Icarl {
    /// The loss terms of logits (batch, classes) for labels (batch): what is learned, and what is kept.
    fn losses(&self, logits: &Tensor, labels: &Tensor, images: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let classes = logits.dim(1)?;
        let old = self.teacher.as_ref().map(|t| t.logits(&self.learner, images)).transpose()?;
        let known = old.as_ref().map_or(Ok(0), |o| o.dim(1))?;
        let kept = logits.narrow(1, 0, known)?;
        match self.config.distillation {
            Distillation::Softmax => {
                let kd = old.map(|old| nn::distillation(&kept, &old, TEMPERATURE)).transpose()?;
                Ok((nn::cross_entropy(logits, labels)?, kd))
            }
            Distillation::Binary => {
                // Where tasks share their classes, the old model's outputs are all there is to hold on to, and labels have a term of their own.
                let first = if known < classes { known } else { 0 };
                let hot = one_hot(labels, classes)?.to_dtype(logits.dtype())?.narrow(1, first, classes - first)?;
                let bce = nn::binary_cross_entropy(&logits.narrow(1, first, classes - first)?, &hot)?;
                let sigmoid = |z: &Tensor| -> Result<Tensor> { Ok(((z.neg()?.exp()? + 1.0)?.recip())?) };
                let kd = old.map(|old| nn::binary_cross_entropy(&kept, &sigmoid(&old)?)).transpose()?;
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

impl Method for Icarl {
    fn check(&self, classes: usize) -> Result<()> {
        self.replay.check(classes)
    }

    fn plan(&self, _: &TaskInfo) -> Plan {
        self.config.learner.training.plan()
    }

    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.teacher = Teacher::of(&self.learner)?;
        self.learner.begin_task(task, ctx)
    }

    fn observe(&mut self, batch: &Batch, _: &TaskInfo, ctx: &mut Context) -> Result<Losses> {
        let recalled = self.replay.batch("step", ctx)?;
        let data = together(&batch.data, recalled.as_ref().map(|r| &r.data))?;
        let logits = self.learner.heads.all(&self.learner.forward(&data.images, false)?.cls)?;
        let (learned, kept) = self.losses(&logits, &data.labels, &data.images)?;
        let loss = match &kept {
            Some(kept) => (&learned + kept)?,
            None => learned.clone(),
        };
        self.learner.step(&loss, batch.epoch)?;
        let mut terms = vec![("ce", &learned)];
        terms.extend(kept.iter().map(|k| ("distillation", k)));
        Losses::read(&terms)
    }

    fn end_task(&mut self, _: &TaskInfo, ctx: &mut Context) -> Result<()> {
        self.learner.end_task()?;
        self.teacher = None;
        let learner = &self.learner;
        let features = |images: &Tensor| Ok(learner.infer(images, false)?.cls);
        self.replay.end_task(ctx, &features, None)?;
        // The model has changed, so have the exemplars' features: all means are taken anew.
        let mut sums: BTreeMap<i64, Tensor> = BTreeMap::new();
        Replay::read_all(ctx, |batch| {
            let rows = unit(&features(&batch.images)?)?;
            for (i, class) in batch.classes.iter().enumerate() {
                let row = rows.get(i)?;
                let sum = sums.remove(class).map_or(Ok(row.clone()), |sum| sum + row)?;
                sums.insert(*class, sum);
            }
            Ok(())
        })?;
        self.means = sums.into_iter().map(|(class, sum)| Ok((class, unit(&sum)?))).collect::<Result<_>>()?;
        Ok(())
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        let means: Vec<&Tensor> = self.means.values().collect();
        Ok(unit(&self.learner.infer(images, false)?.cls)?.matmul(&Tensor::stack(&means, 0)?.t()?)?)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.learner.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        let mut state = self.learner.state()?;
        self.replay.save(&mut state)?;
        if let Some(teacher) = &self.teacher {
            teacher.save(&mut state)?;
        }
        self.means.iter().try_for_each(|(class, mean)| state.put(format!("mean.{class}"), Kind::Statistic, mean))?;
        Ok(state)
    }

    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()> {
        self.learner.restore(state, tasks, running)?;
        self.replay.restore(state)?;
        let (dtype, device) = self.learner.placement();
        self.teacher = if running { Teacher::restore(state, &self.learner, Teacher::classes(tasks), (dtype, device))? } else { None };
        let finished = &tasks[..tasks.len() - usize::from(running)];
        let mean = |class: &usize| Ok((*class as i64, state.tensor(&format!("mean.{class}"), dtype, device)?));
        self.means = finished.iter().flat_map(|t| &t.classes).map(mean).collect::<Result<_>>()?;
        Ok(())
    }
}
