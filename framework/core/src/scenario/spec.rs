//! Scenario files: a few lines of TOML.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ClassOrder;
use crate::data::{Scale, Transforms};
use crate::{Error, Result};

/// What a new task brings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScenarioKind {
    /// New classes.
    #[default]
    ClassIncremental,
    /// All classes again, in a new domain.
    DomainIncremental,
}

/// A class, as a scenario file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassRef {
    /// By its number in the data set.
    Number(usize),
    /// By its name.
    Name(String),
}

/// How classes are shared out over tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tasks {
    /// Evenly, over so many tasks.
    Count(usize),
    /// As listed, in this order.
    Lists(Vec<Vec<ClassRef>>),
}

/// What a scenario changes about the transforms.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformSpec {
    /// Range of the training crop's share of the image's area.
    pub crop_scale: Option<[f64; 2]>,
    /// Range of the training crop's width over its height.
    pub crop_ratio: Option<[f64; 2]>,
    /// Whether half of the training images are flipped.
    pub flip: Option<bool>,
}

/// A scenario, as its file states it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioSpec {
    /// The name on the command line and in results; a user's file without one is named after the
    /// file.
    #[serde(default)]
    pub name: String,
    /// One line.
    #[serde(default)]
    pub summary: String,
    /// The data set's name.
    pub dataset: String,
    /// What a new task brings.
    #[serde(default)]
    pub kind: ScenarioKind,
    /// The data set's split, `random-80-20:7` with a seed; its default split if absent.
    pub split: Option<String>,
    /// The number of tasks, the classes shared out evenly; or lists of classes, one for each task.
    pub tasks: Option<Tasks>,
    /// Instead of `tasks`: the number of classes of the first task …
    pub base: Option<usize>,
    /// … and of each that follows.
    pub increment: Option<usize>,
    /// The class order, unless the user wants another.
    #[serde(default = "natural")]
    pub class_order: ClassOrder,
    /// The domains used, in this order; all of the data set's if absent. Each is a task of a
    /// domain-incremental scenario.
    pub domains: Option<Vec<String>>,
    /// The side of the images, in pixels, unless the user or the backbone wants another.
    pub image_size: Option<usize>,
    /// The transforms, where they are not the default.
    #[serde(default)]
    pub transforms: TransformSpec,
    /// The folder of the data set, unless the user gives `--data-root`; relative to the scenario's
    /// file.
    pub data_root: Option<PathBuf>,
    /// The list of images of data set `manifest`; relative to the scenario's file.
    pub manifest: Option<PathBuf>,
    /// How grey images of 16 bits are read: `8-bit` cuts off at 255, as Pillow does; `16-bit` keeps
    /// the upper 8 bits.
    #[serde(default)]
    pub scale: Scale,
}

/// The largest side of an image that a model sees, in pixels. A batch of 32 such images takes 6 GB.
const LARGEST_SIDE: usize = 4096;

fn natural() -> ClassOrder {
    ClassOrder::Natural
}

impl ScenarioSpec {
    const KEYS: [&str; 15] = [
        "name",
        "summary",
        "dataset",
        "kind",
        "split",
        "tasks",
        "base",
        "increment",
        "class_order",
        "domains",
        "image_size",
        "transforms",
        "data_root",
        "manifest",
        "scale",
    ];
    const TRANSFORM_KEYS: [&str; 3] = ["crop_scale", "crop_ratio", "flip"];

    /// An even class-incremental scenario over a data set.
    pub fn even(name: &str, dataset: &str, tasks: usize) -> Self {
        Self {
            name: name.into(),
            summary: String::new(),
            dataset: dataset.into(),
            kind: ScenarioKind::ClassIncremental,
            split: None,
            tasks: Some(Tasks::Count(tasks)),
            base: None,
            increment: None,
            class_order: ClassOrder::Natural,
            domains: None,
            image_size: None,
            transforms: TransformSpec::default(),
            data_root: None,
            manifest: None,
            scale: Scale::default(),
        }
    }

