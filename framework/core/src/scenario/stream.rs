//! A data set as a stream of tasks.

use std::cmp::Ordering;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::layout::Layout;
use super::{Lack, Scenario, ScenarioInfo, ScenarioOptions, ScenarioSpec, Task, TaskInfo, names};
use crate::data::{Dataset, ImageSet, Sample, Split, SplitId};
use crate::{Error, Result};

/// The image size where neither scenario, user nor backbone states one.
const DEFAULT_IMAGE_SIZE: usize = 224;

/// The tasks of a scenario, class-incremental or domain-incremental.
pub struct TaskStream {
    info: ScenarioInfo,
    notes: Vec<String>,
    dataset: Arc<dyn Dataset>,
    /// For each image of the training and of the test list, whether a task uses it.
    used: [Vec<bool>; 2],
    tasks: std::vec::IntoIter<Task>,
}

impl TaskStream {
    /// Cuts a data set, opened with this split, into tasks.
    ///
    /// # Errors
    /// [`Error::Usage`] for 0 images per class, or tasks and classes that do not fit;
    /// [`Error::Protocol`] for a class without images, or for an image that is both for training
    /// and for testing.
    pub fn new(
        spec: &ScenarioSpec,
        options: &ScenarioOptions,
        dataset: Arc<dyn Dataset>,
        split: SplitId,
    ) -> Result<Self> {
        for (flag, value) in [
            ("--train-per-class", options.train_per_class),
            ("--test-per-class", options.test_per_class),
        ] {
            if value == Some(0) {
                return Err(Error::usage(format!(
                    "{flag} 0: at least one image per class is needed"
                )));
            }
        }
        if dataset.keyed_by_path() {
            refuse_leaks(&*dataset)?;
        }
        let class_order = options
            .class_order
            .clone()
            .unwrap_or_else(|| spec.class_order.clone())
            .resolved(dataset.class_names())?;
        let layout = Layout::new(spec, &class_order, &*dataset)?;
        let transforms = spec
            .transforms(options.image_size.or(spec.image_size).unwrap_or(DEFAULT_IMAGE_SIZE))
            .map_err(|what| Error::usage(format!("scenario {}: {what}", spec.name)))?;
        let mut hash = Sha256::new();
        let unwritable =
            |e| Error::Protocol(format!("the transforms cannot be written as JSON: {e}"));
        let transforms_text = serde_json::to_string(&transforms).map_err(unwritable)?;
        hash.update(format!(
            "cilbench data id 2\n{:?}\n{:?}\n{transforms_text}\n",
            layout.tasks, layout.domains
        ));
        let (train, mut lacking) =
            select(&*dataset, Split::Train, options.train_per_class, &layout, &mut hash)?;
        let (test, lacking_tests) =
            select(&*dataset, Split::Test, options.test_per_class, &layout, &mut hash)?;
        lacking.extend(lacking_tests);
        let used = [(Split::Train, &train), (Split::Test, &test)]
            .map(|(split, lists)| marked(&*dataset, split, lists));
        let domain_name =
            |task: usize| layout.domains.as_ref().map(|d| dataset.domain_names()[d[task]].clone());
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
                    class_names: classes
                        .iter()
                        .map(|c| dataset.class_names()[*c].clone())
                        .collect(),
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
            lacking,
        };
        let mut notes = layout.notes;
        notes.extend(names::look_alike("class", dataset.class_names()));
        notes.extend(names::look_alike("domain", dataset.domain_names()));
        notes.extend(Lack::notes(&info.lacking));
        notes.extend_from_slice(dataset.notes());
        Ok(Self { info, notes, dataset, used, tasks: tasks.into_iter() })
    }

    /// What the data set's lists name, a task uses, and the disk does not hold, one line per image.
    ///
    /// # Errors
    /// If a folder that is there cannot be listed.
    pub fn missing(&self) -> Result<Vec<String>> {
        self.dataset.missing(&|split, index| self.uses(split, index))
    }

    /// Whether a task uses an image of the data set.
    pub fn uses(&self, split: Split, index: usize) -> bool {
        self.used[usize::from(split == Split::Test)].get(index).copied().unwrap_or(false)
    }

    /// What the user should know: how a remainder of classes was shared out, which classes or
    /// images are left out, which names look alike, which domains lack a class.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// The indices of a task's images in canonical order, and their classes as the model sees them.
