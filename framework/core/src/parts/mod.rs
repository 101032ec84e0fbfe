//! What several methods share, under the names the papers use: a learner, a teacher, heads, LoRA
//! pairs, class statistics, classifier alignment, replay, training settings.

mod alignment;
mod bottlenecks;
mod frozen;
mod heads;
mod herding;
mod learner;
mod pairs;
mod prototypes;
mod replay;
mod sequential;
mod statistics;
mod teacher;
mod training;

pub use alignment::{AlignmentLoss, ClassifierAlignment};
pub use bottlenecks::{Bottlenecks, Gradients};
pub use frozen::FrozenFeatures;
pub use heads::Heads;
pub use herding::{herding, unit};
pub use learner::{Classes, Learner, LearnerConfig, Trainable, Want, together};
pub use pairs::{LoraConfig, Pairs};
pub use prototypes::Prototypes;
pub use replay::{OfRows, Recalled, Rehearsal, Replay, ReplayConfig, Selection};
pub use statistics::ClassStatistics;
pub use teacher::Teacher;
pub use training::{OptimiserKind, Schedule, Training};

use candle_core::Tensor;

use crate::Result;

/// The rows of features (images, dim) whose label is `class`; none if there is no such label.
pub(crate) fn rows_of_class(
    features: &Tensor,
    labels: &[i64],
    class: i64,
) -> Result<Option<Tensor>> {
    let rows: Vec<u32> =
        (0..labels.len() as u32).filter(|i| labels[*i as usize] == class).collect();
    match rows.is_empty() {
        true => Ok(None),
        false => Ok(Some(features.index_select(&Tensor::new(rows, features.device())?, 0)?)),
    }
}
