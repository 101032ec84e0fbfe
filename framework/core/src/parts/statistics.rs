//! Class statistics: mean and covariance of each class's features, fitted when the class is learned and never updated.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::nn::{self, Gaussian};
use crate::scenario::TaskInfo;
use crate::state::{Kind, State};
use crate::{Error, Result};

/// Added to the diagonal of every covariance.
pub const RIDGE: f64 = 0.01;

/// One Gaussian for each class (in domain-incremental scenarios: for each task and class).
#[derive(Debug, Clone, Default)]
pub struct ClassStatistics {
    /// By task and class, as the model numbers it.
    classes: BTreeMap<(usize, i64), Gaussian>,
}

impl ClassStatistics {
    /// Fits the classes of a task from its features (n, dim) and labels (n): mean, unbiased covariance + 0.01·I, one Cholesky factor each.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a class of the task has no image.
    pub fn fit(&mut self, task: &TaskInfo, features: &Tensor, labels: &[i64]) -> Result<()> {
        let mut rows = BTreeMap::<i64, Vec<u32>>::new();
        for (row, label) in (0..).zip(labels) {
            rows.entry(*label).or_default().push(row);
        }
        let one = |class: &usize| -> Result<Gaussian> {
            let class = *class as i64;
            let rows = rows.get(&class).ok_or_else(|| {
                Error::Protocol(format!("task {}: class {class} has no training image, so no statistics", task.index + 1))
            })?;
            let (mean, covariance) = nn::mean_and_covariance(features, rows, RIDGE)?;
            Gaussian::fit(&mean, &covariance).map_err(|e| {
                Error::Diverged(format!("task {}, class {class}: the feature covariance cannot be factored: {e}", task.index + 1))
            })
        };
        let fitted: Vec<Result<Gaussian>> = match nn::own(features) {
            true => task.classes.par_iter().map(one).collect(),
            false => task.classes.iter().map(one).collect(),
        };
        for (class, gaussian) in task.classes.iter().zip(fitted) {
            self.classes.insert((task.index, *class as i64), gaussian?);
        }
        Ok(())
    }

    /// The Gaussians, with their classes, in the order of tasks and classes.
    pub fn gaussians(&self) -> impl ExactSizeIterator<Item = (i64, &Gaussian)> {
        self.classes.iter().map(|((_, class), gaussian)| (*class, gaussian))
    }

    /// Adds them to a state: `class_mean.<task>.<class>` (dim) and `class_factor.<task>.<class>` (dim, dim), Lᵀ of the covariance L·Lᵀ.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn save(&self, state: &mut State) -> Result<()> {
        for ((task, class), gaussian) in &self.classes {
            state.put(format!("class_mean.{task}.{class}"), Kind::Statistic, gaussian.mean())?;
            state.put(format!("class_factor.{task}.{class}"), Kind::Statistic, gaussian.factor())?;
        }
        Ok(())
    }

    /// Takes the statistics of finished tasks from a state.
    ///
    /// # Errors
    /// Names a tensor that is missing.
    pub fn restore(&mut self, state: &State, finished: &[TaskInfo], dtype: DType, device: &Device) -> Result<()> {
        self.classes.clear();
        for task in finished {
            for class in &task.classes {
                let tensor = |part: &str| state.tensor(&format!("class_{part}.{}.{class}", task.index), dtype, device);
                let gaussian = Gaussian::from_factor(tensor("mean")?, tensor("factor")?)
                    .map_err(|e| Error::Protocol(format!("state: class_factor.{}.{class}: {e}", task.index)))?;
                self.classes.insert((task.index, *class as i64), gaussian);
            }
        }
        Ok(())
    }
}
