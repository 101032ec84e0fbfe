//! Class-incremental methods: the trait that an author writes, and the registry of methods.
//!
//! An author implements [`Method`]. The harness talks to a [`Player`], which is a method of this
//! program together with the tensors that it carries, or the proxy of a plugin's method.

mod about;
mod loss;
mod player;
mod recorded;
mod registry;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

pub use crate::backbone::Exported;
pub use crate::context::{Carried, Carry, Fresh, Held, Loader, OnHost, Stored, Value, Variable};
pub use crate::scenario::Access;
pub use about::{About, Kind as PluginKind, Plugin, Trial, TrialBackbone};
pub use loss::{Loss, Losses};
pub(crate) use player::check_plan;
pub use player::{Local, Player, Saved};
pub use recorded::{Recorded, RecordedQuantity, RecordedSetting};
pub use registry::{MethodEntry, Origin, Recipe, all, find, register};

use crate::Result;
use crate::backbone::Backbone;
use crate::config::Parameters;
use crate::context::{Context, Images, Placement};
use crate::data::View;
use crate::scenario::{ScenarioFacts, TaskInfo};

/// How a method wants a task's training images served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Passes over the task's training images. It is 0 if the method only makes passes of its own.
    pub epochs: usize,
    /// Images per step. The last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// The transform of the training images.
    pub view: View,
    /// Whether a last batch that is smaller is left out. An epoch of one smaller batch keeps it.
    #[serde(default)]
    pub drop_last: bool,
    /// Steps after which training ends, if it is counted in steps. Epochs then repeat until there
    /// are as many steps, and `epochs` must be at least 1.
    #[serde(default)]
    pub steps: Option<usize>,
    /// Images per call of `predict` while the harness scores, if its own number does not suit.
    #[serde(default)]
    pub test_batch: Option<usize>,
}

impl Plan {
    /// A plan of whole epochs.
    pub fn epochs(epochs: usize, batch_size: usize, view: View) -> Self {
        Self { epochs, batch_size, view, drop_last: false, steps: None, test_batch: None }
    }

    /// Batches per epoch over `images` training images.
    pub fn batches(&self, images: usize) -> usize {
        let whole = images / self.batch_size.max(1);
        let rest = !images.is_multiple_of(self.batch_size.max(1));
        if self.drop_last && whole > 0 { whole } else { whole + usize::from(rest) }
    }

    /// Training steps over `images` training images.
    pub fn total_steps(&self, images: usize) -> usize {
        match self.steps {
            Some(steps) if self.epochs > 0 => steps,
            _ => self.epochs * self.batches(images),
        }
    }
}

/// One training step's images, and where in the task it is.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Images and labels.
    pub data: Images,
    /// The epoch, from 0.
    pub epoch: usize,
    /// The step within the task, from 0.
    pub step: usize,
}

/// What a method is built on.
pub struct Setup {
    /// The pre-trained backbone.
    pub backbone: Box<dyn Backbone>,
    /// The device and the floating-point type of the run.
    pub placement: Placement,
}

/// What predicts: the part of a method that holds a network. [`Method::model`] gives it, and the
/// method's own functions of the same names fall back to these.
///
/// A method without such a part uses `()`.
pub trait Model {
    /// Whether it suits a scenario; see [`Method::check`].
    fn check(&self, _scenario: &ScenarioFacts) -> Result<()> {
        Ok(())
    }

    /// How the training images of a task are to be served.
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) by default: such a model has no training.
    fn plan(&self, _task: &TaskInfo) -> Result<Plan> {
        Err(crate::Error::Protocol("neither the method nor its model plans a task".into()))
    }

    /// Declares what a task needs; see [`Method::grow`].
    fn grow(&mut self, _task: &TaskInfo, _carry: &mut Carry) -> Result<()> {
        Ok(())
    }

    /// A task's training is over; see [`Method::settle`].
    fn settle(&mut self, _task: &TaskInfo, _carry: &mut Carry) -> Result<()> {
        Ok(())
    }

    /// Logits; see [`Method::predict`].
    ///
    /// # Errors
    /// [`Error::Protocol`](crate::Error::Protocol) by default: such a model has no classifier.
    fn predict(&self, _images: &Tensor) -> Result<Tensor> {
        Err(crate::Error::Protocol("neither the method nor its model has a classifier".into()))
    }

    /// CLS tokens; see [`Method::cls_tokens`].
    fn cls_tokens(&self, _images: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// The model as plain tensors; see [`Method::export`].
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) by default.
    fn export(&self) -> Result<Exported> {
        let text = "this method's model cannot be written as a backbone with a linear head";
        Err(crate::Error::Unsupported(text.into()))
    }
}

impl Model for () {}

/// Names the field that holds a method's network: [`Method::Model`] and its two accessors.
///
/// `cilbench::model!(learner: Learner);` inside of `impl Method for …`; `cilbench::model!();` where
/// there is no such field.
#[macro_export]
macro_rules! model {
    ($field:ident: $type:ty) => {
        type Model = $type;

        fn model(&self) -> &$type {
            &self.$field
        }

        fn model_mut(&mut self) -> &mut $type {
            &mut self.$field
        }
    };
    () => {
        type Model = ();

        fn model(&self) -> &() {
            &()
        }

        fn model_mut(&mut self) -> &mut () {
            // A box of nothing takes no memory.
            ::std::boxed::Box::leak(::std::boxed::Box::new(()))
        }
    };
}

