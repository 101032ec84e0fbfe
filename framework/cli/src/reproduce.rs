//! `cilbench reproduce`: a run, or one of its tasks, executed again and compared.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cilbench::results::{Checkpoint, Record, RunFolder, difference};
use cilbench::run::{RunPlan, execute};
use cilbench::state::State;
use cilbench::{Error, Result};

use crate::args::ReproduceArgs;
use crate::finished::{arguments, record};
use crate::prepare::Prepared;
use crate::progress::Display;

/// The largest relative difference (Frobenius) of a tensor that still counts as rounding.
const ROUNDING: f64 = 1e-3;

pub(crate) fn reproduce(args: &ReproduceArgs) -> Result<()> {
    let record = record(&args.run)?;
    inspect(&args.run, &record)?;
    let count = record.tasks.len();
    let (first, until) = match args.task {
        Some(task) if task == 0 || task > count => return Err(Error::usage(format!("--task {task}: the run has tasks 1 to {count}"))),
        Some(task) => (task - 1, task),
        None => (0, count),
    };
    let prepared = Prepared::new(&arguments(&args.run, &args.moved)?)?;
    let mut scenario = prepared.scenario(None)?;
    let identity = prepared.identity(&scenario, record.identity.seed);
    if identity != record.identity {
        let what = difference(&record.identity, &identity);
        return Err(Error::usage(format!("what is here is not what was run, so that it cannot be reproduced: {what}")));
    }
    let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
    let (mut folder, _) = RunFolder::open(scratch.path(), &identity)?;
    if first > 0 {
        let missing = || {
            Error::usage(format!(
                "the checkpoint before task {} was not kept: run with a larger --keep, or reproduce the whole run",
                first + 1
            ))
        };
        let before = Checkpoint::after(&args.run.join("checkpoints"), first)?.ok_or_else(missing)?;
        if before.state.hash() != record.receipts[first].state_before {
            return Err(Error::file(
                args.run.join("checkpoints"),
                format!("the state before task {} is not the one its receipt speaks of", first + 1),
            ));
        }
        before.write(&folder.checkpoints(), usize::MAX)?;
    }
    let stop = AtomicBool::new(false);
    let build = || prepared.build();
    let plan = RunPlan {
        build: &build,
        seed: identity.seed,
        access: prepared.entry.about.access,
        placement: &prepared.placement,
        stop: &stop,
        keep: usize::MAX,
        every: Duration::MAX,
        every_steps: None,
        audit: record.audited,
        until: Some(until),
    };
    let again = execute(&plan, &mut scenario, &mut folder, Record::new(identity, Vec::new()), &mut Display::new())?;
    compare(args, &record, &again, scratch.path(), first..until)
}

/// Says what was changed in the folder since it was written.
fn inspect(folder: &Path, record: &Record) -> Result<()> {
    let altered = RunFolder::alterations(folder, record);
    if !altered.is_empty() {
        return Err(Error::file(folder, format!("changed since it was written: {}; nothing was executed", altered.join(", "))));
    }
    if let Some(task) = record.broken_link() {
        return Err(Error::file(
            folder,
            format!("the receipt of task {} does not follow from the one before; nothing was executed", task + 1),
        ));
    }
    Ok(())
}

fn compare(args: &ReproduceArgs, record: &Record, again: &Record, scratch: &Path, tasks: std::ops::Range<usize>) -> Result<()> {
    let what = match args.task {
        Some(task) => format!("task {task}"),
        None => format!("all {} tasks", tasks.len()),
    };
    let same_program = if record.code_hash == again.code_hash { "the same" } else { "another" };
    let differs =
        |t: &usize| record.receipts[*t].state_after != again.receipts[*t].state_after || record.tasks[*t].scores != again.tasks[*t].scores;
    let Some(task) = tasks.clone().find(differs) else {
        println!("bit-identical: {what}, weights and scores, with {same_program} build of cilbench");
        return Ok(());
    };
    let state = |folder: &Path| -> Result<Option<State>> { Ok(Checkpoint::after(&folder.join("checkpoints"), task + 1)?.map(|c| c.state)) };
    let found = match (state(&args.run)?, state(scratch)?) {
        (Some(old), Some(new)) => differences(&old, &new)?,
        _ => Vec::new(),
    };
    let scores = tasks.clone().find(|t| record.tasks[*t].scores.by_task != again.tasks[*t].scores.by_task);
    let beyond = |d: &&Difference| d.error.is_none_or(|e| e > ROUNDING);
    // What is more than rounding tells more than what came before it.
    let place = match found.iter().find(beyond).or(found.first()) {
        Some(Difference { tensor, how, .. }) => format!("first in task {}, tensor '{tensor}' ({how})", task + 1),
        None => format!("first in task {} (its checkpoint was not kept, so the tensor is unknown)", task + 1),
    };
    let rounding = scores.is_none() && !found.iter().any(|d| beyond(&d));
    if rounding {
        println!("equal to rounding: {what}; every accuracy is the same, the weights differ, {place}; {same_program} build of cilbench");
        return Ok(());
    }
    let accuracy = scores.map(|t| {
        format!("; accuracy after task {}: {:.2} then, {:.2} now", t + 1, record.tasks[t].scores.accuracy, again.tasks[t].scores.accuracy)
    });
    Err(Error::Protocol(format!("different: {what}, {place}{}; {same_program} build of cilbench", accuracy.unwrap_or_default())))
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
    let missing = |tensor: &str, when: &str| Difference { tensor: tensor.to_owned(), error: None, how: format!("not there {when}") };
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
            let how = format!("shape {:?} then, {:?} now: the programs keep it differently", entry.value.shape, other.value.shape);
            found.push(Difference { tensor, error: None, how });
            continue;
        }
        let (a, b) = (entry.value.to_f64()?, other.value.to_f64()?);
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied()).max(1e-12);
        found.push(Difference { tensor, error: Some(error), how: format!("relative difference {error:.1e}") });
    }
    found.extend(new.iter().filter(|(name, _)| old.get(name).is_none()).map(|(name, _)| missing(name, "then")));
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
        let expected = |tensor: &str, values: bool, how: &str| vec![(tensor.to_owned(), values, how.to_owned())];
        assert_eq!(said(&[("a", &[3.0, 4.5]), ("b", &[1.0])]), expected("a", true, "relative difference 1.0e-1"));
        assert_eq!(
            said(&[("a", &[3.0, 4.0]), ("b", &[1.0, 2.0])]),
            expected("b", false, "shape [1] then, [2] now: the programs keep it differently")
        );
        assert_eq!(said(&[("a", &[3.0, 4.0])]), expected("b", false, "not there now"));
        assert_eq!(said(&[("a", &[3.0, 4.0]), ("b", &[1.0]), ("c", &[1.0])]), expected("c", false, "not there then"));
    }
}
