//! Class-incremental scenarios: each task brings new classes.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Scenario, ScenarioInfo, ScenarioOptions, ScenarioSpec, Task, TaskInfo};
use crate::data::{self, Dataset, ImageSet, Sample, Split, Transforms};
use crate::{Error, Result};

/// The image size where neither scenario, user nor backbone states one.
const DEFAULT_IMAGE_SIZE: usize = 224;

/// The classes of a data set, shared out evenly over tasks.
pub struct ClassIncremental {
    info: ScenarioInfo,
    tasks: std::vec::IntoIter<Task>,
}

impl ClassIncremental {
    /// Opens the scenario's data set and cuts it into tasks.
    ///
    /// # Errors
    /// If the data set is not there or not whole, or does not fit the scenario.
    pub fn open(spec: &ScenarioSpec, options: &ScenarioOptions) -> Result<Self> {
        let dataset = (data::find(&spec.dataset)?.open)(options.data_root.as_deref())?;
        Self::new(spec, options, dataset.into())
    }

    /// Cuts a data set into tasks.
    ///
    /// # Errors
    /// [`Error::Usage`] for 0 images a class, or tasks and classes that do not fit; [`Error::Protocol`] for a class without images.
    pub fn new(spec: &ScenarioSpec, options: &ScenarioOptions, dataset: Arc<dyn Dataset>) -> Result<Self> {
        for (flag, value) in [("--train-per-class", options.train_per_class), ("--test-per-class", options.test_per_class)] {
            if value == Some(0) {
                return Err(Error::usage(format!("{flag} 0: at least one image a class is needed")));
            }
        }
        let classes = dataset.class_names().len();
        if spec.tasks == 0 || spec.tasks > classes {
            return Err(Error::usage(format!(
                "scenario {}: tasks = {}: data set {} has {classes} classes",
                spec.name, spec.tasks, spec.dataset
            )));
        }
        let class_order = options.class_order.unwrap_or(spec.class_order);
        let order = class_order.permutation(classes);
        let transforms = Transforms::new(options.image_size.or(spec.image_size).unwrap_or(DEFAULT_IMAGE_SIZE));
        // The first `classes % tasks` tasks have one class more.
        let size = |task: usize| classes / spec.tasks + usize::from(task < classes % spec.tasks);
        let mut lists = Vec::new();
        let mut rest = order.as_slice();
        for task in 0..spec.tasks {
            let (head, tail) = rest.split_at(size(task));
            lists.push(head.to_vec());
            rest = tail;
        }
        let mut place = vec![(0, 0); classes];
        for (task, list) in lists.iter().enumerate() {
            let first: usize = (0..task).map(size).sum();
            list.iter().enumerate().for_each(|(i, class)| place[*class] = (task, first + i));
        }

        let mut hash = Sha256::new();
        hash.update(format!("cilbench data id 1\n{order:?}\n{}\n", serde_json::to_string(&transforms).unwrap_or_default()));
        let train = select(&*dataset, Split::Train, options.train_per_class, &place, spec.tasks, &mut hash)?;
        let test = select(&*dataset, Split::Test, options.test_per_class, &place, spec.tasks, &mut hash)?;
        let tasks: Vec<Task> = train
            .into_iter()
            .zip(test)
            .enumerate()
            .map(|(index, (train, test))| {
                let set = |split, (indices, labels): (Vec<usize>, Vec<i64>)| ImageSet {
                    dataset: dataset.clone(),
                    split,
                    indices: indices.into(),
                    labels: labels.into(),
                };
                let first: usize = (0..index).map(size).sum();
                let class_names = lists[index].iter().map(|c| dataset.class_names()[*c].clone()).collect();
                let info = TaskInfo {
                    index,
                    tasks: spec.tasks,
                    classes: (first..first + lists[index].len()).collect(),
                    first_class: first,
                    class_names,
                    train_images: train.0.len(),
                };
                Task { info, train: set(Split::Train, train), test: set(Split::Test, test) }
            })
            .collect();
        let info = ScenarioInfo {
            name: spec.name.clone(),
            dataset: spec.dataset.clone(),
            class_order,
            transforms,
            images: tasks.iter().map(|t| (t.train.len(), t.test.len())).collect(),
            tasks: lists,
            data_id: crate::hex(&hash.finalize())[..16].to_owned(),
        };
        Ok(Self { info, tasks: tasks.into_iter() })
    }
}

/// For each task, the indices of its images in canonical order and their classes as the model sees them.
#[allow(clippy::type_complexity)]
fn select(
    dataset: &dyn Dataset,
    split: Split,
    per_class: Option<usize>,
    place: &[(usize, usize)],
    tasks: usize,
    hash: &mut Sha256,
) -> Result<Vec<(Vec<usize>, Vec<i64>)>> {
    let mut lists = vec![(Vec::new(), Vec::new()); tasks];
    let mut taken = vec![0; place.len()];
    for (index, Sample { key, label, .. }) in dataset.samples(split).iter().enumerate() {
        if per_class.is_some_and(|k| taken[*label] >= k) {
            continue;
        }
        taken[*label] += 1;
        let (task, class) = place[*label];
        lists[task].0.push(index);
        lists[task].1.push(class as i64);
        hash.update(format!("{key}\0{label}\0{split:?}\0{task}\n"));
    }
    if let Some(empty) = taken.iter().position(|n| *n == 0) {
        let name = &dataset.class_names()[empty];
        return Err(Error::Protocol(
            format!("class {empty} ('{name}') has no {split:?} image; add one or leave the class out").to_lowercase(),
        ));
    }
    Ok(lists)
}

impl Scenario for ClassIncremental {
    fn info(&self) -> &ScenarioInfo {
        &self.info
    }

    fn next_task(&mut self) -> Result<Option<Task>> {
        Ok(self.tasks.next())
    }
}
