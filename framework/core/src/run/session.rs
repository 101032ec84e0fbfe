//! A run in progress: every task learned, scored and recorded, with checkpoints on the way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::drift::{drift, spectra};
use super::engine::{Event, Progress, RunPlan};
use super::evaluate::{TEST_BATCH, evaluate};
use super::exemplars::Memory;
use super::protocol::{Batches, Course, Feed, Position, Shown, Step, TaskDrive};
use super::task_host::TaskHost;
use crate::context::MemoryImage;
use crate::data::{Augment, ImageSet, Loader, Transforms, epoch_order};
use crate::method::{Plan, Player, Saved};
use crate::metrics::{Prediction, Scores};
use crate::results::{Checkpoint, Record, RunFolder, Running, Status, TaskRecord};
use crate::scenario::{Scenario, Task, TaskInfo};
use crate::state::{Kind, State};
use crate::{Error, Result};

/// The feed of a run: shuffled epochs from the loader.
pub struct EpochFeed<'a> {
    /// The task.
    pub task: &'a Task,
    /// The transforms of its images.
    pub transforms: &'a Transforms,
    /// The run's seed.
    pub seed: u64,
}

impl Feed for EpochFeed<'_> {
    fn epoch(&mut self, epoch: usize, skip: usize, plan: &Plan) -> Result<Batches> {
        let (index, train) = (self.task.info.index, &self.task.train);
        let order = epoch_order(self.seed, index, epoch, train.len());
        let augment = Augment::Epoch { seed: self.seed, task: index, epoch };
        Ok(Box::new(Loader::new(
            train,
            order,
            plan.batch_size,
            skip,
            self.transforms,
            plan.view,
            augment,
        )))
    }

    fn image_size(&self) -> usize {
        self.transforms.image_size
    }
}

/// Images and seconds of training so far.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    images: usize,
    seconds: f64,
}

/// A run in progress.
pub(super) struct Session<'a> {
    plan: &'a RunPlan<'a>,
    transforms: Transforms,
    folder: &'a mut RunFolder,
    progress: &'a mut dyn Progress,
    record: Record,
    player: Box<dyn Player>,
    memory: Memory,
    seen: Vec<Task>,
    work: Work,
    resume: Option<Checkpoint>,
}

impl<'a> Session<'a> {
    /// Takes up the folder's newest whole checkpoint, if there is one of this run.
    pub(super) fn open(
        plan: &'a RunPlan<'a>,
        transforms: Transforms,
        folder: &'a mut RunFolder,
        mut record: Record,
        progress: &'a mut dyn Progress,
    ) -> Result<Self> {
        let (checkpoint, mut warnings) = Checkpoint::newest(&folder.checkpoints())?;
        let resume = checkpoint.filter(|c| c.identity == record.identity.hash());
        match &resume {
            Some(checkpoint) => {
                let program = std::mem::take(&mut record.code_hash);
                record = serde_json::from_str(&checkpoint.record).map_err(|e| {
                    Error::file(
                        folder.checkpoints(),
                        format!("the record in the checkpoint cannot be read: {e}"),
                    )
                })?;
                if record.code_hash != program {
                    let short = &program[..program.len().min(12)];
                    warnings.push(format!(
                        "resumed by another build of cilbench ({short}) than it began with"
                    ));
                }
                (record.status, record.error) = (Status::Running, None);
                folder.continue_log(checkpoint.log_bytes)?;
            }
            None => folder.clear()?,
        }
        for warning in &warnings {
            progress.show(Event::Notice(&format!("warning: {warning}")));
        }
        record.warnings.extend(warnings);
        record.audited = plan.audit;
        folder.write(&mut record)?;
        let work = resume
            .as_ref()
            .map_or(Work::default(), |c| Work { images: c.images, seconds: c.seconds });
        let (player, memory, seen) = ((plan.build)()?, Memory::default(), Vec::new());
        Ok(Self { plan, transforms, folder, progress, record, player, memory, seen, work, resume })
    }

    /// The record as it is.
    pub(super) fn into_record(self) -> Record {
        self.record
    }

    /// Learns and scores every task that the checkpoint does not hold yet.
    pub(super) fn learn(&mut self, scenario: &mut dyn Scenario) -> Result<()> {
        let count = scenario.info().tasks.len();
        let players = [(&*self.player, self.plan.access)];
        let mut course = Course::open(scenario, players, self.plan.until)?;
        let done = self.resume.as_ref().map_or(0, |c| c.finished);
        while let Some(Shown { tasks: [task], own }) = course.next_task()? {
            if task.info.index < done {
                self.seen.push(task);
                if self.seen.len() == done {
                    self.take_up(None)?;
                }
                continue;
            }
            check(self.plan.stop, &format!("in task {}, before it began", task.info.index + 1))?;
            self.task(task, &own, count)?;
        }
        Ok(())
    }

