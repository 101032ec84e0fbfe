//! A whole run: every task of a scenario, learned and scored, into a run folder.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::drive::{Feed, Step, to_tensors, train_task};
use super::evaluate::evaluate;
use super::host::TaskHost;
use super::memory::Memory;
use crate::context::Context;
use crate::data::{LoadedBatch, Loader, Transforms, View, epoch_order, shuffled};
use crate::method::{Access, Method, Plan};
use crate::metrics::Scores;
use crate::nn;
use crate::results::{Machine, Record, RunFolder, Status, TaskRecord};
use crate::rng::{Purpose, stream};
use crate::scenario::{Scenario, Task, TaskInfo};
use crate::state::{Kind, State};
use crate::{Error, Result};

/// Images on which relation drift is measured.
const DRIFT_IMAGES: usize = 512;
const DRIFT_BATCH: usize = 64;

/// What a run needs besides method and scenario.
pub struct RunPlan<'a> {
    /// The run seed.
    pub seed: u64,
    /// What the method may see of past images.
    pub access: Access,
    /// The floating-point type.
    pub dtype: DType,
    /// The device.
    pub device: &'a Device,
    /// Set from outside to stop the run.
    pub stop: &'a AtomicBool,
}

/// What happens in a run, for a progress display.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
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

/// The feed of a run: shuffled epochs from the loader.
struct TaskFeed<'a> {
    task: &'a Task,
    transforms: &'a Transforms,
    seed: u64,
}

impl Feed for TaskFeed<'_> {
    fn epoch(&mut self, epoch: usize, batch_size: usize, view: View) -> Box<dyn Iterator<Item = Result<LoadedBatch>>> {
        let index = self.task.info.index;
        let order = epoch_order(self.seed, index, epoch, self.task.train.len());
        Box::new(Loader::new(&self.task.train, order, batch_size, 0, self.transforms, view, (self.seed, index, epoch)))
    }

    fn image_size(&self) -> usize {
        self.transforms.image_size
    }
}

/// Runs `method` over `scenario`, writing `record` into `folder` as it goes. Whatever ends the run early is recorded there too.
///
/// # Errors
/// [`Error::Interrupted`] when stopped, [`Error::Diverged`] for a loss that is not finite, and whatever method or data fail with.
pub fn execute(
    plan: &RunPlan,
    scenario: &mut dyn Scenario,
    method: &mut dyn Method,
    folder: &mut RunFolder,
    record: &mut Record,
    progress: &mut dyn Progress,
) -> Result<()> {
    folder.clear()?;
    folder.write(record)?;
    let outcome = learn(plan, scenario, method, folder, record, progress);
    record.costs.peak_memory = Machine::peak_memory();
    match &outcome {
        Ok(()) => record.status = Status::Finished,
        Err(error) => {
            record.status = if matches!(error, Error::Interrupted(_)) { Status::Interrupted } else { Status::Failed };
            record.error = Some(error.to_string());
        }
    }
    folder.write(record)?;
    outcome
}

