//! The rule book: what the harness asks of a method, and in which order.
//!
//! A [`Course`] hands out the tasks of a scenario as a method may see them. A [`TaskDrive`] takes
//! one method through one task: plan, begin, a step per batch of each epoch, end. A run, a replay,
//! the comparison of two implementations, the conformance suite and the benchmark all drive methods
//! with these two, and do what is theirs between the calls.

use candle_core::Tensor;

use crate::context::{Host, Images, Placement, TaskCall};
use crate::data::{ImageSet, LoadedBatch};
use crate::method::{Access, Batch, Losses, Plan, Player};
use crate::scenario::{Scenario, Task, TaskInfo};
use crate::{Error, Result};

/// The tasks of a scenario, as `N` methods with these accesses are shown them.
pub struct Course<'a, const N: usize> {
    scenario: &'a mut dyn Scenario,
    access: [Access; N],
    until: Option<usize>,
    before: Option<[Task; N]>,
}

/// A task as each method is shown it.
pub struct Shown<const N: usize> {
    /// The task, with the training images that each method may see.
    pub tasks: [Task; N],
    /// The task's own training images.
    pub own: ImageSet,
}

impl<'a, const N: usize> Course<'a, N> {
    /// Asks each method whether it suits the scenario. The course ends after `until` tasks, if that
    /// is stated.
    ///
    /// # Errors
    /// What [`Player::check`] fails with.
    pub fn open(
        scenario: &'a mut dyn Scenario,
        players: [(&dyn Player, Access); N],
        until: Option<usize>,
    ) -> Result<Self> {
        let facts = scenario.info().facts();
        players.iter().try_for_each(|(player, _)| player.check(&facts))?;
        let access = players.map(|(_, access)| access);
        Ok(Self { scenario, access, until, before: None })
    }

    /// The next task; none after the last.
    pub fn next_task(&mut self) -> Result<Option<Shown<N>>> {
        let Some(task) = self.scenario.next_task()? else { return Ok(None) };
        if self.until.is_some_and(|n| task.info.index >= n) {
            return Ok(None);
        }
        let own = task.train.clone();
        let mut tasks = Vec::with_capacity(N);
        for (i, access) in self.access.iter().enumerate() {
            tasks.push(task.clone().shown(*access, self.before.as_ref().map(|before| &before[i]))?);
        }
        let Ok(tasks) = <[Task; N]>::try_from(tasks) else { unreachable!("one task per method") };
        self.before = Some(tasks.clone());
        Ok(Some(Shown { tasks, own }))
    }
}

/// Where a task's training batches come from.
pub trait Feed {
    /// The batches of an epoch, in order, without the first `skip`.
    fn epoch(&mut self, epoch: usize, skip: usize, plan: &Plan) -> Result<Batches>;

    /// The side of the images, in pixels.
    fn image_size(&self) -> usize;
}

/// The batches of an epoch.
pub type Batches = Box<dyn Iterator<Item = Result<LoadedBatch>>>;

/// A finished training step, for whoever watches.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The task, from 0.
    pub task: usize,
    /// The epoch, from 0.
    pub epoch: usize,
    /// The batch within the epoch, from 0.
    pub batch: usize,
    /// The step within the task, from 0.
    pub step: usize,
    /// Images in the batch.
    pub images: usize,
    /// The loss terms before the update.
    pub losses: Losses,
}

/// Where in a task's training the next step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: usize,
    /// Batches of that epoch that are done.
    pub batches: usize,
    /// Steps of the task that are done.
    pub steps: usize,
}

/// One method in one task.
pub struct TaskDrive<'a, H, F> {
    player: &'a mut dyn Player,
    task: &'a TaskInfo,
    host: H,
    feed: F,
    placement: &'a Placement,
    plan: Plan,
    position: Position,
    batches: Option<Batches>,
}

impl<'a, H: Host, F: Feed> TaskDrive<'a, H, F> {
    /// Asks the method how it wants to be trained. `host` answers its calls for the whole task.
    pub fn plan(
        player: &'a mut dyn Player,
        task: &'a TaskInfo,
        host: H,
        feed: F,
        placement: &'a Placement,
    ) -> Result<Self> {
        let plan = player.plan(task)?;
        Ok(Self {
            player,
            task,
            host,
            feed,
            placement,
            plan,
            position: Position::default(),
            batches: None,
        })
    }

