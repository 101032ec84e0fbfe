//! Learning without Forgetting (LwF) of Li and Hoiem, TPAMI 2018: the model learns a new task while
//! its outputs for the old classes, on the new task's images, stay those of the model before it.
//! No old image is kept.
//!
//! With the model of the task before as the teacher, z^o its logits of the old classes, ẑ^o those
//! of the model in training, and ẑ^n the logits of the new task's classes:
//!
//! ```text
//! L     = λ·L_old + L_new
//! L_new = −log softmax(ẑ^n)_y
//! L_old = −Σ_c y'_c·log ŷ'_c
//! y'_c  = y_c^{1/T} / Σ_j y_j^{1/T} = softmax(z^o / T)_c, likewise ŷ'
//! ```
//!
//! Differences from the paper:
//!
//! - The paper has a softmax for each old task and is told the task of a test image. Here all old
//!   classes share one softmax in L_old, and prediction compares the logits of all classes.
//! - The paper records the teacher's outputs once per image. Here they are computed for each
//!   augmented image as it is trained on, from the frozen teacher.
//! - The paper first trains the new head alone (a warm-up). Here all is trained from the first step.
//! - The backbone is trained by LoRA pairs unless `trainable = "all"`.
//! - Where a task brings no new class (domain-incremental), the one head is both old and new: both
//!   terms are over all classes.

use cilbench::context::Context;
use cilbench::method::{About, Batch, Carry, Loss, Losses, Method, MethodEntry, Model, Setup};
use cilbench::parts::{Classes, Learner, LearnerConfig, Teacher, Want};
use cilbench::scenario::TaskInfo;
use cilbench::{Error, Result, nn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

inventory::submit! { MethodEntry::of::<Lwf>() }

/// Hyper-parameters of LwF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// What is trained, and how.
    #[serde(flatten)]
    learner: LearnerConfig,
    /// Weight of the distillation of old classes (λ); 0 is training without protection.
    distillation_weight: f64,
    /// Temperature of both softmaxes of the distillation (T).
    temperature: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { learner: LearnerConfig::default(), distillation_weight: 1.0, temperature: 2.0 }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        let (weight, temperature) = (self.distillation_weight, self.temperature);
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::usage(format!(
                "distillation_weight = {weight}: must be a finite number of at least 0"
            )));
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(Error::usage(format!(
                "temperature = {temperature}: must be a positive number; the paper's is 2"
            )));
        }
        Ok(())
    }
}

/// Learning without Forgetting.
pub struct Lwf {
    learner: Learner,
    /// The model before the running task; none in the first task and between tasks.
    teacher: Option<Teacher>,
    distillation_weight: f64,
    temperature: f64,
}

impl Method for Lwf {
    type Config = Config;
    cilbench::model!(learner: Learner);
    const ABOUT: About = About {
        name: "lwf",
        summary: "cross-entropy on the new task, distillation of the old classes, no exemplars",
        paper: r"@article{li2018learning,
  title   = {Learning without Forgetting},
  author  = {Li, Zhizhong and Hoiem, Derek},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume  = {40},
  number  = {12},
  pages   = {2935--2947},
  year    = {2018}
}",
        trains: "LoRA pairs, all weights, or nothing else, and the heads of all classes",
        presets: include_str!("../presets/lwf.toml"),
        ..About::DEFAULT
    };

    fn new(config: Config, setup: Setup) -> Result<Self> {
        config.check()?;
        Ok(Self {
            // The old heads train too; the cross-entropy of `observe` is of the new one alone.
            learner: Learner::new("lwf", config.learner, Classes::Seen, setup)?,
            teacher: None,
            distillation_weight: config.distillation_weight,
            temperature: config.temperature,
        })
    }

    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        // The teacher is the learner before it grows. A task that is over needs none.
        if carry.training() {
            self.teacher = Teacher::grow(&self.learner, carry)?;
        }
        self.learner.grow(task, carry)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, _: &mut Context) -> Result<Losses> {
        let images = &batch.data.images;
        let features = self.learner.forward(images, Want::Features)?.cls;
        let new = self.learner.heads.current(&features)?;
        let l_new = nn::cross_entropy(&new, &task.within(&batch.data.labels)?)?; // L_new
        let mut loss = Loss::new("ce", l_new);
        if let Some(teacher) = &self.teacher {
            let targets = teacher.logits(&self.learner, images)?;
            let old = self.learner.heads.all(&features)?.narrow(1, 0, targets.dim(1)?)?;
            let l_old = nn::distillation(&old, &targets, self.temperature)?; // L_old
            loss = loss.add("distillation", self.distillation_weight, l_old)?; // L_new + λ·L_old
        }
        self.learner.step(loss, batch.epoch)
    }

    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.teacher = None;
        self.learner.settle(task, carry)
    }
}