/// A class-incremental learner. The harness calls, the method answers.
///
/// For every task the harness calls, in this order: [`plan`](Method::plan),
/// [`grow`](Method::grow), [`begin_task`](Method::begin_task), [`observe`](Method::observe) for
/// each batch of each epoch, [`finish`](Method::finish), [`settle`](Method::settle),
/// [`end_task`](Method::end_task); then [`predict`](Method::predict) on the test images of all
/// classes seen so far.
///
/// Everything that a method carries is declared through the [`Carry`] that `grow` and `settle` are
/// given. A run that resumes builds the method anew and calls `grow` for every task that had begun
/// and `settle` for every task whose training was over. The [`Carry`] then answers with the saved
/// values. A method therefore has no function that saves and none that restores.
///
/// It is registered with `inventory::submit! { MethodEntry::of::<MyMethod>() }`.
///
/// ```
/// use cilbench::method::{About, Batch, Carry, Losses, Method, Plan, Setup, Value};
/// use cilbench::parts::{FrozenFeatures, Prototypes};
/// use cilbench::{Result, context::Context, scenario::TaskInfo};
///
/// #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default)]
/// pub struct Config {}
///
/// /// Cosine to the mean feature of each class.
/// pub struct NearestMean {
///     frozen: FrozenFeatures,
///     prototypes: Prototypes,
/// }
///
/// impl Method for NearestMean {
///     type Config = Config;
///     cilbench::model!(frozen: FrozenFeatures);
///     const ABOUT: About = About {
///         name: "doc-nearest-mean",
///         summary: "cosine to the mean feature of each class",
///         trains: "nothing",
///         ..About::DEFAULT
///     };
///
///     fn new(_: Config, setup: Setup) -> Result<Self> {
///         Ok(Self { frozen: FrozenFeatures::new(setup), prototypes: Prototypes::default() })
///     }
///     fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
///         self.prototypes.settle(task, self.frozen.dim(), carry)
///     }
///     fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()> {
///         let (features, labels) = self.frozen.of_task(ctx)?;
///         self.prototypes.add(task, &features, &labels)
///     }
///     fn predict(&self, images: &candle_core::Tensor) -> Result<candle_core::Tensor> {
///         self.prototypes.cosines(&self.frozen.of(images)?)
///     }
/// }
///
/// cilbench::inventory::submit! { cilbench::method::MethodEntry::of::<NearestMean>() }
///
/// for case in cilbench::conformance::cases() {
///     (case.check)(cilbench::method::find("doc-nearest-mean")?)?;
/// }
/// # Ok::<(), cilbench::Error>(())
/// ```
pub trait Method: Sized + 'static {
    /// Its hyper-parameters.
    type Config: Parameters;
    /// The part of it that holds a network; `()` if there is none.
    type Model: Model;
    /// What is known of it without building it.
    const ABOUT: About;

    /// Builds it. Check every hyper-parameter here, before any image is read.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for a value out of range,
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a backbone that lacks a capability.
    fn new(config: Self::Config, setup: Setup) -> Result<Self>;

    /// The part that holds the network.
    fn model(&self) -> &Self::Model;

    /// The same, to be changed.
    fn model_mut(&mut self) -> &mut Self::Model;

    /// Whether its hyper-parameters suit a scenario. It is asked before the first task.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) that names the key and what to set it to.
    fn check(&self, scenario: &ScenarioFacts) -> Result<()> {
        self.model().check(scenario)
    }

    /// How the training images of a task are to be served.
    fn plan(&self, task: &TaskInfo) -> Result<Plan> {
        self.model().plan(task)
    }

    /// Declares every tensor that a new task needs. The run's draws or the saved state answer.
    /// What is dropped in `settle` (an optimiser, a teacher) is declared only if
    /// [`Carry::training`]: a run that resumes also calls this for tasks that are over.
    fn grow(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.model_mut().grow(task, carry)
    }

    /// A new task begins, and what it needs has been declared. Work that looks at images goes here.
    fn begin_task(&mut self, _task: &TaskInfo, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// One optimisation step. Returns the loss terms as they were before the update. The harness
    /// checks that the terms are finite.
    fn observe(&mut self, _batch: &Batch, _task: &TaskInfo, _ctx: &mut Context) -> Result<Losses> {
        Ok(Losses::default())
    }

    /// The last step is over and the model is still the one that was trained: for what must
    /// happen before it settles.
    fn finish(&mut self, _task: &TaskInfo, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// The training of a task is over. Folds what was trained into the weights, drops the
    /// optimiser, and declares what is carried from here on. It must follow from the declared
    /// tensors alone, since it is also called when a run resumes.
    fn settle(&mut self, task: &TaskInfo, carry: &mut Carry) -> Result<()> {
        self.model_mut().settle(task, carry)
    }

    /// The model has settled: class statistics, alignment of classifiers, exemplars.
    fn end_task(&mut self, _task: &TaskInfo, _ctx: &mut Context) -> Result<()> {
        Ok(())
    }

    /// Logits (batch, classes seen so far) for images (batch, 3, height, width) in \[0, 1\]. The
    /// task of an image is not told: this is class-incremental learning.
    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        self.model().predict(images)
    }

    /// The normalised CLS token after every block, (batch, blocks, dim), of the model as it
    /// predicts; `None` if there are none.
    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        self.model().cls_tokens(images)
    }

    /// The model as plain tensors with the backbone's own names (timm's, for a ViT), heads as
    /// `head.weight` and `head.bias`, and the metadata that a weights file needs.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if the model is no such set of tensors.
    fn export(&self) -> Result<Exported> {
        self.model().export()
    }
}
