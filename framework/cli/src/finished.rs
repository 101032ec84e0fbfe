//! `cilbench eval` and `cilbench export`: a finished run's model, taken from its last checkpoint.

use std::collections::HashMap;
use std::path::Path;

use cilbench::method::{Player, Saved};
use cilbench::metrics::Scores;
use cilbench::results::{Checkpoint, Record, RunFolder, Status, difference};
use cilbench::run::evaluate;
use cilbench::scenario::{Scenario, Task, TaskInfo};
use cilbench::{Error, Result};

use crate::args::{EvalArgs, ExportArgs, Moved, RunArgs};
use crate::list::table;
use crate::prepare::{Prepared, started_with};

/// The arguments of a run, with its inputs where they are now.
pub(crate) fn arguments(folder: &Path, moved: &Moved) -> Result<RunArgs> {
    let mut args = started_with(folder)?;
    args.data_root = moved.data_root.clone().or(args.data_root);
    args.weights = moved.weights.clone().or(args.weights);
    Ok(args)
}

/// The record of a finished run.
pub(crate) fn record(folder: &Path) -> Result<Record> {
    let Some(record) = RunFolder::read(folder)? else {
        return Err(Error::usage(format!("{}: this is no run folder: there is no run.json in it", folder.display())));
    };
    if record.status != Status::Finished {
        let text =
            format!("{}: this run is not finished ({:?}): finish it with `cilbench run --resume {0}`", folder.display(), record.status);
        return Err(Error::usage(text));
    }
    Ok(record)
}

/// All tasks of a scenario.
fn tasks(scenario: &mut dyn Scenario) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    while let Some(task) = scenario.next_task()? {
        tasks.push(task);
    }
    Ok(tasks)
}

/// The model of a finished run.
fn model(folder: &Path, prepared: &Prepared, record: &Record) -> Result<(Box<dyn Player>, Vec<Task>)> {
    let mut scenario = prepared.scenario(None)?;
    let identity = prepared.identity(&scenario, record.identity.seed);
    if identity != record.identity {
        let what = difference(&record.identity, &identity);
        return Err(Error::usage(format!("{}: what is here is not what was run: {what}", folder.display())));
    }
    let (checkpoint, damaged) = Checkpoint::newest(&folder.join("checkpoints"))?;
    damaged.iter().for_each(|d| eprintln!("warning: {d}"));
    let last = checkpoint.filter(|c| c.identity == record.identity.hash() && c.finished == record.tasks.len() && c.running.is_none());
    let last =
        last.ok_or_else(|| Error::file(folder.join("checkpoints"), "the checkpoint of the finished run is not there, or damaged"))?;
    let recorded = record.receipts.last().map(|r| r.state_after.as_str());
    if recorded != Some(last.state.hash().as_str()) {
        return Err(Error::file(folder.join("checkpoints"), "the checkpoint's state is not the one that run.json speaks of"));
    }
    let tasks = tasks(&mut scenario)?;
    let infos: Vec<TaskInfo> = tasks.iter().map(|t| t.info.clone()).collect();
    let mut method = prepared.build()?;
    method.restore(&Saved::between_tasks(last.state, infos))?;
    Ok((method, tasks))
}

pub(crate) fn eval(args: &EvalArgs) -> Result<()> {
    let record = record(&args.run)?;
    let command = arguments(&args.run, &args.moved)?;
    let prepared = Prepared::new(&command)?;
    let (method, own) = model(&args.run, &prepared, &record)?;
    let tasks = match &args.scenario {
        None => own,
        Some(name) => {
            let other = RunArgs {
                scenario: name.clone(),
                image_size: Some(prepared.info.image_size),
                data_root: args.moved.data_root.clone().or(command.data_root.clone()),
                ..command.clone()
            };
            let order = Some(record.identity.scenario.class_order.clone());
            let others = tasks(&mut Prepared::new(&other)?.scenario(order)?)?;
            let names = |tasks: &[Task]| tasks.iter().flat_map(|t| t.info.class_names.clone()).collect::<Vec<_>>();
            if names(&own) != names(&others) {
                return Err(Error::usage(format!(
                    "scenario {name} does not have the classes of the run in the same order, so it cannot be scored"
                )));
            }
            others
        }
    };
    let predictions = evaluate(&*method, &tasks, &record.identity.scenario.transforms, &prepared.placement, &mut || Ok(()))?;
    let classes: Vec<Vec<usize>> = tasks.iter().map(|t| t.info.classes.clone()).collect();
    let scores = Scores::of(&predictions, &classes);
    let mut out = table(&["images", "accuracy", "task mean", "task-id", "task-aware", "ECE"]);
    let shown = [scores.accuracy, scores.task_mean, scores.task_id, scores.task_aware, scores.ece].map(|v| format!("{v:.2}"));
    let [a, b, c, d, e] = shown;
    out.add_row([predictions.len().to_string(), a, b, c, d, e]);
    println!("{out}");
    if args.scenario.is_none() {
        let then = record.summary.last;
        println!("when the run ended: {then:.2}{}", if then == scores.accuracy { ", the same" } else { ", which is NOT the same" });
    }
    Ok(())
}

pub(crate) fn export(args: &ExportArgs) -> Result<()> {
    let record = record(&args.run)?;
    let prepared = Prepared::new(&arguments(&args.run, &args.moved)?)?;
    let (method, tasks) = model(&args.run, &prepared, &record)?;
    let exported = method.export()?;
    let mut metadata: HashMap<String, String> = exported.metadata.into_iter().collect();
    let classes: Vec<String> = tasks.iter().flat_map(|t| t.info.class_names.clone()).collect();
    metadata.insert("classes".into(), serde_json::to_string(&classes).unwrap_or_default());
    metadata.insert("cilbench_run".into(), record.seal.clone());
    let tensors = exported.tensors.iter().map(|(name, tensor)| Ok((name.as_str(), tensor.contiguous()?))).collect::<Result<Vec<_>>>()?;
    let count = tensors.len();
    let failed = |e: &dyn std::fmt::Display| Error::file(&args.out, format!("cannot be written: {e}"));
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| failed(&e))?;
    std::fs::write(&args.out, bytes).map_err(Error::io(&args.out))?;
    println!("{count} tensors, {} classes in the head, written to {}", classes.len(), args.out.display());
    Ok(())
}
