//! What the harness talks to: a method of this program with the tensors that it carries, or the
//! proxy of a plugin's method.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{Batch, Carried, Carry, Losses, Method, Plan};
use crate::backbone::Exported;
use crate::context::{Context, Host, Placement};
use crate::scenario::{ScenarioFacts, TaskInfo};
use crate::state::State;
use crate::{Error, Result};

/// A state, and where in the scenario it was taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The state.
    pub state: State,
    /// The tasks that had begun.
    pub tasks: Vec<TaskInfo>,
    /// Whether the last of them was still in training.
    pub running: bool,
}

impl Saved {
    /// A state between two tasks.
    pub fn between_tasks(state: State, tasks: Vec<TaskInfo>) -> Self {
        Self { state, tasks, running: false }
    }
}

/// A method as the harness sees it. An author writes a [`Method`].
///
/// For every task the harness calls [`plan`](Player::plan), [`begin_task`](Player::begin_task),
/// [`observe`](Player::observe) for each batch of each epoch, and [`end_task`](Player::end_task);
/// then [`predict`](Player::predict).
pub trait Player {
    /// Whether its hyper-parameters suit a scenario; see [`Method::check`].
    fn check(&self, scenario: &ScenarioFacts) -> Result<()>;

    /// How the training images of a task are to be served.
    ///
    /// # Errors
    /// [`Error::Protocol`] for a plan that cannot be carried out.
    fn plan(&self, task: &TaskInfo) -> Result<Plan>;

    /// A task begins.
    fn begin_task(&mut self, task: &TaskInfo, host: &mut dyn Host) -> Result<()>;

    /// One optimisation step.
    fn observe(&mut self, batch: &Batch, task: &TaskInfo, host: &mut dyn Host) -> Result<Losses>;

    /// The last epoch is over.
    fn end_task(&mut self, task: &TaskInfo, host: &mut dyn Host) -> Result<()>;

    /// Logits (batch, classes seen so far) for images (batch, 3, height, width) in \[0, 1\].
    fn predict(&self, images: &Tensor) -> Result<Tensor>;

    /// The normalised CLS token after every block, (batch, blocks, dim); `None` if there are none.
    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>>;

    /// A snapshot of everything that is carried.
    fn state(&self) -> Result<State>;

    /// Takes over a snapshot. `self` is freshly built.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names a tensor that is missing, superfluous or of another shape.
    fn restore(&mut self, saved: &Saved) -> Result<()>;

    /// The model as plain tensors; see [`Method::export`].
    fn export(&self) -> Result<Exported>;
}

/// A method of this program, with the list of what it carries.
pub struct Local<M> {
    method: M,
    carried: Carried,
    placement: Placement,
}

impl<M: Method> Local<M> {
    /// A method with nothing learned.
    pub fn new(method: M, placement: Placement) -> Self {
        Self { method, carried: Carried::new(), placement }
    }
}

/// An error unless the plan can be carried out.
pub(crate) fn check_plan(plan: Plan, task: &TaskInfo) -> Result<Plan> {
    let wrong = |what: &str| {
        Err(Error::Protocol(format!("task {}: the method planned {what}", task.index + 1)))
    };
    match plan {
        Plan { batch_size: 0, .. } => wrong("a batch size of 0"),
        Plan { epochs: 0, steps: Some(_), .. } => wrong("a number of steps with 0 epochs"),
        Plan { test_batch: Some(0), .. } => wrong("a test batch of 0"),
        plan => Ok(plan),
    }
}

impl<M: Method> Player for Local<M> {
    fn check(&self, scenario: &ScenarioFacts) -> Result<()> {
        self.method.check(scenario)
    }

    fn plan(&self, task: &TaskInfo) -> Result<Plan> {
        check_plan(self.method.plan(task)?, task)
    }

    fn begin_task(&mut self, task: &TaskInfo, host: &mut dyn Host) -> Result<()> {
        let mut ctx = Context::new(host, &self.carried, &self.placement);
        self.method.grow(task, &mut ctx.carry())?;
        self.method.begin_task(task, &mut ctx)
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, host: &mut dyn Host) -> Result<Losses> {
        self.method.observe(batch, task, &mut Context::new(host, &self.carried, &self.placement))
    }

    fn end_task(&mut self, task: &TaskInfo, host: &mut dyn Host) -> Result<()> {
        let mut ctx = Context::new(host, &self.carried, &self.placement);
        self.method.finish(task, &mut ctx)?;
        self.method.settle(task, &mut ctx.carry())?;
        self.method.end_task(task, &mut ctx)
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.method.predict(images)
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.method.cls_tokens(images)
    }

    fn state(&self) -> Result<State> {
        self.carried.state()
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        for (i, task) in saved.tasks.iter().enumerate() {
            let training = saved.running && i + 1 == saved.tasks.len();
            let mut carry = Carry::saved(&saved.state, training, &self.carried, &self.placement);
            self.method.grow(task, &mut carry)?;
            if !training {
                self.method.settle(task, &mut carry)?;
            }
        }
        let declared = self.carried.state()?;
        match saved.state.iter().find(|(name, _)| declared.get(name).is_none()) {
            None => Ok(()),
            Some((name, _)) => Err(Error::Protocol(format!(
                "state: it holds '{name}', which the method does not carry; if another cilbench or \
                 other settings wrote it, remove the run's folder and begin anew"
            ))),
        }
    }

    fn export(&self) -> Result<Exported> {
        self.method.export()
    }
}
