//! Class means of features, as cosine classifiers use them.

use candle_core::{DType, Device, Tensor};

use super::{rows_of_class, unit};
use crate::scenario::TaskInfo;
use crate::state::{Kind, State};
use crate::{Error, Result};

/// The mean feature of every class over all its training images so far; where domains share their classes, over those of all domains.
#[derive(Debug, Clone, Default)]
pub struct Prototypes {
    /// For each class, the mean (dim) and the number of images.
    means: Vec<(Tensor, f64)>,
}

impl Prototypes {
    /// Takes in the features (images, dim) and classes of a task's training images.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a class without an image, unless a domain lacks a class that others have.
    pub fn add(&mut self, task: &TaskInfo, features: &Tensor, labels: &[i64]) -> Result<()> {
        for &class in &task.classes {
            let (mean, new) = match rows_of_class(features, labels, class as i64)? {
                Some(rows) => (rows.mean(0)?, rows.dim(0)? as f64),
                None if task.domain.is_none() => return Err(Error::Protocol(format!("class {class} has no training image"))),
                None => (features.narrow(0, 0, 1)?.squeeze(0)?.zeros_like()?, 0.0),
            };
            match self.means.get_mut(class) {
                Some(_) if new == 0.0 => {}
                Some((old, count)) => {
                    *old = ((&*old * (*count / (*count + new)))? + (mean * (new / (*count + new)))?)?;
                    *count += new;
                }
                None => self.means.push((mean, new)),
            }
        }
        Ok(())
    }

    /// Cosines (batch, classes) of features (batch, dim) with the means.
    ///
    /// # Errors
    /// If there is no class yet.
    pub fn cosines(&self, features: &Tensor) -> Result<Tensor> {
        let means: Vec<&Tensor> = self.means.iter().map(|(mean, _)| mean).collect();
        Ok(unit(features)?.matmul(&unit(&Tensor::stack(&means, 0)?)?.t()?)?)
    }

    /// Adds them to a state: `prototype.<class>` (dim) and `prototype_images` (classes).
    ///
    /// # Errors
    /// If a name is taken.
    pub fn save(&self, state: &mut State) -> Result<()> {
        let Some((first, _)) = self.means.first() else { return Ok(()) };
        let counts: Vec<f64> = self.means.iter().map(|(_, count)| *count).collect();
        state.put("prototype_images", Kind::Statistic, &Tensor::new(counts, first.device())?)?;
        self.means.iter().enumerate().try_for_each(|(class, (mean, _))| state.put(format!("prototype.{class}"), Kind::Statistic, mean))
    }

    /// Takes those of the first `classes` classes from a state.
    ///
    /// # Errors
    /// Names what is missing.
    pub fn restore(&mut self, state: &State, classes: usize, dtype: DType, device: &Device) -> Result<()> {
        self.means.clear();
        if classes == 0 {
            return Ok(());
        }
        let counts = state.tensor("prototype_images", DType::F64, &Device::Cpu)?.to_vec1::<f64>()?;
        if counts.len() != classes {
            return Err(Error::Protocol(format!("state: prototype_images has {} classes, expected {classes}", counts.len())));
        }
        for (class, count) in counts.into_iter().enumerate() {
            self.means.push((state.tensor(&format!("prototype.{class}"), dtype, device)?, count));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_two_domains_has_the_mean_of_all_its_images() {
        let task = |domain: &str| TaskInfo {
            index: 0,
            tasks: 2,
            classes: vec![0, 1],
            first_class: 0,
            class_names: vec!["a".into(), "b".into()],
            train_images: 3,
            domain: Some(domain.into()),
        };
        let mut prototypes = Prototypes::default();
        let features = |v: &[[f64; 2]]| Tensor::new(v.concat(), &Device::Cpu).and_then(|t| t.reshape((v.len(), 2))).expect("tensor");
        prototypes.add(&task("x"), &features(&[[1.0, 0.0], [3.0, 0.0]]), &[0, 0]).expect("first");
        prototypes.add(&task("y"), &features(&[[8.0, 3.0], [0.0, 5.0]]), &[0, 1]).expect("second");
        let mean = |class: usize| prototypes.means[class].0.to_vec1::<f64>().expect("mean");
        assert_eq!((mean(0), mean(1)), (vec![4.0, 1.0], vec![0.0, 5.0]));
        let mut state = State::new();
        prototypes.save(&mut state).expect("save");
        let mut again = Prototypes::default();
        again.restore(&state, 2, DType::F64, &Device::Cpu).expect("restore");
        assert_eq!(again.means.iter().map(|m| m.1).collect::<Vec<_>>(), [3.0, 1.0]);
        let class_incremental = TaskInfo { domain: None, ..task("x") };
        let missing = Prototypes::default().add(&class_incremental, &features(&[[1.0, 0.0]]), &[0]).expect_err("no image of class 1");
        assert!(missing.to_string().contains("class 1 has no training image"));
    }
}
