//! The plan file of a sweep: a grid and single cells, expanded into runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cilbench::{Error, Result};
use serde::Deserialize;
use toml::{Spanned, Table};

/// A plan file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// The folder below which every run has its own, relative to the plan.
    #[serde(default = "runs")]
    pub out: PathBuf,
    /// Options of every cell.
    #[serde(default)]
    pub run: Options,
    /// Every combination is a cell.
    #[serde(default)]
    pub grid: Grid,
    /// Single cells.
    #[serde(default)]
    pub cell: Vec<Cell>,
    /// Cells of the grid that are left out: those in which every stated value agrees.
    #[serde(default)]
    pub exclude: Vec<Exclude>,
    /// The folder of each data set by its name, relative to the plan.
    #[serde(default)]
    pub data: BTreeMap<String, PathBuf>,
    /// Weights files by a name of your own, relative to the plan.
    #[serde(default)]
    pub weights: BTreeMap<String, PathBuf>,
    /// How an array job is submitted.
    #[serde(default)]
    pub slurm: Option<super::slurm::Slurm>,
}

fn runs() -> PathBuf {
    "runs".into()
}

/// Options that a cell may state, and `[run]` for all cells.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    pub epochs: Option<i64>,
    pub batch_size: Option<i64>,
    pub image_size: Option<usize>,
    pub train_per_class: Option<usize>,
    pub test_per_class: Option<usize>,
    pub split: Option<String>,
    pub dtype: Option<String>,
    pub device: Option<String>,
    pub mean: Option<Vec<f64>>,
    pub std: Option<Vec<f64>>,
    pub heads: Option<usize>,
    pub audit: Option<bool>,
    pub keep: Option<usize>,
    pub checkpoint_minutes: Option<f64>,
    /// Hyper-parameters of the method.
    #[serde(default)]
    pub set: Table,
}

/// The values of the grid.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grid {
    #[serde(default)]
    pub method: Vec<Spanned<String>>,
    #[serde(default)]
    pub scenario: Vec<Spanned<String>>,
    #[serde(default)]
    pub backbone: Vec<Spanned<String>>,
    #[serde(default)]
    pub weights: Vec<Spanned<String>>,
    #[serde(default)]
    pub seed: Vec<u64>,
    #[serde(default)]
    pub class_order: Vec<String>,
    /// Lists of values of hyper-parameters. A method without the key takes none of them.
    #[serde(default)]
    pub set: BTreeMap<String, Vec<toml::Value>>,
}

/// A single cell.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cell {
    pub method: Spanned<String>,
    pub scenario: Option<Spanned<String>>,
    pub backbone: Option<Spanned<String>>,
    pub weights: Option<Spanned<String>>,
    #[serde(default)]
    pub seed: u64,
    pub class_order: Option<String>,
    #[serde(default)]
    pub options: Options,
}

/// Which cells of the grid are left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exclude {
    pub method: Option<String>,
    pub scenario: Option<String>,
    pub backbone: Option<String>,
    pub weights: Option<String>,
    pub seed: Option<u64>,
    pub class_order: Option<String>,
}

/// One run of the sweep.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    pub method: String,
    pub scenario: Option<String>,
    pub backbone: Option<String>,
    pub weights: Option<String>,
    pub seed: u64,
    pub class_order: Option<String>,
    pub options: Options,
    /// The hyper-parameters that a `[[cell]]` states for itself. Of all others its method takes
    /// those that it has.
    pub stated: Vec<String>,
    /// The line of the plan that names its method.
    pub line: usize,
}

