//! Reads a finished run from its folder.

use std::path::PathBuf;

use cilbench::method::{Player, Saved};
use cilbench::results::{Checkpoint, Identity, Record, RunFolder, Status, difference};
use cilbench::scenario::{Scenario, Task, TaskInfo};
use cilbench::{Error, Result};

use crate::args::{Experiment, FinishedArgs};
use crate::command_file;
use crate::prepare::Prepared;

/// A finished run's record and its experiment, with its inputs where they are now.
pub(crate) struct FinishedRun {
    pub folder: PathBuf,
    pub record: Record,
    pub experiment: Experiment,
}

impl FinishedRun {
    /// Reads the folder.
    pub(crate) fn open(args: &FinishedArgs) -> Result<Self> {
        let folder = &args.run;
        let Some(record) = RunFolder::read(folder)? else {
            return Err(Error::usage(format!(
                "{}: this is no run folder: there is no run.json in it",
                folder.display()
            )));
        };
        if record.status != Status::Finished {
            let text = format!(
                "{}: this run is not finished ({:?}): finish it with `cilbench run --resume {0}`",
                folder.display(),
                record.status
            );
            return Err(Error::usage(text));
        }
        let mut experiment = command_file::read(folder)?.experiment;
        if let Some(root) = &args.data_root {
            experiment.scenario.source.data_root = Some(root.clone());
        }
        if let Some(file) = &args.weights {
            experiment.backbone.weights = Some(file.clone());
        }
        Ok(Self { folder: folder.clone(), record, experiment })
    }

    /// Refuses inputs that are not those of the run.
    pub(crate) fn require_same(&self, identity: &Identity) -> Result<()> {
        match identity == &self.record.identity {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "{}: what is here is not what was run: {}",
                self.folder.display(),
                difference(&self.record.identity, identity)
            ))),
        }
    }

    /// The run's model, from its last checkpoint, and the tasks that it learned.
    pub(crate) fn model(&self, prepared: &Prepared) -> Result<(Box<dyn Player>, Vec<Task>)> {
        let record = &self.record;
        let mut scenario = prepared.stream(None)?;
        self.require_same(&prepared.identity(&scenario, record.identity.seed))?;
        let folder = self.folder.join("checkpoints");
        let (checkpoint, damaged) = Checkpoint::newest(&folder)?;
        damaged.iter().for_each(|d| eprintln!("warning: {d}"));
        let is_last = |c: &Checkpoint| {
            c.identity == record.identity.hash()
                && c.finished == record.tasks.len()
                && c.running.is_none()
        };
        let last = checkpoint.filter(is_last).ok_or_else(|| {
            Error::file(&folder, "the checkpoint of the finished run is not there, or damaged")
        })?;
        let recorded = record.receipts.last().map(|r| r.state_after.as_str());
        if recorded != Some(last.state.hash().as_str()) {
            return Err(Error::file(&folder, "the checkpoint's state is not the one in run.json"));
        }
        let tasks = all_tasks(&mut scenario)?;
        let infos: Vec<TaskInfo> = tasks.iter().map(|t| t.info.clone()).collect();
        let mut player = prepared.build()?;
        player.restore(&Saved::between_tasks(last.state, infos))?;
        Ok((player, tasks))
    }
}

/// All tasks of a scenario.
pub(crate) fn all_tasks(scenario: &mut dyn Scenario) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    while let Some(task) = scenario.next_task()? {
        tasks.push(task);
    }
    Ok(tasks)
}
