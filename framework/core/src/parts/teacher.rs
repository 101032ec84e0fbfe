//! The model as it was before the running task, for distillation.

use candle_core::Tensor;

use super::{Learner, Trainable};
use crate::Result;
use crate::backbone::{Backbone, Pass};
use crate::context::{Carry, Variable};
use crate::state::Kind;

/// A frozen copy of the heads, and of the backbone where training changes it. A frozen backbone and
/// finished LoRA pairs are the learner's own.
pub struct Teacher {
    backbone: Option<Box<dyn Backbone>>,
    /// (old classes, dim).
    weight: Variable,
    /// (old classes).
    bias: Variable,
    /// The copied backbone's weights.
    _weights: Vec<Variable>,
}

impl Teacher {
    /// Declares a copy of `learner` as it is between two tasks: `teacher.head.weight`,
    /// `teacher.head.bias`, `teacher.backbone.<name>`. There is none before its first task.
    ///
    /// A method calls it in its `grow`, before the learner grows, and only if [`Carry::training`];
    /// its `settle` drops the teacher.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the backbone cannot be copied.
    pub fn grow(learner: &Learner, carry: &mut Carry) -> Result<Option<Self>> {
        if learner.heads.classes()? == 0 {
            return Ok(None);
        }
        let mut copy = |name: String, tensor: &Tensor| carry.copied(name, Kind::Buffer, tensor);
        let (weight, bias) = learner.heads.stacked()?;
        let (weight, bias) = (
            copy("teacher.head.weight".into(), &weight)?,
            copy("teacher.head.bias".into(), &bias)?,
        );
        let (mut backbone, mut weights) = (None, Vec::new());
        if learner.config().trainable == Trainable::All {
            let mut snapshot = learner.backbone.snapshot()?;
            for (name, var) in snapshot.unfreeze()? {
                weights.push(carry.adopt(
                    format!("teacher.backbone.{name}"),
                    Kind::Buffer,
                    &var,
                )?);
            }
            backbone = Some(snapshot);
        }
        Ok(Some(Self { backbone, weight, bias, _weights: weights }))
    }

    /// Logits (batch, old classes), without a graph; `learner` is the one it was copied from.
    pub fn logits(&self, learner: &Learner, images: &Tensor) -> Result<Tensor> {
        // Without its running pair the learner's backbone is the one before the task.
        let backbone = self.backbone.as_ref().unwrap_or(&learner.backbone);
        let features = backbone.forward(images, Pass::default())?.cls.detach();
        let (weight, bias) = (self.weight.as_detached_tensor(), self.bias.as_detached_tensor());
        Ok(features.matmul(&weight.t()?)?.broadcast_add(&bias)?)
    }
}
