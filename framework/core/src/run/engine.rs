//! A whole run: every task of a scenario, learned and scored, into a run folder; stopped anywhere, it goes on from its last checkpoint.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Device};

use super::drift::{drift, spectra};
use super::drive::{Feed, Start, Step, train_task};
use super::evaluate::evaluate;
use super::host::TaskHost;
use super::memory::Memory;
use crate::context::Context;
use crate::data::{ImageSet, LoadedBatch, Loader, Transforms, View, epoch_order};
use crate::method::{Access, Method, Plan};
use crate::metrics::{Prediction, Scores};
use crate::results::{Checkpoint, Machine, Record, RunFolder, Running, Status, TaskRecord};
use crate::scenario::{Scenario, Task, TaskInfo};
use crate::state::{Kind, State};
use crate::{Error, Result, device};

/// What a run needs besides its scenario.
pub struct RunPlan<'a> {
    /// Builds the method anew, with nothing learned.
    pub build: &'a dyn Fn() -> Result<Box<dyn Method>>,
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

/// The feed of a run: shuffled epochs from the loader.
struct TaskFeed<'a> {
    task: &'a Task,
    transforms: &'a Transforms,
    seed: u64,
}

impl Feed for TaskFeed<'_> {
    fn epoch(&mut self, epoch: usize, skip: usize, batch_size: usize, view: View) -> Box<dyn Iterator<Item = Result<LoadedBatch>>> {
        let index = self.task.info.index;
        let order = epoch_order(self.seed, index, epoch, self.task.train.len());
        Box::new(Loader::new(&self.task.train, order, batch_size, skip, self.transforms, view, (self.seed, index, epoch)))
    }

    fn image_size(&self) -> usize {
        self.transforms.image_size
    }
}

/// Runs over `scenario`, writing `record` into `folder` as it goes; goes on from the folder's newest whole checkpoint, if there is one.
/// Whatever ends the run early is recorded there too.
///
/// # Errors
/// [`Error::Interrupted`] when stopped, [`Error::Diverged`] for a loss that is not finite, and whatever method or data fail with.
pub fn execute(
    plan: &RunPlan,
    scenario: &mut dyn Scenario,
    folder: &mut RunFolder,
    mut record: Record,
    progress: &mut dyn Progress,
) -> Result<Record> {
    record.machine.gpu = device::gpu_name(plan.device);
    device::reset_peak_memory(plan.device);
    let mut session = Session::open(plan, scenario.info().transforms.clone(), folder, record, progress)?;
    let outcome = session.learn(scenario);
    let Session { mut record, .. } = session;
    record.costs.peak_memory = Machine::peak_memory();
    record.costs.peak_device_memory = device::peak_memory(plan.device);
    match &outcome {
        Ok(()) => record.status = Status::Finished,
        Err(error) => {
            record.status = if matches!(error, Error::Interrupted(_)) { Status::Interrupted } else { Status::Failed };
            record.error = Some(error.to_string());
        }
    }
    let written = folder.write(&mut record);
    // What ended the run matters more than that its end could not be written down.
    outcome.and(written).map(|()| record)
}

/// A run in progress.
struct Session<'a> {
    plan: &'a RunPlan<'a>,
    transforms: Transforms,
    folder: &'a mut RunFolder,
    progress: &'a mut dyn Progress,
    record: Record,
    method: Box<dyn Method>,
    memory: Memory,
    seen: Vec<Task>,
    images: usize,
    seconds: f64,
    resume: Option<Checkpoint>,
}

