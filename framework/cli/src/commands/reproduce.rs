//! `cilbench reproduce`: a run, or one of its tasks, executed again and compared.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cilbench::results::{Checkpoint, Record, RunFolder};
use cilbench::run::{RunPlan, execute};
use cilbench::state::State;
use cilbench::{Error, Result};

use super::Execute;
use crate::args::{FinishedArgs, GlobalArgs};
use crate::command_file;
use crate::finished::FinishedRun;
use crate::plugins::PluginPolicy;
use crate::prepare::Prepared;
use crate::progress::Display;

#[derive(clap::Args)]
pub(crate) struct Reproduce {
    #[command(flatten)]
    finished: FinishedArgs,
    /// Only this task, from 1, from the checkpoint before it (see --keep of `cilbench run`)
    #[arg(long, value_name = "N")]
    task: Option<usize>,
}

impl Execute for Reproduce {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::of_run(&command_file::read(&self.finished.run)?))
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        reproduce(self)
    }
}

/// The largest relative difference (Frobenius) of a tensor that still counts as rounding.
const ROUNDING: f64 = 1e-3;

fn reproduce(args: &Reproduce) -> Result<()> {
    let run = FinishedRun::open(&args.finished)?;
    let record = &run.record;
    require_unaltered(&run.folder, record)?;
    let count = record.tasks.len();
    let tasks = match args.task {
        Some(task) if task == 0 || task > count => {
            return Err(Error::usage(format!("--task {task}: the run has tasks 1 to {count}")));
        }
        Some(task) => task - 1..task,
        None => 0..count,
    };
    let prepared = Prepared::new(&run.experiment)?;
    let mut scenario = prepared.stream(None)?;
    let identity = prepared.identity(&scenario, record.identity.seed);
    run.require_same(&identity)?;
    let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let (mut folder, _) = RunFolder::open(scratch.path(), &identity)?;
    if tasks.start > 0 {
        checkpoint_before(&run, tasks.start)?.write(&folder.checkpoints(), usize::MAX)?;
    }
    let stop = AtomicBool::new(false);
    let build = || prepared.build();
    let plan = RunPlan {
        build: &build,
        seed: identity.seed,
        access: prepared.entry().about.access,
        placement: prepared.placement(),
        stop: &stop,
        keep: usize::MAX,
        every: Duration::MAX,
        every_steps: None,
        audit: record.audited,
        until: Some(tasks.end),
    };
    let again = execute(
        &plan,
        &mut scenario,
        &mut folder,
        Record::new(identity, Vec::new()),
        &mut Display::new(),
    )?;
    compare(args, &run, &again, scratch.path(), tasks)
}

/// The checkpoint of the state in which `task` began, counted from 0.
fn checkpoint_before(run: &FinishedRun, task: usize) -> Result<Checkpoint> {
    let folder = run.folder.join("checkpoints");
    let number = task + 1;
    let before = Checkpoint::after(&folder, task)?.ok_or_else(|| {
        Error::usage(format!("the checkpoint before task {number} was not kept: run with a larger --keep, or reproduce the whole run"))
    })?;
    match before.state.hash() == run.record.receipts[task].state_before {
        true => Ok(before),
        false => Err(Error::file(
            folder,
            format!("the state before task {number} is not the one in its receipt"),
        )),
    }
}

/// Refuses a folder that was changed since it was written.
fn require_unaltered(folder: &Path, record: &Record) -> Result<()> {
    let altered = RunFolder::alterations(folder, record);
    if !altered.is_empty() {
        return Err(Error::file(
            folder,
            format!("changed since it was written: {}; nothing was executed", altered.join(", ")),
        ));
    }
    if let Some(task) = record.broken_link() {
        return Err(Error::file(
            folder,
            format!(
                "the receipt of task {} does not follow from the one before; nothing was executed",
                task + 1
            ),
        ));
    }
    Ok(())
}