    /// Reads a scenario file's text; `file` is used in messages.
    ///
    /// # Errors
    /// [`Error::Usage`] that names file and key.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let fail = |what: String| Error::usage(format!("{file}: {what}"));
        let table: toml::Table = toml::from_str(text).map_err(|e| fail(e.to_string()))?;
        let unknown = |table: &toml::Table, known: &[&'static str], what: &str| match table
            .keys()
            .find(|k| !known.contains(&k.as_str()))
        {
            Some(key) => Err(fail(Error::unknown(what, key, known.iter().copied()).to_string())),
            None => Ok(()),
        };
        unknown(&table, &Self::KEYS, "key")?;
        if let Some(toml::Value::Table(transforms)) = table.get("transforms") {
            unknown(transforms, &Self::TRANSFORM_KEYS, "key of [transforms]")?;
        }
        // An untagged enumeration says only that nothing matched.
        if let Some(tasks) = table.get("tasks")
            && tasks.clone().try_into::<Tasks>().is_err()
        {
            return Err(fail(format!(
                "tasks = {tasks}: expected a number of tasks, or lists of class names or numbers, one list per task"
            )));
        }
        let spec: Self =
            table.try_into().map_err(|e: toml::de::Error| fail(e.message().to_owned()))?;
        spec.check().map_err(fail)?;
        Ok(spec)
    }

    /// Reads a user's scenario file. Paths in it are relative to it.
    ///
    /// # Errors
    /// [`Error::Usage`] that names file and key; or if the file cannot be read.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::usage(format!("--scenario {}: there is no such file", file.display()))
            }
            std::io::ErrorKind::InvalidData => {
                Error::file(file, "this is not UTF-8 text; save the scenario's file as UTF-8")
            }
            std::io::ErrorKind::IsADirectory => Error::usage(format!(
                "--scenario {}: this is a folder; name a file",
                file.display()
            )),
            _ => Error::io(file)(e),
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut spec = Self::parse(text, &file.display().to_string())?;
        let beside =
            |path: PathBuf| file.parent().map_or(path.clone(), |folder| folder.join(&path));
        spec.class_order = spec.class_order.beside(file);
        spec.data_root = spec.data_root.map(beside);
        spec.manifest = spec.manifest.map(beside);
        if spec.name.is_empty() {
            spec.name =
                file.file_stem().map_or("scenario".into(), |s| s.to_string_lossy().into_owned());
        }
        Ok(spec)
    }

    /// What does not depend on the data set.
    fn check(&self) -> Result<(), String> {
        let ways = [self.tasks.is_some(), self.base.is_some() || self.increment.is_some()];
        match (self.kind, ways) {
            (ScenarioKind::DomainIncremental, [false, false])
            | (ScenarioKind::ClassIncremental, [true, false]) => {}
            (ScenarioKind::DomainIncremental, _) => {
                return Err(
                    "a domain-incremental scenario has one task per domain: leave out tasks, base and increment, or list domains".into()
                );
            }
            (ScenarioKind::ClassIncremental, [false, true])
                if self.base.is_some() && self.increment.is_some() => {}
            (ScenarioKind::ClassIncremental, [false, true]) => {
                return Err("base and increment belong together: state both".into());
            }
            (ScenarioKind::ClassIncremental, [true, true]) => {
                return Err("state either tasks, or base and increment, not both".into());
            }
            (ScenarioKind::ClassIncremental, [false, false]) => {
                return Err("state tasks, or base and increment".into());
            }
        }
        if matches!(self.tasks, Some(Tasks::Lists(_))) && self.class_order != ClassOrder::Natural {
            return Err("class_order: the tasks list their classes, which is the order; leave class_order out".into());
        }
        self.transforms(224).map(|_| ())
    }

    /// The transforms for an image size.
    ///
    /// # Errors
    /// Names the key whose value is out of range.
    pub fn transforms(&self, image_size: usize) -> Result<Transforms, String> {
        if !(1..=LARGEST_SIDE).contains(&image_size) {
            return Err(format!(
                "image size {image_size}: expected a side of 1 to {LARGEST_SIDE} pixels"
            ));
        }
        let base = Transforms::new(image_size);
        let t = &self.transforms;
        let all = Transforms {
            crop_scale: t.crop_scale.unwrap_or(base.crop_scale),
            crop_ratio: t.crop_ratio.unwrap_or(base.crop_ratio),
            flip: t.flip.unwrap_or(base.flip),
            scale: self.scale,
            ..base
        };
        let [low, high] = all.crop_scale;
        if !(low > 0.0 && low <= high && high <= 1.0) {
            return Err(format!(
                "transforms.crop_scale = [{low}, {high}]: expected two shares of the area, 0 < low ≤ high ≤ 1"
            ));
        }
        let [low, high] = all.crop_ratio;
        if !(low > 0.0 && low <= high && high.is_finite()) {
            return Err(format!(
                "transforms.crop_ratio = [{low}, {high}]: expected two positive ratios, low ≤ high"
            ));
        }
        Ok(all)
    }
}

