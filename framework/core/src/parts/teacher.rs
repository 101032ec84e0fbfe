//! The model as it was before the running task, for distillation.

use candle_core::{DType, Device, Tensor};

use super::{Learner, Trainable, restore_var, var_from};
use crate::Result;
use crate::backbone::{Backbone, Pass};
use crate::state::{Kind, State};

/// A frozen copy of the heads, and of the backbone where training changes it; a frozen backbone and finished LoRA pairs are the learner's own.
pub struct Teacher {
    backbone: Option<Box<dyn Backbone>>,
    /// (old classes, dim).
    weight: Tensor,
    /// (old classes).
    bias: Tensor,
}

impl Teacher {
    /// A copy of `learner` between two tasks; none before its first task.
    ///
    /// # Errors
    /// If the backbone cannot be copied.
    pub fn of(learner: &Learner) -> Result<Option<Self>> {
        if learner.heads.classes()? == 0 {
            return Ok(None);
        }
        let (weight, bias) = learner.heads.stacked()?;
        let all = learner.config().trainable == Trainable::All;
        let backbone = if all { Some(learner.backbone.snapshot()?) } else { None };
        Ok(Some(Self { backbone, weight: weight.detach().copy()?, bias: bias.detach().copy()? }))
    }

    /// Logits (batch, old classes), without a graph; `learner` is the one it was copied from.
    ///
    /// # Errors
    /// If the backbone fails.
    pub fn logits(&self, learner: &Learner, images: &Tensor) -> Result<Tensor> {
        // Without its running pair the learner's backbone is the one before the task.
        let backbone = self.backbone.as_ref().unwrap_or(&learner.backbone);
        let features = backbone.forward(images, Pass::default())?.cls.detach();
        Ok(features.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }

    /// Adds it to a state: `teacher.head.weight`, `teacher.head.bias`, `teacher.backbone.<name>`.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn save(&self, state: &mut State) -> Result<()> {
        state.put("teacher.head.weight", Kind::Buffer, &self.weight)?;
        state.put("teacher.head.bias", Kind::Buffer, &self.bias)?;
        if let Some(backbone) = &self.backbone {
            for (name, var) in backbone.snapshot()?.unfreeze()? {
                state.put(format!("teacher.backbone.{name}"), Kind::Buffer, &var)?;
            }
        }
        Ok(())
    }

    /// Takes it from a state; `heads` are those of the tasks before the running one. None if there were none.
    ///
    /// # Errors
    /// Names a tensor that is missing or of another shape.
    pub fn restore(state: &State, learner: &Learner, classes: usize, (dtype, device): (DType, &Device)) -> Result<Option<Self>> {
        if classes == 0 {
            return Ok(None);
        }
        let dim = learner.backbone.info().dim;
        let var = |name: &str, shape: &[usize]| var_from(state, name, shape, dtype, device);
        let weight = var("teacher.head.weight", &[classes, dim])?.as_detached_tensor();
        let bias = var("teacher.head.bias", &[classes])?.as_detached_tensor();
        let mut backbone = None;
        if learner.config().trainable == Trainable::All {
            let mut copy = learner.backbone.snapshot()?;
            for (name, var) in copy.unfreeze()? {
                restore_var(&var, state, &format!("teacher.backbone.{name}"))?;
            }
            backbone = Some(copy);
        }
        Ok(Some(Self { backbone, weight, bias }))
    }

    /// The number of classes of tasks before the running one.
    pub fn classes(tasks: &[crate::scenario::TaskInfo]) -> usize {
        tasks[..tasks.len().saturating_sub(1)].iter().flat_map(|t| &t.classes).max().map_or(0, |c| c + 1)
    }
}
