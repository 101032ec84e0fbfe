//! Scenarios: a data set cut into a stream of tasks.

mod layout;
mod names;
mod order;
mod spec;
mod stream;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use order::ClassOrder;
pub use spec::{ClassRef, ScenarioEntry, ScenarioKind, ScenarioSpec, Tasks, TransformSpec};
pub use stream::{TaskStream, overlap};

use crate::data::{self, Dataset, ImageSet, RootFrom, Source, Split, SplitId, Transforms};
use crate::hub::{Hub, Repository};
use crate::{Error, Result};

/// What a method may see of past images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Only the current task's training images.
    Stream,
    /// Also the exemplars it put into the harness's memory.
    Memory,
    /// All training images seen so far (upper bounds): a task's passes and epochs go over the
    /// images of all tasks up to it.
    All,
}

/// What a method is told of a scenario before the first task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioFacts {
    /// The number of classes of all tasks.
    pub classes: usize,
    /// The number of tasks; 0 if the caller did not say.
    #[serde(default)]
    pub tasks: usize,
    /// Whether each task is a domain with all classes.
    #[serde(default)]
    pub domain_incremental: bool,
}

/// What a method is told of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The task, from 0.
    pub index: usize,
    /// The number of tasks of the scenario; some methods' schedules over tasks need it.
    pub tasks: usize,
    /// Its classes as the model sees them: numbered in the order of their first appearance.
    pub classes: Vec<usize>,
    /// The number of classes of the tasks before; a class-incremental task's classes begin here, a
    /// domain-incremental one's at 0.
    pub first_class: usize,
    /// The names of its classes.
    pub class_names: Vec<String>,
    /// The number of its training images; for a method that sees all images, of all those so far.
    pub train_images: usize,
    /// The domain it is in, where each task is a domain.
    #[serde(default)]
    pub domain: Option<String>,
}

impl TaskInfo {
    /// Labels (batch), i64, counted from this task's first class.
    ///
    /// # Errors
    /// If the tensor operation fails.
    pub fn within(&self, labels: &candle_core::Tensor) -> Result<candle_core::Tensor> {
        Ok((labels
            - &candle_core::Tensor::new(self.first_class as i64, labels.device())?
                .broadcast_as(labels.shape())?)?)
    }
}

/// A task: what a method is told of it, and its images.
#[derive(Clone)]
pub struct Task {
    /// What a method is told.
    pub info: TaskInfo,
    /// The images to learn from.
    pub train: ImageSet,
    /// The images to score on.
    pub test: ImageSet,
}

impl Task {
    /// The task as a method with this access is shown it: `before` is the task before it, shown
    /// likewise. With [`Access::All`] the images to learn from are those of all tasks so far.
    ///
    /// # Errors
    /// If the tasks are not of one data set.
    pub fn shown(mut self, access: Access, before: Option<&Self>) -> Result<Self> {
        if let (Access::All, Some(before)) = (access, before) {
            self.train = before.train.with(&self.train)?;
            self.info.train_images = self.train.len();
        }
        Ok(self)
    }
}

/// What is known of a scenario before it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioInfo {
    /// Its name.
    pub name: String,
    /// The data set's name.
    pub dataset: String,
    /// What a new task brings.
    #[serde(default)]
    pub kind: ScenarioKind,
    /// The data set's split.
    #[serde(default = "official")]
    pub split: SplitId,
    /// Which classes each task holds, as the data set numbers them, in the order in which the model
    /// numbers them.
    pub tasks: Vec<Vec<usize>>,
    /// How the classes were ordered.
    pub class_order: ClassOrder,
    /// Each task's domain, where each task is a domain; else empty.
    #[serde(default)]
    pub domains: Vec<String>,
    /// The transforms of its images.
    pub transforms: Transforms,
    /// The number of (training, test) images of each task.
    pub images: Vec<(usize, usize)>,
    /// Hash over every sample key, label, split and task, the class order and the transforms: equal
    /// ids mean equal data.
    pub data_id: String,
    /// The classes that a domain has no image of, where each task is a domain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<Lack>,
}