/// The registry entry of a scenario file.
pub struct ScenarioEntry {
    /// The file's name, for messages.
    pub file: &'static str,
    /// Its text.
    pub toml: &'static str,
}

inventory::collect!(ScenarioEntry);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (text, part) in [
            ("dataset = 'd'\ntask = 3", "x.toml: unknown key 'task': did you mean 'tasks'?"),
            (
                "dataset = 'd'\ntasks = 2\n[transforms]\nflipp = true",
                "unknown key of [transforms] 'flipp': did you mean 'flip'?",
            ),
            ("dataset = 'd'", "state tasks, or base and increment"),
            ("dataset = 'd'\nbase = 3", "base and increment belong together"),
            ("dataset = 'd'\nbase = 3\nincrement = 2\ntasks = 4", "not both"),
            ("dataset = 'd'\nkind = 'domain-incremental'\ntasks = 4", "one task per domain"),
            ("dataset = 'd'\nkind = 'task-incremental'\ntasks = 4", "task-incremental"),
            ("dataset = 'd'\ntasks = 'five'", "expected a number of tasks"),
            ("dataset = 'd'\ntasks = -1", "expected a number of tasks"),
            ("tasks = 2", "dataset"),
            (
                "dataset = 'd'\ntasks = [['a'], ['b']]\nclass_order = 'seed:1'",
                "leave class_order out",
            ),
            (
                "dataset = 'd'\ntasks = 2\n[transforms]\ncrop_scale = [0.5, 0.1]",
                "transforms.crop_scale",
            ),
        ] {
            let message = ScenarioSpec::parse(text, "x.toml").expect_err(text).to_string();
            assert!(message.contains(part) && message.starts_with("x.toml: "), "{message}");
        }
    }

    #[test]
    fn every_form_of_tasks_is_understood() {
        let tasks = |text: &str| {
            ScenarioSpec::parse(&format!("dataset = 'd'\n{text}"), "x.toml").expect(text)
        };
        assert_eq!(tasks("tasks = 4").tasks, Some(Tasks::Count(4)));
        let lists = Tasks::Lists(vec![
            vec![ClassRef::Name("cat".into()), ClassRef::Number(3)],
            vec![ClassRef::Number(0)],
        ]);
        assert_eq!(tasks("tasks = [['cat', 3], [0]]").tasks, Some(lists));
        assert_eq!(tasks("base = 50\nincrement = 10").base, Some(50));
        assert_eq!(
            tasks("kind = 'domain-incremental'\ndomains = ['b', 'a']").domains.map(|d| d.len()),
            Some(2)
        );
    }
}
