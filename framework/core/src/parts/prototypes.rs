//! Class means of features, as cosine classifiers use them.

use candle_core::Tensor;

use super::{rows_of_class, unit};
use crate::context::{Carry, Fresh, Held, Value};
use crate::scenario::TaskInfo;
use crate::state::Kind;
use crate::{Error, Result};

/// The mean feature of every class over all its training images so far; where domains share their
/// classes, over those of all domains.
#[derive(Debug, Clone, Default)]
pub struct Prototypes {
    /// The mean (dim) of each class.
    means: Vec<Value>,
    /// The number of images of each class.
    images: Option<Held<Vec<f64>>>,
}

impl Prototypes {
    /// Declares those of a task's classes, for features of width `dim`: `prototype.<class>` (dim)
    /// and, for all classes, `prototype_images`.
    pub fn settle(&mut self, task: &TaskInfo, dim: usize, carry: &mut Carry) -> Result<()> {
        for class in
            task.classes.iter().filter(|class| **class >= self.means.len()).collect::<Vec<_>>()
        {
            let name = format!("prototype.{class}");
            self.means.push(carry.value(name, Kind::Statistic, &[dim], Fresh::Zeros)?);
        }
        if self.images.is_none() {
            self.images = Some(carry.held_from("prototype_images", Kind::Statistic, Vec::new())?);
        }
        Ok(())
    }

    /// Takes in the features (images, dim) and classes of a task's training images.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a class without an image, unless a domain lacks a class that others
    /// have.
    pub fn add(&mut self, task: &TaskInfo, features: &Tensor, labels: &[i64]) -> Result<()> {
        let undeclared = || {
            Error::Protocol(format!("task {}: its prototypes were never declared", task.index + 1))
        };
        let images = self.images.as_ref().ok_or_else(undeclared)?;
        let mut counts = images.get()?.as_ref().clone();
        counts.resize(self.means.len(), 0.0);
        for &class in &task.classes {
            let held = self.means.get(class).ok_or_else(undeclared)?;
            let (mean, new) = match rows_of_class(features, labels, class as i64)? {
                Some(rows) => (rows.mean(0)?, rows.dim(0)? as f64),
                None if task.domain.is_some() => continue,
                None => {
                    return Err(Error::Protocol(format!("class {class} has no training image")));
                }
            };
            let count = &mut counts[class];
            if *count > 0.0 {
                let (old, all) = (held.get()?, *count + new);
                held.replace(&((&*old * (*count / all))? + (mean * (new / all))?)?)?;
            } else {
                held.replace(&mean)?;
            }
            *count += new;
        }
        images.set(counts);
        Ok(())
    }

    fn stacked(&self) -> Result<Tensor> {
        let means = self
            .means
            .iter()
            .map(|mean| Ok(mean.get()?.as_ref().clone()))
            .collect::<Result<Vec<_>>>()?;
        if means.is_empty() {
            return Err(Error::Protocol(
                "class means were used before the first task was over".into(),
            ));
        }
        Ok(Tensor::stack(&means, 0)?)
    }

    /// Cosines (batch, classes) of features (batch, dim) with the means.
    ///
    /// # Errors
    /// If there is no class yet.
    pub fn cosines(&self, features: &Tensor) -> Result<Tensor> {
        Ok(unit(features)?.matmul(&unit(&self.stacked()?)?.t()?)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::context::{Carried, NoHost, Placement};

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
        let (carried, placement) = (Carried::new(), Placement::cpu(DType::F64));
        let settle = |prototypes: &mut Prototypes, task: &TaskInfo| {
            let mut host = NoHost;
            prototypes
                .settle(task, 2, &mut Carry::fresh(&mut host, &carried, &placement))
                .expect("declared");
        };
        let mut prototypes = Prototypes::default();
        let features = |v: &[[f64; 2]]| {
            Tensor::new(v.concat(), &Device::Cpu)
                .and_then(|t| t.reshape((v.len(), 2)))
                .expect("tensor")
        };
        settle(&mut prototypes, &task("x"));
        prototypes.add(&task("x"), &features(&[[1.0, 0.0], [3.0, 0.0]]), &[0, 0]).expect("first");
        settle(&mut prototypes, &task("y"));
        prototypes.add(&task("y"), &features(&[[8.0, 3.0], [0.0, 5.0]]), &[0, 1]).expect("second");
        let mean = |class: usize| {
            prototypes.means[class].get().expect("set").to_vec1::<f64>().expect("mean")
        };
        assert_eq!((mean(0), mean(1)), (vec![4.0, 1.0], vec![0.0, 5.0]));
        let state = carried.state().expect("state");
        assert_eq!(
            state.array("prototype_images").expect("counts").to_f64().expect("counts"),
            [3.0, 1.0]
        );
        let (other, mut again) = (Carried::new(), Prototypes::default());
        let mut saved = Carry::saved(&state, false, &other, &placement);
        again.settle(&task("x"), 2, &mut saved).expect("restored");
        assert_eq!(other.state().expect("state"), state);
        let class_incremental = TaskInfo { domain: None, ..task("x") };
        let mut fresh = Prototypes::default();
        drop(prototypes);
        settle(&mut fresh, &class_incremental);
        let missing = fresh
            .add(&class_incremental, &features(&[[1.0, 0.0]]), &[0])
            .expect_err("no image of class 1");
        assert!(missing.to_string().contains("class 1 has no training image"));
    }
}