    /// How the method wants to be trained.
    pub fn planned(&self) -> &Plan {
        &self.plan
    }

    /// Trains for so many steps, whatever the method planned: for benchmarks.
    pub(super) fn set_steps(&mut self, steps: usize) {
        self.plan.steps = Some(steps);
    }

    /// The task begins.
    pub fn begin(&mut self) -> Result<()> {
        self.host.enter(TaskCall::Begin);
        self.player.begin_task(self.task, &mut self.host)
    }

    /// The task had begun before: training goes on from here.
    pub fn resume(&mut self, position: Position) {
        self.position = position;
    }

    /// The next training step; none once training is over.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss term is not finite; what the method or the feed fail with.
    pub fn step(&mut self) -> Result<Option<Step>> {
        while let Some(batch) = self.next_batch()? {
            let Some(loaded) = batch else { continue };
            return self.observe(loaded).map(Some);
        }
        Ok(None)
    }

    /// The next batch: none once training is over, an inner none at the end of an epoch.
    fn next_batch(&mut self) -> Result<Option<Option<LoadedBatch>>> {
        let Position { epoch, batches, steps } = self.position;
        let over = match self.plan.steps {
            Some(all) if self.plan.epochs > 0 => steps >= all,
            _ => epoch >= self.plan.epochs,
        };
        if over {
            return Ok(None);
        }
        let feed = match &mut self.batches {
            Some(feed) => feed,
            None => self.batches.insert(self.feed.epoch(epoch, batches, &self.plan)?),
        };
        let left_out = |b: &LoadedBatch| {
            self.plan.drop_last && batches > 0 && b.labels.len() < self.plan.batch_size
        };
        match feed.next().transpose()?.filter(|loaded| !left_out(loaded)) {
            Some(loaded) => Ok(Some(Some(loaded))),
            None if self.plan.steps.is_some() && batches == 0 => {
                Err(Error::Protocol(format!("task {} has no training image", self.task.index + 1)))
            }
            None => {
                self.batches = None;
                self.position = Position { epoch: epoch + 1, batches: 0, steps };
                Ok(Some(None))
            }
        }
    }

    fn observe(&mut self, loaded: LoadedBatch) -> Result<Step> {
        let (task, Position { epoch, batches, steps }) = (self.task.index, self.position);
        let images = loaded.labels.len();
        let data = to_tensors(loaded, self.feed.image_size(), self.placement)?;
        let batch = Batch { data, epoch, step: steps };
        self.host.enter(TaskCall::Step(steps));
        let losses = self.player.observe(&batch, self.task, &mut self.host)?;
        if let Some((term, value)) = losses.0.iter().find(|(_, v)| !v.is_finite()) {
            return Err(Error::Diverged(format!(
                "the loss term '{term}' is {value} in task {}, epoch {}, step {}: lower the learning rate",
                task + 1,
                epoch + 1,
                steps + 1
            )));
        }
        self.position = Position { epoch, batches: batches + 1, steps: steps + 1 };
        Ok(Step { task, epoch, batch: batches, step: steps, images, losses })
    }

    /// The last step is over and the task ends. Gives back the host.
    pub fn end(mut self) -> Result<H> {
        self.host.enter(TaskCall::End);
        self.player.end_task(self.task, &mut self.host)?;
        Ok(self.host)
    }

    /// The method.
    pub fn player(&self) -> &dyn Player {
        self.player
    }

    /// Who answers its calls.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The same, to be changed.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    /// Where the next step is.
    pub fn position(&self) -> Position {
        self.position
    }
}

/// A loaded batch as tensors.
pub(crate) fn to_tensors(
    loaded: LoadedBatch,
    size: usize,
    placement: &Placement,
) -> Result<Images> {
    let Placement { device, dtype } = placement;
    let shape = (loaded.labels.len(), 3, size, size);
    Ok(Images {
        images: Tensor::from_vec(loaded.images, shape, device)?.to_dtype(*dtype)?,
        labels: Tensor::new(loaded.labels.as_slice(), device)?,
        host_labels: loaded.labels,
        positions: loaded.positions,
    })
}