impl Plan {
    /// Reads a plan file.
    ///
    /// # Errors
    /// [`Error::Usage`] with the line, and the nearest key for an unknown one.
    pub(crate) fn read(path: &Path) -> Result<(Self, Vec<Wanted>)> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let plan: Self =
            toml::from_str(&text).map_err(|e| Error::usage(explained(path, &e.to_string())))?;
        let cells = plan.expand(&text);
        if cells.is_empty() {
            let text = "the plan has no cell: state [grid] with method = [\"…\"], or a [[cell]]";
            return Err(Error::usage(format!("{}: {text}", path.display())));
        }
        Ok((plan, cells))
    }

    fn expand(&self, text: &str) -> Vec<Wanted> {
        let mut cells = Vec::new();
        let grid = &self.grid;
        for method in &grid.method {
            for options in self.grid_options() {
                for scenario in each(&grid.scenario) {
                    for backbone in each(&grid.backbone) {
                        for weights in each(&grid.weights) {
                            for class_order in optional(&grid.class_order) {
                                for seed in
                                    if grid.seed.is_empty() { &[0][..] } else { &grid.seed[..] }
                                {
                                    cells.push(Wanted {
                                        method: method.get_ref().clone(),
                                        scenario: scenario.clone(),
                                        backbone: backbone.clone(),
                                        weights: weights.clone(),
                                        seed: *seed,
                                        class_order: class_order.clone(),
                                        options: options.clone(),
                                        stated: Vec::new(),
                                        line: line(text, method.span().start),
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
        cells.retain(|cell| !self.exclude.iter().any(|exclude| exclude.matches(cell)));
        cells.extend(self.cell.iter().map(|cell| self.single(cell, text)));
        cells
    }

    fn single(&self, cell: &Cell, text: &str) -> Wanted {
        let name = |value: &Option<Spanned<String>>| value.as_ref().map(|v| v.get_ref().clone());
        Wanted {
            method: cell.method.get_ref().clone(),
            scenario: name(&cell.scenario),
            backbone: name(&cell.backbone),
            weights: name(&cell.weights),
            seed: cell.seed,
            class_order: cell.class_order.clone(),
            options: self.run.with(&cell.options),
            stated: cell.options.hyper_parameters(),
            line: line(text, cell.method.span().start),
        }
    }

    /// The options of the grid's cells: one for every combination of hyper-parameters.
    fn grid_options(&self) -> Vec<Options> {
        let mut all = vec![self.run.clone()];
        for (key, values) in &self.grid.set {
            let with = |options: &Options, value: &toml::Value| {
                let mut options = options.clone();
                options.set.insert(key.clone(), value.clone());
                options
            };
            all = all
                .iter()
                .flat_map(|options| values.iter().map(move |value| with(options, value)))
                .collect();
        }
        all
    }
}

impl Options {
    /// The keys of the hyper-parameters that are stated.
    fn hyper_parameters(&self) -> Vec<String> {
        let flags = [("epochs", self.epochs), ("batch_size", self.batch_size)];
        let flags = flags.into_iter().filter(|(_, v)| v.is_some()).map(|(k, _)| k.to_owned());
        flags.chain(self.set.keys().cloned()).collect()
    }

    /// These, with what `other` states on top.
    fn with(&self, other: &Self) -> Self {
        let mut set = self.set.clone();
        set.extend(other.set.clone());
        let (a, b) = (self.clone(), other.clone());
        Self {
            epochs: b.epochs.or(a.epochs),
            batch_size: b.batch_size.or(a.batch_size),
            image_size: b.image_size.or(a.image_size),
            train_per_class: b.train_per_class.or(a.train_per_class),
            test_per_class: b.test_per_class.or(a.test_per_class),
            split: b.split.or(a.split),
            dtype: b.dtype.or(a.dtype),
            device: b.device.or(a.device),
            mean: b.mean.or(a.mean),
            std: b.std.or(a.std),
            heads: b.heads.or(a.heads),
            audit: b.audit.or(a.audit),
            keep: b.keep.or(a.keep),
            checkpoint_minutes: b.checkpoint_minutes.or(a.checkpoint_minutes),
            set,
        }
    }
}

impl Exclude {
    fn matches(&self, cell: &Wanted) -> bool {
        let agrees = |stated: &Option<String>, value: Option<&String>| {
            stated.as_ref().is_none_or(|s| Some(s) == value)
        };
        agrees(&self.method, Some(&cell.method))
            && agrees(&self.scenario, cell.scenario.as_ref())
            && agrees(&self.backbone, cell.backbone.as_ref())
            && agrees(&self.weights, cell.weights.as_ref())
            && agrees(&self.class_order, cell.class_order.as_ref())
            && self.seed.is_none_or(|seed| seed == cell.seed)
    }
}

/// Each value, or none if there is no value.
fn each(values: &[Spanned<String>]) -> Vec<Option<String>> {
    optional(&values.iter().map(|v| v.get_ref().clone()).collect::<Vec<_>>())
}

fn optional(values: &[String]) -> Vec<Option<String>> {
    if values.is_empty() { vec![None] } else { values.iter().cloned().map(Some).collect() }
}

fn line(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].matches('\n').count() + 1
}

/// What is wrong in a plan file, with the nearest key for one that is unknown.
fn explained(path: &Path, error: &str) -> String {
    let quoted = |text: &str| text.split('`').nth(1).map(str::to_owned);
    let hint = error.split_once("unknown field ").and_then(|(_, rest)| {
        let unknown = quoted(rest)?;
        let known: Vec<&str> = rest.split('`').skip(3).step_by(2).collect();
        match Error::unknown("key", &unknown, known) {
            Error::Usage(text) => Some(text),
            _ => None,
        }
    });
    let error = error.trim_end();
    match hint {
        Some(hint) => format!("{}: {error}\n{hint}", path.display()),
        None => format!("{}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Wanted>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, text).expect("written");
        Plan::read(&path).map(|(_, cells)| cells)
    }

    #[test]
    fn a_grid_has_every_combination_but_those_excluded() {
        let cells = read(
            "[run]\nepochs = 2\n[grid]\nmethod = [\"lora\", \"joint\"]\nseed = [0, 1, 2]\nset.rank = [2, 4]\n\
             [[exclude]]\nmethod = \"joint\"\nseed = 2\n[[cell]]\nmethod = \"simplecil\"\noptions.epochs = 1\n",
        )
        .expect("a plan");
        assert_eq!(cells.len(), 2 * 3 * 2 - 2 + 1);
        let seeds = |method: &str| {
            cells.iter().filter(|c| c.method == method).map(|c| c.seed).collect::<Vec<_>>()
        };
        assert_eq!(seeds("joint"), [0, 1, 0, 1]);
        let ranks: Vec<_> = cells[..6].iter().map(|c| c.options.set["rank"].as_integer()).collect();
        assert_eq!(ranks, [2, 2, 2, 4, 4, 4].map(Some));
        assert_eq!((cells[0].options.epochs, cells[10].options.epochs), (Some(2), Some(1)));
        assert_eq!((cells[0].line, cells[10].line), (4, 11), "the lines that name the methods");
    }

    #[test]
    fn a_key_that_is_not_known_is_named_with_its_line_and_the_nearest_one() {
        let error =
            read("[grid]\nmethod = [\"lora\"]\nseeds = [0]\n").expect_err("a typo").to_string();
        assert!(error.contains("line 3") && error.contains("did you mean 'seed'?"), "{error}");
        let error = read("[run]\nepochs = \"two\"\n[grid]\nmethod = [\"lora\"]\n")
            .expect_err("a text")
            .to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(read("").expect_err("nothing").to_string().contains("no cell"));
    }
}