/// A class that a domain has no image of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// The task that is the domain, from 0.
    pub task: usize,
    /// The domain's name.
    pub domain: String,
    /// The class, as the model numbers it.
    pub class: usize,
    /// The class's name.
    pub class_name: String,
    /// Whether it is images to learn from or to score on that lack.
    pub split: Split,
}

impl Lack {
    /// One line for each domain and split.
    fn notes(all: &[Self]) -> Vec<String> {
        let note = |group: &[Self]| {
            let names: Vec<&str> = group.iter().map(|l| l.class_name.as_str()).take(10).collect();
            let more = if group.len() > names.len() { ", …" } else { "" };
            let side = if group[0].split == Split::Train { "training" } else { "test" };
            let classes = if group.len() == 1 { "class" } else { "classes" };
            format!(
                "domain {} has no {side} image of {classes} {}{more}",
                group[0].domain,
                names.join(", ")
            )
        };
        all.chunk_by(|a, b| (a.task, a.split) == (b.task, b.split)).map(note).collect()
    }
}

/// The split of runs from before splits had names.
fn official() -> SplitId {
    SplitId::Fixed("official".into())
}

impl ScenarioInfo {
    /// The number of classes of all tasks; one that several tasks share counts once.
    pub fn classes(&self) -> usize {
        self.tasks.iter().flatten().collect::<std::collections::BTreeSet<_>>().len()
    }
}

impl ScenarioInfo {
    /// What a method is told before the first task.
    pub fn facts(&self) -> ScenarioFacts {
        ScenarioFacts {
            classes: self.classes(),
            tasks: self.tasks.len(),
            domain_incremental: !self.domains.is_empty(),
        }
    }
}

/// A finite stream of tasks. It never hands out a task twice.
pub trait Scenario {
    /// What is known of it.
    fn info(&self) -> &ScenarioInfo;

    /// The next task; `None` after the last.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn next_task(&mut self) -> Result<Option<Task>>;
}

/// What the user may change about a scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScenarioOptions {
    /// Another class order.
    pub class_order: Option<ClassOrder>,
    /// Another image size, in pixels.
    pub image_size: Option<usize>,
    /// Only the first so many training images of each class, in canonical order.
    pub train_per_class: Option<usize>,
    /// Only the first so many test images of each class, in canonical order.
    pub test_per_class: Option<usize>,
}

/// A scenario's data set, opened.
pub struct Opened {
    /// The data set.
    pub dataset: Arc<dyn Dataset>,
    /// Its split.
    pub split: SplitId,
    /// Where on the hub it is from, repository and commit, if it is from there.
    pub source: Option<String>,
}

/// Opens a scenario's data set: `root` is where it lies, if not where the scenario's file says;
/// `split` the split, if not the scenario's. Without a root, a data set that is on the hub is
/// downloaded, or found in the cache.
///
/// # Errors
/// [`Error::Usage`] for an unknown data set or split; whatever the download or the data set fails
/// with.
pub fn open_dataset(
    spec: &ScenarioSpec,
    root: Option<&Path>,
    split: Option<&str>,
    hub: &Hub,
) -> Result<Opened> {
    let entry = data::find(&spec.dataset)?;
    let split = entry.split(split.or(spec.split.as_deref()))?;
    let root_from =
        if root.is_none() && spec.data_root.is_some() { RootFrom::Key } else { RootFrom::Flag };
    let mut root = root.map(Path::to_path_buf).or(spec.data_root.clone());
    let mut source = None;
    if let (None, Some(on_hub)) = (&root, entry.hub) {
        let found = hub.files(&Repository::dataset(on_hub.repo), on_hub.files).map_err(|e| {
            let what = format!(
                "data set {} is not here and cannot be downloaded: {e}. Say where it is with --data-root DIR: it needs {}",
                entry.name, entry.files
            );
            if matches!(e, Error::Usage(_)) { Error::Usage(what) } else { Error::Protocol(what) }
        })?;
        root = Some(found.path);
        source = Some(format!("{}@{}", on_hub.repo, found.commit));
    }
    let (manifest, scale) = (spec.manifest.clone(), spec.scale);
    let dataset = entry.load(&Source { root, split: split.clone(), manifest, root_from, scale })?;
    if dataset.scale() != scale {
        let what = "scale = \"16-bit\": only the data sets folder and manifest are read so; leave scale out";
        return Err(Error::usage(format!("scenario {}: {what}", spec.name)));
    }
    Ok(Opened { dataset, split, source })
}