impl<'a> Session<'a> {
    fn open(
        plan: &'a RunPlan<'a>,
        transforms: Transforms,
        folder: &'a mut RunFolder,
        mut record: Record,
        progress: &'a mut dyn Progress,
    ) -> Result<Self> {
        let (checkpoint, damaged) = Checkpoint::newest(&folder.checkpoints())?;
        let resume = checkpoint.filter(|c| c.identity == record.identity.hash());
        let mut warnings = damaged;
        match &resume {
            Some(checkpoint) => {
                let program = std::mem::take(&mut record.code_hash);
                record = serde_json::from_str(&checkpoint.record)
                    .map_err(|e| Error::file(folder.checkpoints(), format!("the record in the checkpoint cannot be read: {e}")))?;
                if record.code_hash != program {
                    warnings
                        .push(format!("resumed by another build of cilbench ({}) than it began with", &program[..program.len().min(12)]));
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
        let (images, seconds) = resume.as_ref().map_or((0, 0.0), |c| (c.images, c.seconds));
        let method = (plan.build)()?;
        Ok(Self {
            plan,
            transforms,
            folder,
            progress,
            record,
            method,
            memory: Memory::default(),
            seen: Vec::new(),
            images,
            seconds,
            resume,
        })
    }

    fn placement(&self) -> (DType, &'a Device) {
        (self.plan.dtype, self.plan.device)
    }

    fn learn(&mut self, scenario: &mut dyn Scenario) -> Result<()> {
        let count = scenario.info().tasks.len();
        self.method.check(scenario.info().classes())?;
        let done = self.resume.as_ref().map_or(0, |c| c.finished);
        while let Some(task) = scenario.next_task()? {
            let own = task.train.clone();
            let task = task.shown(self.plan.access, self.seen.last())?;
            if self.plan.until.is_some_and(|n| task.info.index >= n) {
                break;
            }
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

    /// Takes over the checkpoint: `running` is the task it was taken in, or none if it was taken between tasks.
    fn take_up(&mut self, running: Option<&Task>) -> Result<Option<Running>> {
        let Some(checkpoint) = self.resume.take_if(|c| c.running.is_some() == running.is_some()) else { return Ok(None) };
        let begun: Vec<&Task> = self.seen.iter().chain(running).collect();
        let infos: Vec<TaskInfo> = begun.iter().map(|t| t.info.clone()).collect();
        self.method.restore(&checkpoint.state, &infos, running.is_some())?;
        let sets: Vec<_> = begun.iter().map(|t| t.train.clone()).collect();
        self.memory = Memory::restore(&checkpoint.memory, &sets)?;
        let place = match &checkpoint.running {
            Some(r) => format!("task {}, epoch {}, step {}", checkpoint.finished + 1, r.epoch + 1, r.steps),
            None => format!("the end of task {}", checkpoint.finished),
        };
        self.progress.show(Event::Notice(&format!("resumed from the checkpoint at {place}")));
        Ok(checkpoint.running)
    }

    /// Learns and scores one task; `own` are its own training images.
    fn task(&mut self, task: Task, own: &ImageSet, count: usize) -> Result<()> {
        let info = task.info.clone();
        let how = self.method.plan(&info);
        if how.batch_size == 0 {
            return Err(Error::Protocol("the method planned a batch size of 0".into()));
        }
        let resumed = self.take_up(Some(&task))?;
        let steps = how.epochs * task.train.len().div_ceil(how.batch_size);
        let done = resumed.as_ref().map_or(0, |r| r.steps);
        self.progress.show(Event::Begin { task: &info, tasks: count, plan: &how, steps, done });

        let mut running = match resumed {
            Some(running) => running,
            None => self.begin(&task, own)?,
        };
        let (steps, mut host_draws) = self.train(&task, &how, &mut running)?;

        self.progress.show(Event::Finishing);
        let began = Instant::now();
        let mut host = TaskHost::new(self.plan.seed, info.index, self.plan.access, &task.train, &self.transforms, &mut self.memory);
        host.continue_from(std::mem::take(&mut host_draws));
        self.method.end_task(&info, &mut Context::new(&mut host, self.plan.device, self.plan.dtype))?;
        drop(host);
        running.task_seconds += began.elapsed().as_secs_f64();
        let after = spectra(&*self.method, (info.index, own), self.plan.seed, &self.transforms, self.placement())?;
        let relation_drift = running.spectra.as_deref().zip(after.as_deref()).map(|(old, new)| drift(old, new));

        self.progress.show(Event::Scoring);
        self.seen.push(task);
        let began = Instant::now();
        let mut predictions = self.score(&info)?;
        let state = self.method.state()?;
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
        self.checkpoint(state, None)?;
        self.folder.write(&mut self.record)
    }

    /// Begins a task: the model before it is measured, then the method makes room.
    fn begin(&mut self, task: &Task, own: &ImageSet) -> Result<Running> {
        let mut running = Running { state_before: self.method.state()?.hash(), ..Running::default() };
        running.spectra = spectra(&*self.method, (task.info.index, own), self.plan.seed, &self.transforms, self.placement())?;
        let began = Instant::now();
        let mut host = TaskHost::new(self.plan.seed, task.info.index, self.plan.access, &task.train, &self.transforms, &mut self.memory);
        self.method.begin_task(&task.info, &mut Context::new(&mut host, self.plan.device, self.plan.dtype))?;
        running.draws = host.draws().clone();
        running.task_seconds = began.elapsed().as_secs_f64();
        running.at_start = trained_hashes(&self.method.state()?);
        Ok(running)
    }

    /// The training steps of a task, with checkpoints on the way. Gives the number of steps and the host's draws.
    fn train(&mut self, task: &Task, how: &Plan, running: &mut Running) -> Result<(usize, BTreeMap<String, u64>)> {
        let plan = self.plan;
        let mut host = TaskHost::new(plan.seed, task.info.index, plan.access, &task.train, &self.transforms, &mut self.memory);
        host.continue_from(running.draws.clone());
        let mut feed = TaskFeed { task, transforms: &self.transforms, seed: plan.seed };
        let start = Start { epoch: running.epoch, batches: running.batches, steps: running.steps };
        let (mut clock, mut last) = (Instant::now(), Instant::now());
        let placement = (plan.dtype, plan.device);
        let steps = train_task(&mut *self.method, &task.info, how, &mut host, &mut feed, placement, start, &mut |step, method, host| {
            self.images += step.images;
            let losses: serde_json::Map<_, _> = step.losses.0.iter().map(|(n, v)| (n.clone(), (*v).into())).collect();
            let line = serde_json::json!({ "task": step.task, "epoch": step.epoch, "step": step.step, "losses": losses });
            self.folder.log(&line)?;
            self.progress.show(Event::Step(&step));
            let seconds = clock.elapsed().as_secs_f64();
            clock = Instant::now();
            running.train_seconds += seconds;
            self.seconds += seconds;
            let stopped = check(plan.stop, &format!("in task {}, epoch {}, step {}", step.task + 1, step.epoch + 1, step.step + 1));
            let due = plan.every_steps.is_some_and(|n| (step.step + 1).is_multiple_of(n)) || last.elapsed() >= plan.every;
            if due || stopped.is_err() {
                (running.epoch, running.batches, running.steps) = (step.epoch, step.batch + 1, step.step + 1);
                running.draws = host.draws().clone();
                let checkpoint = Checkpoint {
                    identity: self.record.identity.hash(),
                    finished: task.info.index,
                    running: Some(running.clone()),
                    state: method.state()?,
                    memory: host.memory(),
                    record: serde_json::to_string(&self.record).unwrap_or_default(),
                    log_bytes: self.folder.log_bytes()?,
                    images: self.images,
                    seconds: self.seconds,
                };
                checkpoint.write(&self.folder.checkpoints(), plan.keep)?;
                (last, clock) = (Instant::now(), Instant::now());
            }
            stopped
        })?;
        let seconds = clock.elapsed().as_secs_f64();
        running.train_seconds += seconds;
        self.seconds += seconds;
        Ok((steps, host.draws().clone()))
    }

    fn score(&self, info: &TaskInfo) -> Result<Vec<Prediction>> {
        let stop = || check(self.plan.stop, &format!("in task {}, while scoring", info.index + 1));
        evaluate(&*self.method, &self.seen, &self.transforms, self.placement(), &mut || stop())
    }

    /// The amnesia audit: drops the method, rebuilds it from its counted state alone, and scores that. The run goes on with the rebuilt one.
    fn audit(&mut self, info: &TaskInfo, state: &State, before: Vec<Prediction>) -> Result<Vec<Prediction>> {
        self.method = (self.plan.build)()?;
        let infos: Vec<TaskInfo> = self.seen.iter().map(|t| t.info.clone()).collect();
        self.method.restore(state, &infos, false)?;
        let after = self.score(info)?;
        let differ = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let again = self.method.state()?;
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
        let changed = state.iter().filter(|(name, entry)| entry.kind == Kind::Trained && at_start.get(*name) != now.get(*name));
        costs.trained_parameters = changed.map(|(_, entry)| entry.value.len()).sum();
        costs.stored_parameters = [Kind::Trained, Kind::Statistic, Kind::Buffer].iter().map(|k| state.elements(*k)).sum();
        costs.carried_bytes = state.carried_bytes();
        costs.stored_images = self.memory.len();
        costs.stored_image_bytes = self.memory.bytes()?;
        costs.images_per_second = if self.seconds > 0.0 { self.images as f64 / self.seconds } else { 0.0 };
        Ok(())
    }

    /// Writes a checkpoint at the end of a task.
    fn checkpoint(&mut self, state: State, running: Option<Running>) -> Result<()> {
        let checkpoint = Checkpoint {
            identity: self.record.identity.hash(),
            finished: self.seen.len(),
            running,
            state,
            memory: self.memory.save(),
            record: serde_json::to_string(&self.record).unwrap_or_default(),
            log_bytes: self.folder.log_bytes()?,
            images: self.images,
            seconds: self.seconds,
        };
        checkpoint.write(&self.folder.checkpoints(), self.plan.keep)
    }
}

fn check(stop: &AtomicBool, place: &str) -> Result<()> {
    match stop.load(Ordering::Relaxed) {
        true => Err(Error::Interrupted(format!("{place}; nothing is lost: the same command goes on from here"))),
        false => Ok(()),
    }
}

/// A hash of every trained tensor, by name.
fn trained_hashes(state: &State) -> BTreeMap<String, String> {
    state.iter().filter(|(_, e)| e.kind == Kind::Trained).map(|(name, e)| (name.to_owned(), crate::sha256(&e.value.bytes))).collect()
}

/// A warning if the backbone was pre-trained on the scenario's data set.
pub fn pretraining_warning(pretrained_on: &[String], dataset: &str, aliases: &[&str]) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let names: Vec<String> = aliases.iter().chain([&dataset]).map(|n| plain(n)).collect();
    let hit = pretrained_on.iter().find(|p| names.contains(&plain(p)))?;
    Some(format!("the backbone was pre-trained on '{hit}', which is this scenario's data set: these numbers say nothing about learning it"))
}

#[cfg(test)]
mod tests {
    use super::pretraining_warning;

    #[test]
    fn a_backbone_that_saw_the_data_set_is_warned_of() {
        let seen = ["tiny-imagenet".to_owned(), "CIFAR-100".to_owned()];
        assert!(pretraining_warning(&seen, "cifar100", &[]).expect("a warning").contains("CIFAR-100"));
        assert!(pretraining_warning(&seen, "fashion-mnist-small", &["fashion-mnist"]).is_none());
    }
}