    /// Takes over the checkpoint. `running` is the task in which it was taken, or none if it was
    /// taken between two tasks.
    fn take_up(&mut self, running: Option<&Task>) -> Result<Option<Running>> {
        let Some(checkpoint) = self.resume.take_if(|c| c.running.is_some() == running.is_some())
        else {
            return Ok(None);
        };
        let begun: Vec<&Task> = self.seen.iter().chain(running).collect();
        let tasks: Vec<TaskInfo> = begun.iter().map(|t| t.info.clone()).collect();
        let sets: Vec<ImageSet> = begun.iter().map(|t| t.train.clone()).collect();
        self.player.restore(&Saved {
            state: checkpoint.state,
            tasks,
            running: running.is_some(),
        })?;
        self.memory = Memory::restore(&checkpoint.memory, &sets)?;
        let place = match &checkpoint.running {
            Some(r) => {
                format!("task {}, epoch {}, step {}", checkpoint.finished + 1, r.epoch + 1, r.steps)
            }
            None => format!("the end of task {}", checkpoint.finished),
        };
        self.progress.show(Event::Notice(&format!("resumed from the checkpoint at {place}")));
        Ok(checkpoint.running)
    }

    /// Learns and scores one task; `own` are its own training images.
    fn task(&mut self, task: Task, own: &ImageSet, count: usize) -> Result<()> {
        let info = task.info.clone();
        let resumed = self.take_up(Some(&task))?;
        let (running, steps) = self.train(&task, own, count, resumed)?;
        let after = self.spectra(info.index, own)?;
        let relation_drift =
            running.spectra.as_deref().zip(after.as_deref()).map(|(old, new)| drift(old, new));

        self.progress.show(Event::Scoring);
        self.seen.push(task);
        let began = Instant::now();
        let mut predictions = self.score(&info)?;
        let state = self.player.state()?;
        if self.plan.audit {
            predictions = self.audit(&info, &state, predictions)?;
        }
        let classes: Vec<Vec<usize>> = self.seen.iter().map(|t| t.info.classes.clone()).collect();
        let result = TaskRecord {
            scores: Scores::of(&predictions, &classes),
            relation_drift,
            train_seconds: running.train_seconds,
            task_seconds: running.task_seconds,
            test_seconds: began.elapsed().as_secs_f64(),
            steps,
            state_hash: state.hash(),
        };
        self.progress.show(Event::End { task: info.index, record: &result });
        let file = self.folder.predictions(info.index, &predictions)?;
        self.record.files.extend([file]);
        self.record.receipt(running.state_before, state.hash());
        self.record.push(result);
        self.count(&running.at_start, &state)?;
        let at = At {
            finished: self.seen.len(),
            running: None,
            memory: self.memory.save(),
            work: self.work,
        };
        write_checkpoint(self.plan, self.folder, &self.record, state, at)?;
        self.folder.write(&mut self.record)
    }

    fn spectra(&self, index: usize, own: &ImageSet) -> Result<Option<Vec<f64>>> {
        spectra(&*self.player, index, own, self.plan.seed, &self.transforms, self.plan.placement)
    }

    /// Drives the method through a task. Gives what was measured on the way, and the number of
    /// steps.
    fn train(
        &mut self,
        task: &Task,
        own: &ImageSet,
        count: usize,
        resumed: Option<Running>,
    ) -> Result<(Running, usize)> {
        let (plan, info, fresh) = (self.plan, &task.info, resumed.is_none());
        let mut running = match resumed {
            Some(running) => running,
            None => Running {
                state_before: self.player.state()?.hash(),
                spectra: self.spectra(info.index, own)?,
                ..Running::default()
            },
        };
        let mut host = TaskHost::new(
            plan.seed,
            info.index,
            plan.access,
            &task.train,
            &self.transforms,
            &mut self.memory,
        );
        host.continue_from(std::mem::take(&mut running.draws));
        let feed = EpochFeed { task, transforms: &self.transforms, seed: plan.seed };
        let mut drive = TaskDrive::plan(&mut *self.player, info, host, feed, plan.placement)?;
        let planned = drive.planned();
        let steps = planned.total_steps(task.train.len());
        self.progress.show(Event::Begin {
            task: info,
            tasks: count,
            plan: planned,
            steps,
            done: running.steps,
        });
        if fresh {
            let began = Instant::now();
            drive.begin()?;
            running.task_seconds = began.elapsed().as_secs_f64();
            running.at_start = trained_hashes(&drive.player().state()?);
        } else {
            let Running { epoch, batches, steps, .. } = running;
            drive.resume(Position { epoch, batches, steps });
        }
        let mut clock = Clock::start();
        let (mut saved, stop) = (Instant::now(), plan.stop);
        while let Some(step) = drive.step()? {
            self.work.images += step.images;
            self.folder.log(&log_line(&step))?;
            self.progress.show(Event::Step(&step));
            clock.lap(&mut running, &mut self.work);
            let number = step.step + 1;
            let place =
                format!("in task {}, epoch {}, step {number}", step.task + 1, step.epoch + 1);
            let stopped = check(stop, &place);
            let due = plan.every_steps.is_some_and(|n| number.is_multiple_of(n))
                || saved.elapsed() >= plan.every;
            if due || stopped.is_err() {
                let Position { epoch, batches, steps } = drive.position();
                let draws = drive.host().draws().clone();
                let here = Running { epoch, batches, steps, draws, ..running.clone() };
                let memory = drive.host().memory();
                let at = At { finished: info.index, running: Some(here), memory, work: self.work };
                write_checkpoint(plan, self.folder, &self.record, drive.player().state()?, at)?;
                (saved, clock) = (Instant::now(), Clock::start());
            }
            stopped?;
        }
        clock.lap(&mut running, &mut self.work);
        let steps = drive.position().steps;
        self.progress.show(Event::Finishing);
        let began = Instant::now();
        drop(drive.end()?);
        running.task_seconds += began.elapsed().as_secs_f64();
        Ok((running, steps))
    }

