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
            Gaussian::of_rows(features, rows, RIDGE).map_err(|e| match e {
                Error::Diverged(what) => {
                    Error::Diverged(format!("task {}, class {class}: the features have no Gaussian: {what}", task.index + 1))
                }
                other => other,
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

    /// Adds them to a state: `class_mean.<task>.<class>` (dim) and `class_factor.<task>.<class>`, Lᵀ of the covariance L·Lᵀ as [`Gaussian::packed_factor`] gives it.
    ///
    /// # Errors
    /// If a name is taken.
    pub fn save(&self, state: &mut State) -> Result<()> {
        for ((task, class), gaussian) in &self.classes {
            state.put(format!("class_mean.{task}.{class}"), Kind::Statistic, gaussian.mean())?;
            state.put(format!("class_factor.{task}.{class}"), Kind::Statistic, &gaussian.packed_factor()?)?;
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
                let name = |part: &str| format!("class_{part}.{}.{class}", task.index);
                // Packed factors are unpacked on the host where that is needed.
                let (mean, factor) = (state.tensor(&name("mean"), dtype, device)?, state.tensor(&name("factor"), dtype, &Device::Cpu)?);
                let gaussian = Gaussian::from_packed(mean, &factor).map_err(|e| {
                    Error::Protocol(format!(
                        "state, {} with {}: {e}; if an older cilbench wrote it, remove the run's folder and begin anew",
                        name("factor"),
                        name("mean")
                    ))
                })?;
                self.classes.insert((task.index, *class as i64), gaussian);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_back_from_a_state_on_the_cpu_and_elsewhere() {
        let dim = 70;
        let task = TaskInfo {
            index: 0,
            tasks: 1,
            classes: vec![0, 1],
            first_class: 0,
            class_names: vec!["a".into(), "b".into()],
            train_images: 9,
            domain: None,
        };
        let features = Tensor::randn(0f32, 1.0, (9, dim), &Device::Cpu).expect("randn");
        let mut fitted = ClassStatistics::default();
        fitted.fit(&task, &features, &[0, 1, 0, 1, 0, 1, 0, 1, 0]).expect("fit");
        let values = |statistics: &ClassStatistics| {
            let all = statistics.gaussians().map(|(class, g)| (class, g.mean().to_vec1().expect("mean"), g.factor().expect("factor")));
            all.map(|(class, mean, factor)| (class, mean, factor.to_vec2().expect("factor")))
                .collect::<Vec<(i64, Vec<f32>, Vec<Vec<f32>>)>>()
        };
        let through = |statistics: &ClassStatistics| {
            let (mut state, mut restored) = (State::new(), ClassStatistics::default());
            statistics.save(&mut state).expect("save");
            restored.restore(&state, std::slice::from_ref(&task), DType::F32, &Device::Cpu).expect("restore");
            (state, restored)
        };
        let (state, restored) = through(&fitted);
        let (there, moved) = nn::as_on_a_device(|| through(&restored));
        let (back, again) = through(&moved);
        assert!(state.hash() == there.hash() && state.hash() == back.hash());
        assert!(values(&fitted) == values(&restored) && values(&fitted) == values(&moved) && values(&fitted) == values(&again));
        let mut bad = State::new();
        bad.put("class_mean.0.0", Kind::Statistic, &features.get(0).expect("row")).expect("mean");
        bad.put("class_factor.0.0", Kind::Statistic, &features.get(1).expect("row")).expect("factor");
        let error = ClassStatistics::default().restore(&bad, &[task], DType::F32, &Device::Cpu).expect_err("too few numbers");
        let said = "class_factor.0.0 with class_mean.0.0: a packed upper triangle of 70 dimensions";
        assert!(error.to_string().contains(said), "{error}");
    }
}
