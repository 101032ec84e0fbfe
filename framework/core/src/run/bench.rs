//! How long a training step and a prediction take at a given task of a scenario.

use std::collections::VecDeque;
use std::time::Instant;

use candle_core::DType;

use super::exemplars::Memory;
use super::protocol::{Batches, Course, Feed, TaskDrive, to_tensors};
use super::task_host::TaskHost;
use crate::context::Placement;
use crate::data::{Augment, LoadedBatch, Transforms, View};
use crate::method::{Access, Plan, Player};
use crate::scenario::{Scenario, Task};
use crate::{Error, Result};

/// Seconds of each timed step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepSeconds {
    /// Seconds of each training step; none of a method that learns nothing before the task's end.
    pub train: Vec<f64>,
    /// Seconds of each prediction on as many images, once the task has ended.
    pub predict: Vec<f64>,
    /// The step's loss terms, to see that the work is done.
    pub losses: Vec<(String, f64)>,
}

impl StepSeconds {
    /// The median of the timed training steps and of the predictions, in seconds.
    pub fn medians(&self) -> (Option<f64>, Option<f64>) {
        let median = |values: &[f64]| {
            let mut sorted = values.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted.get(sorted.len() / 2).copied()
        };
        (median(&self.train), median(&self.predict))
    }
}

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub struct BenchAt {
    /// The task, from 0.
    pub task: usize,
    /// Images per step; at most as many as the task has.
    pub batch: usize,
    /// Timed steps.
    pub steps: usize,
}

/// The first images of a task, augmented anew for each step, and loaded before the clock runs.
struct Loaded {
    steps: VecDeque<LoadedBatch>,
    image_size: usize,
}

impl Loaded {
    fn new(task: &Task, count: usize, steps: usize, transforms: &Transforms) -> Result<Self> {
        let positions: Vec<usize> = (0..count).collect();
        let load = |epoch| {
            let augment = Augment::Epoch { seed: 0, task: task.info.index, epoch };
            task.train.load(&positions, transforms, View::Train, augment)
        };
        Ok(Self {
            steps: (0..steps).map(load).collect::<Result<_>>()?,
            image_size: transforms.image_size,
        })
    }
}

impl Feed for Loaded {
    fn epoch(&mut self, _: usize, _: usize, _: &Plan) -> Result<Batches> {
        Ok(Box::new(self.steps.pop_front().into_iter().map(Ok)))
    }

    fn image_size(&self) -> usize {
        self.image_size
    }
}

/// Seconds of `work`; a device has done all its work when the clock is read.
fn timed<T>(placement: &Placement, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    placement.device.synchronize()?;
    let began = Instant::now();
    let done = work()?;
    placement.device.synchronize()?;
    Ok((began.elapsed().as_secs_f64(), done))
}

/// Takes a method through the tasks before `at.task` with one step each, then times training steps
/// of that task on its first images, after one step to warm up, and predictions on as many of them
/// once the task has ended. Loading is not timed. The method is of no use afterwards.
///
/// # Errors
/// [`Error::Usage`] if the scenario has no such task; whatever the method fails with.
pub fn bench_steps(
    player: &mut dyn Player,
    access: Access,
    scenario: &mut dyn Scenario,
    at: BenchAt,
    placement: &Placement,
) -> Result<StepSeconds> {
    let transforms = scenario.info().transforms.clone();
    let mut memory = Memory::default();
    let mut course = Course::open(scenario, [(&*player, access)], None)?;
    while let Some(shown) = course.next_task()? {
        let [task] = shown.tasks;
        let last = task.info.index == at.task;
        let count = if last { at.batch } else { at.batch.min(8) }.min(task.train.len());
        let host = TaskHost::new(0, task.info.index, access, &task.train, &transforms, &mut memory);
        let steps = if last { at.steps } else { 0 };
        let feed = Loaded::new(&task, count, 1 + steps, &transforms)?;
        let found = train(player, &task, host, feed, steps, placement)?;
        if last {
            return predict(player, &task, count, &transforms, placement, found);
        }
    }
    Err(Error::usage(format!("there is no task {}", at.task + 1)))
}

/// One step, then `timed_steps` that are timed, and the end of the task.
fn train(
    player: &mut dyn Player,
    task: &Task,
    host: TaskHost,
    feed: Loaded,
    timed_steps: usize,
    placement: &Placement,
) -> Result<StepSeconds> {
    let mut found = StepSeconds::default();
    let mut drive = TaskDrive::plan(player, &task.info, host, feed, placement)?;
    drive.begin()?;
    if drive.planned().epochs > 0 {
        drive.set_steps(1 + timed_steps);
        drive.step()?;
        for _ in 0..timed_steps {
            let (seconds, step) = timed(placement, || drive.step())?;
            found.train.push(seconds);
            found.losses = step.map_or_else(Vec::new, |step| step.losses.0);
        }
    }
    drive.end()?;
    Ok(found)
}

/// As many predictions as there were timed steps, or as many as asked for if there was none.
fn predict(
    player: &dyn Player,
    task: &Task,
    count: usize,
    transforms: &Transforms,
    placement: &Placement,
    mut found: StepSeconds,
) -> Result<StepSeconds> {
    let positions: Vec<usize> = (0..count).collect();
    let loaded = task.train.load(&positions, transforms, View::Test, Augment::Never)?;
    let images = to_tensors(loaded, transforms.image_size, placement)?.images;
    for round in 0..=found.train.len().max(1) {
        // Read, as scoring reads them.
        let (seconds, _) = timed(placement, || {
            Ok(player.predict(&images)?.to_dtype(DType::F32)?.to_vec2::<f32>()?)
        })?;
        if round > 0 {
            found.predict.push(seconds);
        }
    }
    Ok(found)
}
