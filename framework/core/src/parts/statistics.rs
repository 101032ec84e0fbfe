//! Class statistics: mean and covariance of each class's features, fitted when the class is learned
//! and never updated.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::array::Array;
use crate::context::{Carry, Held, Loader, Stored};
use crate::method::{Recorded, RecordedQuantity};
use crate::nn::{self, Gaussian};
use crate::scenario::TaskInfo;
use crate::state::Kind;
use crate::{Error, Result};

inventory::submit! { RecordedQuantity { name: "class_mean", read: recorded_means } }
inventory::submit! { RecordedQuantity { name: "class_cov", read: recorded_covariances } }

/// The means of a task's classes, one after the other.
fn recorded_means(of: &Recorded) -> Result<Vec<f64>> {
    let mean =
        |class: &usize| of.state.array(&format!("class_mean.{}.{class}", of.task.index))?.to_f64();
    Ok(of.task.classes.iter().map(mean).collect::<Result<Vec<_>>>()?.concat())
}

/// The covariances L·Lᵀ of a task's classes, one after the other.
fn recorded_covariances(of: &Recorded) -> Result<Vec<f64>> {
    let one = |class: &usize| -> Result<Vec<f64>> {
        let part = |part: &str| {
            of.state.tensor(
                &format!("class_{part}.{}.{class}", of.task.index),
                DType::F64,
                &Device::Cpu,
            )
        };
        let factor = Gaussian::from_packed(part("mean")?, &part("factor")?)?.factor()?;
        Ok(factor.t()?.matmul(&factor)?.flatten_all()?.to_vec1()?)
    };
    Ok(of.task.classes.iter().map(one).collect::<Result<Vec<_>>>()?.concat())
}

/// Added to the diagonal of every covariance.
pub const RIDGE: f64 = 0.01;

/// One Gaussian for each class (in domain-incremental scenarios: for each task and class).
#[derive(Debug, Clone, Default)]
pub struct ClassStatistics {
    /// By task and class, as the model numbers it.
    classes: BTreeMap<(usize, i64), Held<Gaussian>>,
}

/// `class_mean.<id>` (dim) and `class_factor.<id>`, Lᵀ of the covariance L·Lᵀ as
/// [`Gaussian::packed_factor`] gives it.
impl Stored for Gaussian {
    fn save(&self, id: &str) -> Result<Vec<(String, Array)>> {
        Ok(vec![
            (format!("class_mean.{id}"), Array::from_tensor(self.mean())?),
            (format!("class_factor.{id}"), Array::from_tensor(&self.packed_factor()?)?),
        ])
    }

    fn load(id: &str, from: &Loader) -> Result<Option<Self>> {
        let (mean, factor) = (format!("class_mean.{id}"), format!("class_factor.{id}"));
        if from.find(&mean).is_none() && from.find(&factor).is_none() {
            return Ok(None);
        }
        let (dtype, device) = (from.placement.dtype, &from.placement.device);
        // Packed factors are unpacked on the host where that is needed.
        let packed = from.array(&factor)?.to_dtype(dtype, &Device::Cpu)?;
        let gaussian = Gaussian::from_packed(from.array(&mean)?.to_dtype(dtype, device)?, &packed);
        gaussian.map(Some).map_err(|e| {
            Error::Protocol(format!(
                "state, {factor} with {mean}: {e}; if an older cilbench wrote it, remove the run's \
                 folder and begin anew"
            ))
        })
    }
}

impl ClassStatistics {
    /// Declares the statistics of a task's classes, to be fitted by [`ClassStatistics::fit`].
    pub fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        for class in &task.classes {
            let held = carry.held(format!("{}.{class}", task.index), Kind::Statistic)?;
            self.classes.insert((task.index, *class as i64), held);
        }
        Ok(())
    }

    /// Fits the classes of a task from its features (n, dim) and labels (n): mean, unbiased
    /// covariance + 0.01·I, one Cholesky factor each.
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
                Error::Protocol(format!(
                    "task {}: class {class} has no training image, so no statistics",
                    task.index + 1
                ))
            })?;
            Gaussian::of_rows(features, rows, RIDGE).map_err(|e| match e {
                Error::Diverged(what) => Error::Diverged(format!(
                    "task {}, class {class}: the features have no Gaussian: {what}",
                    task.index + 1
                )),
                other => other,
            })
        };
        let fitted: Vec<Result<Gaussian>> = match nn::has_cpu_kernel(features) {
            true => task.classes.par_iter().map(one).collect(),
            false => task.classes.iter().map(one).collect(),
        };
        for (class, gaussian) in task.classes.iter().zip(fitted) {
            let held = self.classes.get(&(task.index, *class as i64)).ok_or_else(|| {
                Error::Protocol(format!(
                    "task {}: the statistics of class {class} were never declared",
                    task.index + 1
                ))
            })?;
            held.set(gaussian?);
        }
        Ok(())
    }

    /// The Gaussians, with their classes, in the order of tasks and classes.
    pub fn gaussians(&self) -> Result<Vec<(i64, Arc<Gaussian>)>> {
        self.classes.iter().map(|((_, class), held)| Ok((*class, held.get()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Carried, NoHost, Placement};
    use crate::state::State;

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
        let placement = Placement::cpu(DType::F32);
        let declared = |saved: Option<&State>| {
            let (carried, mut statistics) = (Carried::new(), ClassStatistics::default());
            let mut host = NoHost;
            let mut carry = match saved {
                Some(state) => Carry::saved(state, false, &carried, &placement),
                None => Carry::fresh(&mut host, &carried, &placement),
            };
            statistics.settle(&task, &mut carry).map(|()| (carried.clone(), statistics))
        };
        let (carried, mut fitted) = declared(None).expect("declared");
        fitted.fit(&task, &features, &[0, 1, 0, 1, 0, 1, 0, 1, 0]).expect("fit");
        let values = |statistics: &ClassStatistics| {
            let all = statistics.gaussians().expect("set").into_iter();
            all.map(|(class, g)| {
                (
                    class,
                    g.mean().to_vec1().expect("mean"),
                    g.factor().expect("factor").to_vec2().expect("factor"),
                )
            })
            .collect::<Vec<(i64, Vec<f32>, Vec<Vec<f32>>)>>()
        };
        let state = carried.state().expect("state");
        let through = |state: &State| {
            let (carried, restored) = declared(Some(state)).expect("restored");
            (carried.state().expect("state"), restored)
        };
        let (again, restored) = through(&state);
        let (there, moved) = nn::as_on_a_device(|| through(&state));
        let (back, last) = through(&there);
        assert!(
            state.hash() == again.hash()
                && state.hash() == there.hash()
                && state.hash() == back.hash()
        );
        assert!(
            values(&fitted) == values(&restored)
                && values(&fitted) == values(&moved)
                && values(&fitted) == values(&last)
        );
        let mut bad = State::new();
        bad.put("class_mean.0.0", Kind::Statistic, &features.get(0).expect("row")).expect("mean");
        bad.put("class_factor.0.0", Kind::Statistic, &features.get(1).expect("row"))
            .expect("factor");
        let error = declared(Some(&bad)).err().expect("too few numbers");
        let said = "class_factor.0.0 with class_mean.0.0: a packed upper triangle of 70 dimensions";
        assert!(error.to_string().contains(said), "{error}");
        let error = declared(Some(&State::new())).err().expect("nothing there");
        assert!(error.to_string().contains("there is no tensor"), "{error}");
    }
}