fn learn(
    plan: &RunPlan,
    scenario: &mut dyn Scenario,
    method: &mut dyn Method,
    folder: &mut RunFolder,
    record: &mut Record,
    progress: &mut dyn Progress,
) -> Result<()> {
    let placement = (plan.dtype, plan.device);
    let transforms = scenario.info().transforms.clone();
    let count = scenario.info().tasks.len();
    let mut memory = Memory::default();
    let mut seen: Vec<Task> = Vec::new();
    let (mut images, mut seconds) = (0, 0.0);
    while let Some(task) = scenario.next_task()? {
        let info = task.info.clone();
        let check = |place: &str| match plan.stop.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted(format!("in task {} {place}; what was finished is kept", info.index))),
            false => Ok(()),
        };
        check("before it began")?;
        let how = method.plan(&info);
        if how.batch_size == 0 {
            return Err(Error::Protocol("the method planned a batch size of 0".into()));
        }
        let steps = how.epochs * task.train.len().div_ceil(how.batch_size);
        progress.show(Event::Begin { task: &info, tasks: count, plan: &how, steps });
        let sample = if info.index > 0 { drift_sample(&task, plan.seed, &transforms)? } else { Vec::new() };
        let before = cls_tokens(method, &sample, &transforms, placement)?;

        let mut host = TaskHost::new(plan.seed, info.index, plan.access, &task.train, &transforms, &mut memory);
        let began = Instant::now();
        method.begin_task(&info, &mut Context::new(&mut host, plan.device, plan.dtype))?;
        let mut task_seconds = began.elapsed().as_secs_f64();
        let at_start = method.state()?;

        let began = Instant::now();
        let mut feed = TaskFeed { task: &task, transforms: &transforms, seed: plan.seed };
        let steps = train_task(method, &info, &how, &mut host, &mut feed, placement, &mut |step| {
            images += step.images;
            let losses: serde_json::Map<_, _> = step.losses.0.iter().map(|(n, v)| (n.clone(), (*v).into())).collect();
            folder.log(&serde_json::json!({ "task": step.task, "epoch": step.epoch, "step": step.step, "losses": losses }))?;
            progress.show(Event::Step(&step));
            check(&format!("epoch {}, step {}", step.epoch, step.step))
        })?;
        let train_seconds = began.elapsed().as_secs_f64();
        seconds += train_seconds;

        progress.show(Event::Finishing);
        let began = Instant::now();
        method.end_task(&info, &mut Context::new(&mut host, plan.device, plan.dtype))?;
        task_seconds += began.elapsed().as_secs_f64();
        drop(host);
        let after = cls_tokens(method, &sample, &transforms, placement)?;
        let relation_drift = before.zip(after).map(|(old, new)| nn::relation_drift(&new, &old)).transpose()?;

        progress.show(Event::Scoring);
        seen.push(task);
        let began = Instant::now();
        let predictions = evaluate(method, &seen, &transforms, placement, &mut || check("while scoring"))?;
        let classes: Vec<Vec<usize>> = seen.iter().map(|t| t.info.classes.clone()).collect();
        let state = method.state()?;
        let result = TaskRecord {
            scores: Scores::of(&predictions, &classes),
            relation_drift,
            train_seconds,
            task_seconds,
            test_seconds: began.elapsed().as_secs_f64(),
            steps,
            state_hash: state.hash(),
        };
        folder.predictions(info.index, &predictions)?;
        record.costs.trained_parameters = changed(&at_start, &state);
        record.costs.stored_parameters = [Kind::Trained, Kind::Statistic, Kind::Buffer].iter().map(|k| state.elements(*k)).sum();
        record.costs.carried_bytes = state.carried_bytes();
        record.costs.stored_images = memory.len();
        record.costs.stored_image_bytes = memory.bytes()?;
        record.costs.images_per_second = if seconds > 0.0 { images as f64 / seconds } else { 0.0 };
        progress.show(Event::End { task: info.index, record: &result });
        record.push(result);
        folder.write(record)?;
    }
    Ok(())
}

/// The number of trained elements whose tensors are new or differ.
fn changed(before: &State, after: &State) -> usize {
    let differs = |(name, entry): &(&str, &crate::state::Entry)| entry.kind == Kind::Trained && before.get(name) != Some(*entry);
    after.iter().filter(differs).map(|(_, entry)| entry.value.len()).sum()
}

/// Training images of the task under the test transform, in batches: a fixed sample of up to 512.
fn drift_sample(task: &Task, seed: u64, transforms: &Transforms) -> Result<Vec<LoadedBatch>> {
    let mut rng = stream(seed, Purpose::Measurement, &[&"relation-drift", &task.info.index]);
    let mut positions = shuffled(task.train.len(), &mut rng);
    positions.truncate(DRIFT_IMAGES);
    positions.chunks(DRIFT_BATCH).map(|p| task.train.load(p, transforms, View::Test, (0, 0, 0))).collect()
}

fn cls_tokens(method: &dyn Method, sample: &[LoadedBatch], transforms: &Transforms, placement: (DType, &Device)) -> Result<Option<Tensor>> {
    let mut all = Vec::new();
    for batch in sample {
        let data = to_tensors(batch.clone(), transforms.image_size, placement.0, placement.1)?;
        match method.cls_tokens(&data.images)? {
            Some(tokens) => all.push(tokens),
            None => return Ok(None),
        }
    }
    Ok(if all.is_empty() { None } else { Some(Tensor::cat(&all, 0)?) })
}

/// A warning if the backbone was pre-trained on the scenario's data set.
pub fn pretraining_warning(pretrained_on: &[String], dataset: &str, aliases: &[&str]) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let names: Vec<String> = aliases.iter().chain([&dataset]).map(|n| plain(n)).collect();
    let hit = pretrained_on.iter().find(|p| names.contains(&plain(p)))?;
    Some(format!("the backbone was pre-trained on '{hit}', which is this scenario's data set: these numbers say nothing about learning it"))
}
