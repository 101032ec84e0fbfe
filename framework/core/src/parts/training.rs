//! The settings of a task's training that gradient methods share: epochs, batch size, optimiser,
//! schedule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::{Carry, Variable};
use crate::data::View;
use crate::method::Plan;
use crate::optim::{self, Adam, Group, Optimiser, Sgd};
use crate::{Error, Result};

/// Which optimiser, with the schedule that goes with it in the authors' code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimiserKind {
    /// Adam(0.9, 0.999); rate·cos(99π·max(e−1, 0) / (200(K−1))) in epoch e of K.
    #[default]
    Adam,
    /// SGD with momentum 0.9; cosine annealing over the epochs.
    Sgd,
}

/// How the learning rate changes from epoch to epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The cosine that goes with the optimiser in the authors' code.
    #[default]
    Cosine,
    /// A tenth from each of the milestones on.
    Step,
}

/// How a task is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Training {
    /// Passes over a task's training images.
    pub epochs: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Optimiser and the schedule that goes with it; new for every task.
    pub optimiser: OptimiserKind,
    /// Learning rate of the first epoch.
    pub learning_rate: f64,
    /// L2 weight decay, added to the gradient.
    pub weight_decay: f64,
    /// How the learning rate changes from epoch to epoch.
    pub schedule: Schedule,
    /// Epochs, from 0, from which on the step schedule takes a tenth of the rate.
    pub milestones: Vec<usize>,
    /// Learning rate of the head, as a multiple of learning_rate.
    pub head_rate_factor: f64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 128,
            optimiser: OptimiserKind::Adam,
            learning_rate: 5e-4,
            weight_decay: 0.0,
            schedule: Schedule::Cosine,
            milestones: Vec::new(),
            head_rate_factor: 1.0,
        }
    }
}

impl Training {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Usage`] that names key and value.
    pub fn check(&self) -> Result<()> {
        if self.epochs == 0 {
            return Err(Error::usage("epochs = 0: a task needs at least one epoch"));
        }
        if self.batch_size == 0 {
            return Err(Error::usage("batch_size = 0: a step needs at least one image"));
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(Error::usage(format!(
                "learning_rate = {}: must be a positive number",
                self.learning_rate
            )));
        }
        if !(self.head_rate_factor.is_finite() && self.head_rate_factor > 0.0) {
            return Err(Error::usage(format!(
                "head_rate_factor = {}: must be a positive number",
                self.head_rate_factor
            )));
        }
        if (self.schedule == Schedule::Step) == self.milestones.is_empty() {
            return Err(Error::usage(
                "milestones and schedule = \"step\" go together: state both, or neither",
            ));
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::usage(format!(
                "weight_decay = {}: must not be negative",
                self.weight_decay
            )));
        }
        Ok(())
    }

    /// The plan for a task.
    pub fn plan(&self) -> Plan {
        Plan::epochs(self.epochs, self.batch_size, View::Train)
    }

    /// Declares a new optimiser of `variables` and, at its own rate, of the head's.
    pub fn optimiser(
        &self,
        variables: Vec<Variable>,
        head: Vec<Variable>,
        carry: &mut Carry,
    ) -> Result<Box<dyn Optimiser>> {
        let group = |factor: f64| move |variable: Variable| Group { variable, factor };
        let groups = variables
            .into_iter()
            .map(group(1.0))
            .chain(head.into_iter().map(group(self.head_rate_factor)));
        let (groups, rate, decay) = (groups.collect(), self.learning_rate, self.weight_decay);
        Ok(match self.optimiser {
            OptimiserKind::Adam => Box::new(Adam::new(groups, rate, decay, carry)?),
            OptimiserKind::Sgd => Box::new(Sgd::new(groups, rate, 0.9, decay, carry)?),
        })
    }

    /// The learning rate in `epoch`.
    pub fn rate(&self, epoch: usize) -> f64 {
        if self.schedule == Schedule::Step {
            return self.learning_rate
                * 0.1f64.powi(self.milestones.iter().filter(|m| epoch >= **m).count() as i32);
        }
        match self.optimiser {
            OptimiserKind::Adam => optim::authors_cosine(self.learning_rate, epoch, self.epochs),
            OptimiserKind::Sgd => {
                optim::cosine(self.learning_rate, epoch as f64, self.epochs as f64)
            }
        }
    }
}