    fn score(&self, info: &TaskInfo) -> Result<Vec<Prediction>> {
        let place = format!("in task {}, while scoring", info.index + 1);
        let (stop, placement) = (self.plan.stop, self.plan.placement);
        let batch = self.player.plan(info)?.test_batch.unwrap_or(TEST_BATCH);
        let mut watch = || check(stop, &place);
        evaluate(&*self.player, &self.seen, &self.transforms, placement, batch, &mut watch)
    }

    /// The amnesia audit: drops the method, rebuilds it from its counted state alone, and scores
    /// that. The run goes on with the rebuilt one.
    fn audit(
        &mut self,
        info: &TaskInfo,
        state: &State,
        before: Vec<Prediction>,
    ) -> Result<Vec<Prediction>> {
        self.player = (self.plan.build)()?;
        let tasks: Vec<TaskInfo> = self.seen.iter().map(|t| t.info.clone()).collect();
        self.player.restore(&Saved::between_tasks(state.clone(), tasks))?;
        let after = self.score(info)?;
        let differ = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let again = self.player.state()?;
        if differ > 0 || again.hash() != state.hash() {
            return Err(Error::Protocol(format!(
                "audit: rebuilt from its counted state after task {}, method '{}' predicts otherwise for {differ} of {} test images: \
                 it keeps something that its state does not hold",
                info.index + 1,
                self.record.identity.method,
                before.len()
            )));
        }
        Ok(after)
    }

    /// Brings the costs up to date.
    fn count(&mut self, at_start: &BTreeMap<String, String>, state: &State) -> Result<()> {
        let costs = &mut self.record.costs;
        let now = trained_hashes(state);
        let changed = |(name, _): &(&str, _)| at_start.get(*name) != now.get(*name);
        let trained = state.iter().filter(|(_, entry)| entry.kind == Kind::Trained);
        costs.trained_parameters =
            trained.filter(changed).map(|(_, entry)| entry.value.len()).sum();
        costs.stored_parameters =
            [Kind::Trained, Kind::Statistic, Kind::Buffer].iter().map(|k| state.elements(*k)).sum();
        costs.carried_bytes = state.carried_bytes();
        costs.stored_images = self.memory.len();
        costs.stored_image_bytes = self.memory.bytes()?;
        let Work { images, seconds } = self.work;
        costs.images_per_second = if seconds > 0.0 { images as f64 / seconds } else { 0.0 };
        Ok(())
    }
}

/// Seconds of training since the last lap.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn lap(&mut self, running: &mut Running, work: &mut Work) {
        let seconds = self.0.elapsed().as_secs_f64();
        self.0 = Instant::now();
        running.train_seconds += seconds;
        work.seconds += seconds;
    }
}

/// A step's line in `metrics.jsonl`.
fn log_line(step: &Step) -> serde_json::Value {
    let losses: serde_json::Map<_, _> =
        step.losses.0.iter().map(|(n, v)| (n.clone(), (*v).into())).collect();
    serde_json::json!({ "task": step.task, "epoch": step.epoch, "step": step.step, "losses": losses })
}

/// Where a checkpoint is taken.
struct At {
    finished: usize,
    running: Option<Running>,
    memory: MemoryImage,
    work: Work,
}

fn write_checkpoint(
    plan: &RunPlan,
    folder: &mut RunFolder,
    record: &Record,
    state: State,
    at: At,
) -> Result<()> {
    let unwritable =
        |e| Error::Protocol(format!("the run's record cannot be written as JSON: {e}"));
    let checkpoint = Checkpoint {
        identity: record.identity.hash(),
        finished: at.finished,
        running: at.running,
        state,
        memory: at.memory,
        record: serde_json::to_string(record).map_err(unwritable)?,
        log_bytes: folder.log_bytes()?,
        images: at.work.images,
        seconds: at.work.seconds,
    };
    checkpoint.write(&folder.checkpoints(), plan.keep)
}

fn check(stop: &AtomicBool, place: &str) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted(format!(
            "{place}; nothing is lost: the same command goes on from here"
        ))),
        false => Ok(()),
    }
}

/// A hash of every trained tensor, by name.
fn trained_hashes(state: &State) -> BTreeMap<String, String> {
    let trained = state.iter().filter(|(_, e)| e.kind == Kind::Trained);
    trained.map(|(name, e)| (name.to_owned(), crate::sha256(&e.value.bytes))).collect()
}