/// Prints that the run came out the same, or fails with the place where it did not.
fn compare(
    args: &Reproduce,
    run: &FinishedRun,
    again: &Record,
    scratch: &Path,
    tasks: Range<usize>,
) -> Result<()> {
    let record = &run.record;
    let what = match args.task {
        Some(task) => format!("task {task}"),
        None => format!("all {} tasks", tasks.len()),
    };
    let same_program = if record.code_hash == again.code_hash { "the same" } else { "another" };
    let differs = |t: &usize| {
        record.receipts[*t].state_after != again.receipts[*t].state_after
            || record.tasks[*t].scores != again.tasks[*t].scores
    };
    let Some(task) = tasks.clone().find(differs) else {
        println!(
            "bit-identical: {what}, weights and scores, with {same_program} build of cilbench"
        );
        return Ok(());
    };
    let state = |folder: &Path| -> Result<Option<State>> {
        Ok(Checkpoint::after(&folder.join("checkpoints"), task + 1)?.map(|c| c.state))
    };
    let found = match (state(&run.folder)?, state(scratch)?) {
        (Some(old), Some(new)) => differences(&old, &new)?,
        _ => Vec::new(),
    };
    let scores =
        tasks.clone().find(|t| record.tasks[*t].scores.by_task != again.tasks[*t].scores.by_task);
    let beyond = |d: &&Difference| d.error.is_none_or(|e| e > ROUNDING);
    // The first difference beyond rounding tells more than a smaller one before it.
    let place = match found.iter().find(beyond).or(found.first()) {
        Some(Difference { tensor, how, .. }) => {
            format!("first in task {}, tensor '{tensor}' ({how})", task + 1)
        }
        None => format!(
            "first in task {} (its checkpoint was not kept, so the tensor is unknown)",
            task + 1
        ),
    };
    let rounding = scores.is_none() && !found.iter().any(|d| beyond(&d));
    if rounding {
        println!(
            "equal to rounding: {what}; every accuracy is the same, the weights differ, {place}; {same_program} build of cilbench"
        );
        return Ok(());
    }
    let accuracy = scores.map(|t| {
        format!(
            "; accuracy after task {}: {:.2} then, {:.2} now",
            t + 1,
            record.tasks[t].scores.accuracy,
            again.tasks[t].scores.accuracy
        )
    });
    Err(Error::Protocol(format!(
        "different: {what}, {place}{}; {same_program} build of cilbench",
        accuracy.unwrap_or_default()
    )))
}

/// A tensor in which two states differ.
struct Difference {
    tensor: String,
    /// The relative difference of values, if the shapes are equal.
    error: Option<f64>,
    how: String,
}

fn differences(old: &State, new: &State) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    let missing = |tensor: &str, when: &str| Difference {
        tensor: tensor.to_owned(),
        error: None,
        how: format!("not there {when}"),
    };
    for (name, entry) in old.iter() {
        let Some(other) = new.get(name) else {
            found.push(missing(name, "now"));
            continue;
        };
        if entry == other {
            continue;
        }
        let tensor = name.to_owned();
        if entry.value.shape != other.value.shape {
            let how = format!(
                "shape {:?} then, {:?} now: the programs keep it differently",
                entry.value.shape, other.value.shape
            );
            found.push(Difference { tensor, error: None, how });
            continue;
        }
        let (a, b) = (entry.value.to_f64()?, other.value.to_f64()?);
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b))
            / norm(&mut a.iter().copied()).max(1e-12);
        found.push(Difference {
            tensor,
            error: Some(error),
            how: format!("relative difference {error:.1e}"),
        });
    }
    found.extend(
        new.iter()
            .filter(|(name, _)| old.get(name).is_none())
            .map(|(name, _)| missing(name, "then")),
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use cilbench::candle_core::{Device, Tensor};
    use cilbench::state::Kind;

    use super::*;

    #[test]
    fn each_tensor_that_differs_is_named_with_how_it_differs() {
        let state = |tensors: &[(&str, &[f32])]| {
            let mut state = State::new();
            for (name, values) in tensors {
                let tensor = Tensor::new(*values, &Device::Cpu).expect("tensor");
                state.put(*name, Kind::Statistic, &tensor).expect("put");
            }
            state
        };
        let old = state(&[("a", &[3.0, 4.0]), ("b", &[1.0])]);
        let said = |new: &[(&str, &[f32])]| {
            let found = differences(&old, &state(new)).expect("compared");
            found.into_iter().map(|d| (d.tensor, d.error.is_some(), d.how)).collect::<Vec<_>>()
        };
        assert!(said(&[("a", &[3.0, 4.0]), ("b", &[1.0])]).is_empty());
        let expected = |tensor: &str, values: bool, how: &str| {
            vec![(tensor.to_owned(), values, how.to_owned())]
        };
        assert_eq!(
            said(&[("a", &[3.0, 4.5]), ("b", &[1.0])]),
            expected("a", true, "relative difference 1.0e-1")
        );
        assert_eq!(
            said(&[("a", &[3.0, 4.0]), ("b", &[1.0, 2.0])]),
            expected("b", false, "shape [1] then, [2] now: the programs keep it differently")
        );
        assert_eq!(said(&[("a", &[3.0, 4.0])]), expected("b", false, "not there now"));
        assert_eq!(
            said(&[("a", &[3.0, 4.0]), ("b", &[1.0]), ("c", &[1.0])]),
            expected("c", false, "not there then")
        );
    }
}
