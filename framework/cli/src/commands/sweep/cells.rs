//! The cells of a plan as runs that are ready to go, each with its folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use cilbench::method;
use cilbench::results::{Identity, RunFolder, Status};
use cilbench::{Error, Result};

use super::plan::{Plan, Wanted};
use super::slurm::Slurm;
use crate::args::RunArgs;
use crate::commands::run;
use crate::prepare::Prepared;

/// All cells of a plan.
pub(crate) struct Cells {
    /// In the order of the plan.
    pub all: Vec<Cell>,
    /// The folder below which all runs lie.
    pub out: PathBuf,
    /// How an array job is submitted.
    pub slurm: Option<Slurm>,
}

/// One run of a plan.
pub(crate) struct Cell {
    /// What `cilbench run` is told.
    pub args: RunArgs,
    /// What is run.
    pub identity: Identity,
    /// Its run folder.
    pub folder: PathBuf,
}

/// Where a cell stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// Nothing has been run yet.
    Missing,
    /// It is over.
    Finished,
    /// It was stopped, or fails, after so many tasks.
    Begun(String),
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Finished => f.write_str("finished"),
            Self::Begun(how) => f.write_str(how),
        }
    }
}

impl Cell {
    /// Where it stands, by its run folder.
    pub(crate) fn standing(&self) -> Result<Standing> {
        let Some(record) = RunFolder::read(&self.folder)? else { return Ok(Standing::Missing) };
        let (done, all) = (record.tasks.len(), self.identity.scenario.tasks.len());
        Ok(match record.status {
            Status::Finished => Standing::Finished,
            Status::Running => Standing::Begun(format!("running, {done} of {all} tasks")),
            Status::Interrupted => Standing::Begun(format!("interrupted, {done} of {all} tasks")),
            Status::Failed => Standing::Begun(format!("failed, {done} of {all} tasks")),
        })
    }
}

impl Cells {
    /// Reads a plan and checks every cell of it, before anything runs.
    ///
    /// # Errors
    /// What a cell cannot be run for, with the plan's line; two cells that are one run.
    pub(crate) fn of_plan(path: &Path, data_roots: &[String], weights: &[String]) -> Result<Self> {
        let (plan, wanted) = Plan::read(path)?;
        let wanted = taken_by_their_methods(path, wanted)?;
        let base = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let places = Places {
            data: named(&plan.data, &base, "--data-root", data_roots)?,
            weights: named(&plan.weights, &base, "--weights", weights)?,
        };
        let out = base.join(&plan.out);
        let (mut prepared, mut folders) = (HashMap::<String, Prepared>::new(), BTreeMap::new());
        let mut all = Vec::with_capacity(wanted.len());
        for wanted in &wanted {
            let cell = cell(wanted, &places, &out, &mut prepared)
                .map_err(|error| at(path, wanted.line, error))?;
            if let Some(line) = folders.insert(cell.folder.clone(), wanted.line) {
                return Err(Error::usage(format!(
                    "{}: the cells of line {line} and line {} are the same run ({}): leave one out",
                    path.display(),
                    wanted.line,
                    cell.folder.display()
                )));
            }
            all.push(cell);
        }
        Ok(Self { all, out, slurm: plan.slurm })
    }

    /// Runs one cell in this process. It waits up to `wait` seconds for the lock of another one.
    pub(crate) fn run_one(&self, number: usize, wait: u64) -> Result<()> {
        let cells = self.all.len();
        let cell = number.checked_sub(1).and_then(|i| self.all.get(i));
        let cell = cell.ok_or_else(|| {
            Error::usage(format!("--cell {number}: the plan has cells 1 to {cells}"))
        })?;
        run::run_waiting(&cell.args, std::time::Duration::from_secs(wait))
    }
}

/// The cells with those hyper-parameters of the plan alone that their methods have. Cells of the
/// grid that then are the same are one.
///
/// # Errors
/// [`Error::Usage`] for an unknown method, or for a hyper-parameter that no method of the plan has.
fn taken_by_their_methods(path: &Path, all: Vec<Wanted>) -> Result<Vec<Wanted>> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for cell in &all {
        if !known.contains_key(&cell.method) {
            let entry = method::find(&cell.method).map_err(|error| at(path, cell.line, error))?;
            known.insert(cell.method.clone(), entry.fields().into_iter().map(|f| f.key).collect());
        }
    }
    let of_any: BTreeSet<&str> = known.values().flatten().map(String::as_str).collect();
    let mut taken: Vec<Wanted> = Vec::with_capacity(all.len());
    for mut cell in all {
        let stated = |key: &str| cell.stated.iter().any(|own| own == key);
        let has = |key: &str| known.get(&cell.method).is_some_and(|keys| keys.contains(key));
        let unknown = |key: &&String| !stated(key) && !of_any.contains(key.as_str());
        if let Some(key) = cell.options.set.keys().find(unknown) {
            let error = Error::unknown("hyper-parameter of every method here", key, of_any);
            return Err(at(path, cell.line, error));
        }
        let mut options = cell.options.clone();
        options.set.retain(|key, _| stated(key) || has(key));
        options.epochs = options.epochs.filter(|_| stated("epochs") || has("epochs"));
        options.batch_size =
            options.batch_size.filter(|_| stated("batch_size") || has("batch_size"));
        let fewer = options != cell.options;
        cell.options = options;
        if fewer && taken.contains(&cell) {
            continue;
        }
        taken.push(cell);
    }
    Ok(taken)
}

