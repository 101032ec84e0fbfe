//! `cilbench eval`: scores a finished run's model again.

use cilbench::metrics::Scores;
use cilbench::run::{TEST_BATCH, evaluate};
use cilbench::scenario::{self, Task};
use cilbench::{Error, Result};

use super::Execute;
use crate::args::{FinishedArgs, GlobalArgs, ScenarioArgs};
use crate::command_file;
use crate::finished::{FinishedRun, all_tasks};
use crate::output::table;
use crate::plugins::PluginPolicy;
use crate::prepare::{OpenScenario, Prepared};

#[derive(clap::Args)]
pub(crate) struct Eval {
    #[command(flatten)]
    finished: FinishedArgs,
    /// Score on another scenario's test images; its classes must come in the same order
    #[arg(long)]
    scenario: Option<String>,
}

impl Execute for Eval {
    fn plugins(&self) -> Result<PluginPolicy> {
        Ok(PluginPolicy::of_run(&command_file::read(&self.finished.run)?))
    }

    fn execute(&self, _: &GlobalArgs) -> Result<()> {
        let run = FinishedRun::open(&self.finished)?;
        let prepared = Prepared::new(&run.experiment)?;
        let (player, own) = run.model(&prepared)?;
        let other = self
            .scenario
            .as_ref()
            .map(|name| other_tasks(name, &run, &prepared, &own))
            .transpose()?;
        let tasks = other.as_ref().unwrap_or(&own);
        let record = &run.record;
        let transforms = &record.identity.scenario.transforms;
        // As the run scored: a forward pass of another number of images may differ by rounding.
        let last = own.last().ok_or_else(|| Error::usage("the scenario has no task"))?;
        let batch = player.plan(&last.info)?.test_batch.unwrap_or(TEST_BATCH);
        let predictions =
            evaluate(&*player, tasks, transforms, prepared.placement(), batch, &mut || Ok(()))?;
        let classes: Vec<Vec<usize>> = tasks.iter().map(|t| t.info.classes.clone()).collect();
        let scores = Scores::of(&predictions, &classes);
        let mut out = table(&["images", "accuracy", "task mean", "task-id", "task-aware", "ECE"]);
        let shown =
            [scores.accuracy, scores.task_mean, scores.task_id, scores.task_aware, scores.ece];
        out.add_row(
            [predictions.len().to_string()].into_iter().chain(shown.map(|v| format!("{v:.2}"))),
        );
        println!("{out}");
        if self.scenario.is_none() {
            let then = record.summary.last;
            let verdict =
                if then == scores.accuracy { ", the same" } else { ", which is NOT the same" };
            println!("when the run ended: {then:.2}{verdict}");
        }
        Ok(())
    }
}

/// The tasks of another scenario, whose classes must be those of the run in the same order.
fn other_tasks(
    name: &str,
    run: &FinishedRun,
    prepared: &Prepared,
    own: &[Task],
) -> Result<Vec<Task>> {
    let args = ScenarioArgs { scenario: name.to_owned(), ..run.experiment.scenario.clone() };
    let other = OpenScenario::open(scenario::find(name)?, &args, prepared.info.image_size)?;
    let mut stream = other.stream(Some(run.record.identity.scenario.class_order.clone()))?;
    scenario::require_whole(&stream)?;
    let tasks = all_tasks(&mut stream)?;
    let names =
        |tasks: &[Task]| tasks.iter().flat_map(|t| t.info.class_names.clone()).collect::<Vec<_>>();
    match names(own) == names(&tasks) {
        true => Ok(tasks),
        false => Err(Error::usage(format!(
            "scenario {name} does not have the classes of the run in the same order, so it cannot be scored"
        ))),
    }
}