/// An error unless everything is there that a data set's lists name and the scenario uses.
///
/// # Errors
/// [`Error::Protocol`] with the number of missing files and the first of them.
pub fn require_whole(scenario: &TaskStream) -> Result<()> {
    let missing = scenario.missing()?;
    let Some(first) = missing.first() else { return Ok(()) };
    Err(Error::Protocol(format!(
        "{} image(s) are not there, first {first}; `cilbench data check` lists them. Put them there, or leave them off the list",
        missing.len()
    )))
}

/// All registered scenarios, by name.
///
/// # Errors
/// If a registered scenario file is not valid.
pub fn all() -> Result<Vec<ScenarioSpec>> {
    let mut all: Vec<_> = inventory::iter::<ScenarioEntry>
        .into_iter()
        .map(|e| ScenarioSpec::parse(e.toml, e.file))
        .collect::<Result<_>>()?;
    all.sort_by_key(|s| natural(&s.name));
    Ok(all)
}

/// Sorts `cifar100-5` before `cifar100-10`.
fn natural(name: &str) -> (String, usize) {
    let (stem, number) = name.rsplit_once('-').unwrap_or((name, ""));
    (stem.to_owned(), number.parse().unwrap_or_default())
}

/// The scenario of this name, or in this file: a name that ends in `.toml`, has a `/` in it or is
/// no scenario's but a file's is a path.
///
/// # Errors
/// [`Error::Usage`] with the nearest known name, or with what is wrong in the file.
pub fn find(name: &str) -> Result<ScenarioSpec> {
    let (path, all) = (Path::new(name), all()?);
    let is_path =
        name.contains('/') || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
    let known = all.iter().find(|s| s.name == name);
    if is_path || (known.is_none() && path.is_file()) {
        let mut own = ScenarioSpec::read(path)?;
        // Two scenarios of one name would look like one in results.
        if all.iter().any(|s| s.name == own.name) {
            own.name += ".toml";
        }
        return Ok(own);
    }
    match known {
        Some(spec) => Ok(spec.clone()),
        None => Err(Error::unknown("scenario", name, all.iter().map(|s| s.name.as_str()))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conformance::trial::Trial;

    #[test]
    fn with_access_to_all_a_task_holds_the_images_of_all_before_it() {
        let tasks = |access| {
            let mut scenario =
                Trial { tasks: 4, images: 3, ..Trial::default() }.scenario().expect("scenario");
            let mut shown: Vec<Task> = Vec::new();
            while let Some(task) = scenario.next_task().expect("task") {
                shown.push(task.shown(access, shown.last()).expect("shown"));
            }
            shown
        };
        let keys = |t: &Task| {
            (0..t.train.len())
                .map(|i| (t.train.key(i).to_owned(), t.train.labels[i]))
                .collect::<BTreeSet<_>>()
        };
        let (own, all) = (tasks(Access::Memory), tasks(Access::All));
        assert_eq!(own.iter().map(|t| t.train.len()).collect::<Vec<_>>(), [3; 4]);
        assert_eq!(all.iter().map(|t| t.info.train_images).collect::<Vec<_>>(), [3, 6, 9, 12]);
        for t in 0..4 {
            assert_eq!(
                keys(&all[t]),
                own[..=t].iter().flat_map(keys).collect(),
                "with their own labels"
            );
            assert_eq!(all[t].test.len(), own[t].test.len(), "scored as ever");
        }
    }
}
