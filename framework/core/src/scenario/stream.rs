//! A data set as a stream of tasks.

use std::cmp::Ordering;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::layout::Layout;
use super::{Scenario, ScenarioInfo, ScenarioOptions, ScenarioSpec, Task, TaskInfo};
use crate::data::{Dataset, ImageSet, Sample, Split, SplitId};
use crate::{Error, Result};

/// The image size where neither scenario, user nor backbone states one.
const DEFAULT_IMAGE_SIZE: usize = 224;

/// The tasks of a scenario, class-incremental or domain-incremental.
pub struct TaskStream {
    info: ScenarioInfo,
    notes: Vec<String>,
    tasks: std::vec::IntoIter<Task>,
}

impl TaskStream {
    /// Cuts a data set, opened with this split, into tasks.
    ///
    /// # Errors
    /// [`Error::Usage`] for 0 images a class, or tasks and classes that do not fit; [`Error::Protocol`] for a class without images, or for an image
    /// that is both for training and for testing.
    pub fn new(spec: &ScenarioSpec, options: &ScenarioOptions, dataset: Arc<dyn Dataset>, split: SplitId) -> Result<Self> {
        for (flag, value) in [("--train-per-class", options.train_per_class), ("--test-per-class", options.test_per_class)] {
            if value == Some(0) {
                return Err(Error::usage(format!("{flag} 0: at least one image a class is needed")));
            }
        }
        if dataset.keyed_by_path() {
            refuse_leaks(&*dataset)?;
        }
        let class_order = options.class_order.unwrap_or(spec.class_order);
        let layout = Layout::new(spec, class_order, &*dataset)?;
        let transforms = spec
            .transforms(options.image_size.or(spec.image_size).unwrap_or(DEFAULT_IMAGE_SIZE))
            .map_err(|what| Error::usage(format!("scenario {}: {what}", spec.name)))?;
        let mut hash = Sha256::new();
        let transforms_text = serde_json::to_string(&transforms).unwrap_or_default();
        hash.update(format!("cilbench data id 2\n{:?}\n{:?}\n{transforms_text}\n", layout.tasks, layout.domains));
        let train = select(&*dataset, Split::Train, options.train_per_class, &layout, &mut hash)?;
        let test = select(&*dataset, Split::Test, options.test_per_class, &layout, &mut hash)?;
        let domain_name = |task: usize| layout.domains.as_ref().map(|d| dataset.domain_names()[d[task]].clone());
        let tasks: Vec<Task> = train
            .into_iter()
            .zip(test)
            .enumerate()
            .map(|(index, (train, test))| {
                let set = |split, (indices, labels): Selected| ImageSet {
                    dataset: dataset.clone(),
                    split,
                    indices: indices.into(),
                    labels: labels.into(),
                };
                let (first, classes) = (layout.first_class(index), &layout.tasks[index]);
                let info = TaskInfo {
                    index,
                    tasks: layout.tasks.len(),
                    classes: (first..first + classes.len()).collect(),
                    first_class: first,
                    class_names: classes.iter().map(|c| dataset.class_names()[*c].clone()).collect(),
                    train_images: train.0.len(),
                    domain: domain_name(index),
                };
                Task { info, train: set(Split::Train, train), test: set(Split::Test, test) }
            })
            .collect();
        let info = ScenarioInfo {
            name: spec.name.clone(),
            dataset: spec.dataset.clone(),
            kind: spec.kind,
            split,
            class_order,
            transforms,
            images: tasks.iter().map(|t| (t.train.len(), t.test.len())).collect(),
            domains: (0..tasks.len()).filter_map(domain_name).collect(),
            tasks: layout.tasks,
            data_id: crate::hex(&hash.finalize())[..16].to_owned(),
        };
        Ok(Self { info, notes: layout.notes, tasks: tasks.into_iter() })
    }

    /// What the user should know: how a remainder of classes was shared out, which classes are left out.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The indices of a task's images in canonical order, and their classes as the model sees them.
type Selected = (Vec<usize>, Vec<i64>);

fn select(dataset: &dyn Dataset, split: Split, per_class: Option<usize>, layout: &Layout, hash: &mut Sha256) -> Result<Vec<Selected>> {
    let classes = dataset.class_names().len();
    let mut lists = vec![(Vec::new(), Vec::new()); layout.tasks.len()];
    let mut taken = vec![vec![0; classes]; layout.tasks.len()];
    let side = if split == Split::Train { "train" } else { "test" };
    for (index, Sample { key, label, domain }) in dataset.samples(split).iter().enumerate() {
        let Some((task, class)) = layout.place(*label, *domain) else { continue };
        let count = &mut taken[task][*label];
        if per_class.is_some_and(|k| *count >= k) {
            continue;
        }
        *count += 1;
        lists[task].0.push(index);
        lists[task].1.push(class as i64);
        hash.update(format!("{key}\0{label}\0{side}\0{task}\n"));
    }
    let images = |class: usize| taken.iter().map(|t| t[class]).sum::<usize>();
    // A domain may lack a class; a scenario may not.
    if let Some(empty) = layout.tasks.iter().flatten().copied().find(|c| images(*c) == 0) {
        let name = &dataset.class_names()[empty];
        return Err(Error::Protocol(format!("class {empty} ('{name}') has no {side} image; add one or leave the class out")));
    }
    if let Some(empty) = lists.iter().position(|(indices, _)| indices.is_empty()) {
        return Err(Error::Protocol(format!("task {} has no {side} image", empty + 1)));
    }
    Ok(lists)
}

/// An error if one path is both for training and for testing, or twice in one split.
fn refuse_leaks(dataset: &dyn Dataset) -> Result<()> {
    let both = |(a, i): (Split, usize), (b, j): (Split, usize)| {
        Err(Error::Protocol(format!(
            "the same image twice, {} and {}: {} and {}; take it off one of them",
            format!("{a:?}").to_lowercase(),
            format!("{b:?}").to_lowercase(),
            dataset.origin(a, i),
            dataset.origin(b, j)
        )))
    };
    for split in [Split::Train, Split::Test] {
        if let Some(i) = dataset.samples(split).windows(2).position(|w| w[0].key == w[1].key) {
            return both((split, i), (split, i + 1));
        }
    }
    match overlap(dataset).first() {
        Some((i, j)) => both((Split::Train, *i), (Split::Test, *j)),
        None => Ok(()),
    }
}

/// The (training, test) images with the same sample key, by merging the two sorted lists.
pub fn overlap(dataset: &dyn Dataset) -> Vec<(usize, usize)> {
    let (train, test) = (dataset.samples(Split::Train), dataset.samples(Split::Test));
    let (mut i, mut j, mut same) = (0, 0, Vec::new());
    while i < train.len() && j < test.len() {
        match train[i].key.cmp(&test[j].key) {
            Ordering::Less => i += 1,
            Ordering::Greater => j += 1,
            Ordering::Equal => {
                same.push((i, j));
                j += 1;
            }
        }
    }
    same
}

impl Scenario for TaskStream {
    fn info(&self) -> &ScenarioInfo {
        &self.info
    }

    fn next_task(&mut self) -> Result<Option<Task>> {
        Ok(self.tasks.next())
    }
}
