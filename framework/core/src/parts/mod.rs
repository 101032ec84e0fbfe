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

pub use alignment::{Alignment, AlignmentLoss};
pub use bottlenecks::Bottlenecks;
pub use frozen::FrozenFeatures;
pub use gpm::DualGpm;
pub use heads::Heads;
pub use herding::{herding, unit};
pub use learner::{Classes, Learner, LearnerConfig, Trainable, together};
pub use pairs::{LoraConfig, Pairs};
pub use prototypes::Prototypes;
pub use replay::{OfRows, Recalled, Replay, ReplayConfig, Selection};
pub use statistics::ClassStatistics;
pub use teacher::Teacher;
pub use training::{OptimiserKind, Schedule, Training};

use candle_core::{DType, Device, Tensor, Var};

use crate::nn::Optimiser;
use crate::state::{Kind, State};
use crate::{Error, Result};

/// Sets a variable from a state.
pub(crate) fn restore_var(var: &Var, state: &State, name: &str) -> Result<()> {
    let value = state.tensor(name, var.dtype(), var.device())?;
    if value.dims() != var.dims() {
        return Err(Error::Protocol(format!("state: '{name}' has shape {:?}, expected {:?}", value.dims(), var.dims())));
    }
    Ok(var.set(&value)?)
}

/// Adds an optimiser's state, if there is one, under `optimiser.<name>`.
///
/// # Errors
/// If a name is taken.
pub fn save_optimiser(optimiser: Option<&dyn Optimiser>, state: &mut State) -> Result<()> {
    let Some(optimiser) = optimiser else { return Ok(()) };
    optimiser.state()?.into_iter().try_for_each(|(name, tensor)| state.put(format!("optimiser.{name}"), Kind::Optimiser, &tensor))
}

/// Takes what [`save_optimiser`] put into a state.
///
/// # Errors
/// Names a tensor that is missing or of another shape.
pub fn restore_optimiser(optimiser: &mut dyn Optimiser, state: &State, device: &Device) -> Result<()> {
    optimiser.restore(&|name| state.get(&format!("optimiser.{name}")).and_then(|e| e.value.to_tensor(device).ok()))
}

/// The rows of features (images, dim) whose label is `class`; none if there is no such label.
pub(crate) fn rows_of_class(features: &Tensor, labels: &[i64], class: i64) -> Result<Option<Tensor>> {
    let rows: Vec<u32> = (0..labels.len() as u32).filter(|i| labels[*i as usize] == class).collect();
    match rows.is_empty() {
        true => Ok(None),
        false => Ok(Some(features.index_select(&Tensor::new(rows, features.device())?, 0)?)),
    }
}

/// A new variable of this shape with the values of a state.
pub(crate) fn var_from(state: &State, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Var> {
    let var = Var::from_tensor(&Tensor::zeros(shape, dtype, device)?)?;
    restore_var(&var, state, name)?;
    Ok(var)
}
