//! What several methods share, under the names the papers use: heads, LoRA pairs, class statistics, classifier alignment, training settings.

mod alignment;
mod bottlenecks;
mod frozen;
mod gpm;
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

pub use alignment::{Alignment, AlignmentLoss, normalised};
pub use bottlenecks::Bottlenecks;
pub use frozen::FrozenFeatures;
pub use gpm::DualGpm;
pub use heads::Heads;
pub use herding::{herding, unit};
pub use learner::{Classes, Learner, LearnerConfig, Trainable, together};
pub use pairs::{LoraConfig, Pairs};
pub use prototypes::Prototypes;
pub use replay::{OfRows, Recalled, Replay, ReplayConfig, Selection};
pub use sequential::SequentialLora;
pub use statistics::ClassStatistics;
pub use teacher::Teacher;
pub use training::{OptimiserKind, Schedule, Training};

use candle_core::{DType, Device, Tensor, Var};

use crate::state::State;
use crate::{Error, Result};

/// Sets a variable from a state.
pub(crate) fn restore_var(var: &Var, state: &State, name: &str) -> Result<()> {
    let value = state.tensor(name, var.dtype(), var.device())?;
    if value.dims() != var.dims() {
        return Err(Error::Protocol(format!("state: '{name}' has shape {:?}, expected {:?}", value.dims(), var.dims())));
    }
    Ok(var.set(&value)?)
}

/// A new variable of this shape with the values of a state.
pub(crate) fn var_from(state: &State, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Var> {
    let var = Var::from_tensor(&Tensor::zeros(shape, dtype, device)?)?;
    restore_var(&var, state, name)?;
    Ok(var)
}