/// An error of a cell, with its line in the plan.
fn at(path: &Path, line: usize, error: Error) -> Error {
    let place = format!("{}, line {line}", path.display());
    match error {
        Error::Usage(text) => Error::Usage(format!("{place}: {text}")),
        Error::Unsupported(text) => Error::Unsupported(format!("{place}: {text}")),
        Error::Protocol(text) => Error::Protocol(format!("{place}: {text}")),
        other => other,
    }
}

/// Folders and files by the names that a plan gives them.
struct Places {
    data: BTreeMap<String, PathBuf>,
    weights: BTreeMap<String, PathBuf>,
}

/// The plan's places, and those of the command line on top.
fn named(
    plan: &BTreeMap<String, PathBuf>,
    base: &Path,
    flag: &str,
    given: &[String],
) -> Result<BTreeMap<String, PathBuf>> {
    let mut all: BTreeMap<_, _> =
        plan.iter().map(|(name, path)| (name.clone(), base.join(path))).collect();
    for text in given {
        let (name, path) = text.split_once('=').ok_or_else(|| {
            Error::usage(format!(
                "{flag} {text}: expected a name and a path, as in {flag} cifar100=DIR"
            ))
        })?;
        all.insert(name.to_owned(), PathBuf::from(path));
    }
    Ok(all)
}

/// A cell that is ready to run. What cells have in common is prepared once.
fn cell(
    wanted: &Wanted,
    places: &Places,
    out: &Path,
    prepared: &mut HashMap<String, Prepared>,
) -> Result<Cell> {
    let mut args = RunArgs::defaults()?;
    fill(&mut args, wanted, places)?;
    let experiment = &args.experiment;
    // The class order decides nothing that is prepared.
    let mut shared = experiment.clone();
    shared.scenario.class_order = None;
    let key = serde_json::to_string(&shared)
        .map_err(|e| Error::Protocol(format!("the cell cannot be written as JSON: {e}")))?;
    if !prepared.contains_key(&key) {
        prepared.insert(key.clone(), Prepared::new(&shared)?);
    }
    let Some(ready) = prepared.get(&key) else {
        return Err(Error::Protocol("a prepared cell is gone".into()));
    };
    let stream = ready.stream(experiment.scenario.class_order()?)?;
    let identity = ready.identity(&stream, args.sweep.seed);
    let folder = run::folder_below(out, ready, &identity)?;
    args.out = Some(folder.clone());
    Ok(Cell { args, identity, folder })
}

/// Writes what a cell states into the options of a run.
fn fill(args: &mut RunArgs, wanted: &Wanted, places: &Places) -> Result<()> {
    let options = &wanted.options;
    let experiment = &mut args.experiment;
    experiment.method.clone_from(&wanted.method);
    let settings = &mut experiment.settings;
    settings.epochs = options.epochs;
    settings.batch_size = options.batch_size;
    settings.set = options.set.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let scenario = &mut experiment.scenario;
    if let Some(name) = &wanted.scenario {
        scenario.scenario.clone_from(name);
    }
    let spec = cilbench::scenario::find(&scenario.scenario)?;
    scenario.source.data_root =
        places.data.get(&spec.dataset).or_else(|| places.data.get(&spec.name)).cloned();
    scenario.source.split.clone_from(&options.split);
    scenario.class_order.clone_from(&wanted.class_order);
    scenario.image_size = options.image_size;
    scenario.train_per_class = options.train_per_class;
    scenario.test_per_class = options.test_per_class;
    let backbone = &mut experiment.backbone;
    backbone.backbone.clone_from(&wanted.backbone);
    backbone.weights = match &wanted.weights {
        None => None,
        Some(name) => Some(places.weights.get(name).cloned().ok_or_else(|| {
            Error::unknown("weights", name, places.weights.keys().map(String::as_str))
        })?),
    };
    backbone.heads = options.heads;
    backbone.mean.clone_from(&options.mean);
    backbone.std.clone_from(&options.std);
    if let Some(device) = &options.device {
        experiment.device.device.clone_from(device);
    }
    if let Some(dtype) = &options.dtype {
        experiment.device.dtype = clap::ValueEnum::from_str(dtype, true)
            .map_err(|e| Error::usage(format!("dtype = \"{dtype}\": {e}")))?;
    }
    args.sweep.seed = wanted.seed;
    args.audit = options.audit.unwrap_or(false);
    args.checkpoints.keep = options.keep.unwrap_or(args.checkpoints.keep);
    args.checkpoints.checkpoint_minutes =
        options.checkpoint_minutes.unwrap_or(args.checkpoints.checkpoint_minutes);
    Ok(())
}
