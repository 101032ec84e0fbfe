//! A whole run: every task of a scenario, learned and scored, into a run folder; stopped anywhere,
//! it goes on from its last checkpoint.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::protocol::Step;
use super::session::Session;
use crate::context::Placement;
use crate::method::{Access, Plan, Player};
use crate::results::{Machine, Record, RunFolder, Status, TaskRecord};
use crate::scenario::{Scenario, TaskInfo};
use crate::{Error, Result, device};

/// What a run needs besides its scenario.
pub struct RunPlan<'a> {
    /// Builds the method anew, with nothing learned.
    pub build: &'a dyn Fn() -> Result<Box<dyn Player>>,
    /// The run seed.
    pub seed: u64,
    /// What the method may see of past images.
    pub access: Access,
    /// The device and the floating-point type.
    pub placement: &'a Placement,
    /// Set from outside to stop the run.
    pub stop: &'a AtomicBool,
    /// Checkpoints kept.
    pub keep: usize,
    /// Time between two checkpoints within a task.
    pub every: Duration,
    /// Steps between two checkpoints within a task, if counted.
    pub every_steps: Option<usize>,
    /// Whether each task is scored with a method rebuilt from its counted state alone.
    pub audit: bool,
    /// Stop after so many tasks, as if the scenario had no more.
    pub until: Option<usize>,
}

/// What happens in a run, for a progress display.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// Something the user must know.
    Notice(&'a str),
    /// A task begins.
    Begin {
        /// The task.
        task: &'a TaskInfo,
        /// The number of tasks.
        tasks: usize,
        /// How it is trained.
        plan: &'a Plan,
        /// Its number of training steps.
        steps: usize,
        /// Steps that were done before.
        done: usize,
    },
    /// A training step is over.
    Step(&'a Step),
    /// The training steps are over; the method finishes the task.
    Finishing,
    /// The task is being scored.
    Scoring,
    /// The task is over.
    End {
        /// The task, from 0.
        task: usize,
        /// What is recorded of it.
        record: &'a TaskRecord,
    },
}

/// A display of progress.
pub trait Progress {
    /// Shows an event.
    fn show(&mut self, event: Event);
}

/// Runs over `scenario`, writing `record` into `folder` as it goes; goes on from the folder's
/// newest whole checkpoint, if there is one. Whatever ends the run early is recorded there too.
///
/// # Errors
/// [`Error::Interrupted`] when stopped, [`Error::Diverged`] for a loss that is not finite, and
/// whatever method or data fail with.
pub fn execute(
    plan: &RunPlan,
    scenario: &mut dyn Scenario,
    folder: &mut RunFolder,
    mut record: Record,
    progress: &mut dyn Progress,
) -> Result<Record> {
    record.machine.gpu = device::gpu_name(&plan.placement.device);
    device::reset_peak_memory(&plan.placement.device);
    let mut session =
        Session::open(plan, scenario.info().transforms.clone(), folder, record, progress)?;
    let outcome = session.learn(scenario);
    let mut record = session.into_record();
    record.costs.peak_memory = Machine::peak_memory();
    record.costs.peak_device_memory = device::peak_memory(&plan.placement.device);
    match &outcome {
        Ok(()) => record.status = Status::Finished,
        Err(error) => {
            record.status = if matches!(error, Error::Interrupted(_)) {
                Status::Interrupted
            } else {
                Status::Failed
            };
            record.error = Some(error.to_string());
        }
    }
    let written = folder.write(&mut record);
    // What ended the run matters more than that its end could not be written down.
    outcome.and(written).map(|()| record)
}

/// A warning if the backbone was pre-trained on the scenario's data set.
pub fn pretraining_warning(
    pretrained_on: &[String],
    dataset: &str,
    aliases: &[&str],
) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let names: Vec<String> = aliases.iter().chain([&dataset]).map(|n| plain(n)).collect();
    let hit = pretrained_on.iter().find(|p| names.contains(&plain(p)))?;
    Some(format!(
        "the backbone was pre-trained on '{hit}', which is this scenario's data set: these numbers say nothing about learning it"
    ))
}

#[cfg(test)]
mod tests {
    use super::pretraining_warning;

    #[test]
    fn a_backbone_that_saw_the_data_set_is_warned_of() {
        let seen = ["tiny-imagenet".to_owned(), "CIFAR-100".to_owned()];
        assert!(
            pretraining_warning(&seen, "cifar100", &[]).expect("a warning").contains("CIFAR-100")
        );
        assert!(pretraining_warning(&seen, "fashion-mnist-small", &["fashion-mnist"]).is_none());
    }
}