type Selected = (Vec<usize>, Vec<i64>);

fn select(
    dataset: &dyn Dataset,
    split: Split,
    per_class: Option<usize>,
    layout: &Layout,
    hash: &mut Sha256,
) -> Result<(Vec<Selected>, Vec<Lack>)> {
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
    refuse_empty(dataset, side, layout, &taken)?;
    if let Some(empty) = lists.iter().position(|(indices, _)| indices.is_empty()) {
        let domain = layout
            .domains
            .as_ref()
            .map_or(String::new(), |d| format!(" (domain {})", dataset.domain_names()[d[empty]]));
        return Err(Error::Protocol(format!(
            "task {}{domain} has no {side} image; add some, or leave it out",
            empty + 1
        )));
    }
    Ok((lists, lacks(dataset, split, layout, &taken)))
}

/// An error that names all classes without images. A domain may lack a class; a scenario may not.
fn refuse_empty(
    dataset: &dyn Dataset,
    side: &str,
    layout: &Layout,
    taken: &[Vec<usize>],
) -> Result<()> {
    let images = |class: usize| taken.iter().map(|t| t[class]).sum::<usize>();
    let mut empty: Vec<usize> =
        layout.tasks.iter().flatten().copied().filter(|c| images(*c) == 0).collect();
    empty.sort_unstable();
    empty.dedup();
    let named = |class: &usize| format!("{class} ('{}')", dataset.class_names()[*class]);
    let hint = dataset.empty_class_hint().map_or(String::new(), |hint| format!("; {hint}"));
    match empty.as_slice() {
        [] => Ok(()),
        [class] => Err(Error::Protocol(format!(
            "class {} has no {side} image; add one or leave the class out{hint}",
            named(class)
        ))),
        _ => {
            let shown = empty.iter().take(10).map(named).collect::<Vec<_>>().join(", ");
            let more = if empty.len() > 10 { ", …" } else { "" };
            Err(Error::Protocol(format!(
                "{} classes have no {side} image: class {shown}{more}; add some or leave the classes out{hint}",
                empty.len()
            )))
        }
    }
}

/// The classes of each domain that have no image in it.
fn lacks(dataset: &dyn Dataset, split: Split, layout: &Layout, taken: &[Vec<usize>]) -> Vec<Lack> {
    let Some(domains) = &layout.domains else { return Vec::new() };
    let lack = |task: usize, (class, label): (usize, &usize)| Lack {
        task,
        domain: dataset.domain_names()[domains[task]].clone(),
        class,
        class_name: dataset.class_names()[*label].clone(),
        split,
    };
    let of = |task: usize| {
        layout.tasks[task].iter().enumerate().filter(move |(_, label)| taken[task][**label] == 0)
    };
    (0..layout.tasks.len())
        .flat_map(|task| of(task).map(move |at| (task, at)))
        .map(|(task, at)| lack(task, at))
        .collect()
}

/// For each image of a split, whether it is in one of these lists.
fn marked(dataset: &dyn Dataset, split: Split, lists: &[Selected]) -> Vec<bool> {
    let mut used = vec![false; dataset.samples(split).len()];
    lists.iter().flat_map(|(indices, _)| indices).for_each(|i| used[*i] = true);
    used
}

/// An error if one path is both for training and for testing, or twice in one split.
fn refuse_leaks(dataset: &dyn Dataset) -> Result<()> {
    let both = |(a, i): (Split, usize), (b, j): (Split, usize)| {
        Err(Error::Protocol(format!(
            "the same image twice, {} and {}: {} and {}; keep one of the two",
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
