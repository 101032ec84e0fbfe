//! What a method is to the harness: the trait, and the registry entry.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::backbone::Backbone;
use crate::config::Parameters;
use crate::context::{Context, Images};
use crate::data::View;
pub use crate::registry::{MethodEntry, Origin, Recipe, all, find, register};
use crate::scenario::TaskInfo;
use crate::state::State;
use crate::{Error, Result};

/// How a method wants a task's training images served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Passes over the task's training images; 0 if the method only uses its own passes in `end_task`.
    pub epochs: usize,
    /// Images a step; the last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// The transform of the training images.
    pub view: View,
}

/// One training step's images, and where in the run it is.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Images and labels.
    pub data: Images,
    /// The epoch, from 0.
    pub epoch: usize,
    /// The step within the task, from 0.
    pub step: usize,
}

/// The named terms of a step's loss, as numbers, before the step's update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Losses(pub Vec<(String, f64)>);

impl Losses {
    /// Reads scalar tensors.
    ///
    /// # Errors
    /// If one is not a scalar.
    pub fn read(terms: &[(&str, &Tensor)]) -> Result<Self> {
        let value = |t: &Tensor| -> Result<f64> { Ok(t.to_dtype(DType::F64)?.to_scalar::<f64>()?) };
        Ok(Self(terms.iter().map(|(name, t)| Ok(((*name).to_owned(), value(t)?))).collect::<Result<_>>()?))
    }
}

/// A class-incremental learner. The harness calls, the method answers.
///
/// For every task: [`plan`](Method::plan), [`begin_task`](Method::begin_task), [`observe`](Method::observe) for each batch of each epoch,
/// [`end_task`](Method::end_task); then [`predict`](Method::predict) on the test images of all classes seen so far.
pub trait Method {
    /// Whether its hyper-parameters suit a scenario of so many classes in all; asked before the first task.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the key and what to set it to.
    fn check(&self, _classes: usize) -> Result<()> {
        Ok(())
    }

    /// How the training images of this task are to be served.
    fn plan(&self, task: &TaskInfo) -> Plan;

    /// A new task begins: make room for its classes.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn begin_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()>;

    /// One optimisation step. Returns the loss terms as they were before the update.
    ///
    /// # Errors
    /// Whatever prevents it; the harness itself checks that the terms are finite.
    fn observe(&mut self, batch: &Batch, task: &TaskInfo, ctx: &mut Context) -> Result<Losses>;

    /// The last epoch is over: statistics, alignment, folding.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn end_task(&mut self, task: &TaskInfo, ctx: &mut Context) -> Result<()>;

    /// Logits (batch, classes seen so far) for images (batch, 3, height, width) in \[0, 1\]. No task is given: class-incremental.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn predict(&self, images: &Tensor) -> Result<Tensor>;

    /// The normalised CLS token after every block, (batch, blocks, dim), of the model as it predicts; `None` if there are none.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>>;

    /// Everything the method carries, as a snapshot.
    ///
    /// # Errors
    /// Whatever prevents it.
    fn state(&self) -> Result<State>;

    /// Takes over a snapshot. `self` is freshly built; `tasks` are those begun so far; `running` says whether the last of them is still
    /// in training.
    ///
    /// # Errors
    /// [`Error::Protocol`] that names a tensor that is missing or of another shape.
    fn restore(&mut self, state: &State, tasks: &[TaskInfo], running: bool) -> Result<()>;

    /// The model as plain tensors with the backbone's own names (timm's, for a ViT), heads as `head.weight` and `head.bias`, and the metadata a
    /// weights file needs.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model is no such set of tensors.
    fn export(&self) -> Result<Exported> {
        Err(Error::Unsupported("this method's model cannot be written as a backbone with a linear head".into()))
    }
}

/// A model as plain tensors.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// By name.
    pub tensors: Vec<(String, Tensor)>,
    /// The metadata of a weights file.
    pub metadata: Vec<(String, String)>,
}

/// What a method may see of past images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Only the current task's training images.
    Stream,
    /// Also the exemplars it put into the harness's memory.
    Memory,
    /// All training images seen so far (upper bounds): a task's passes and epochs go over the images of all tasks up to it.
    All,
}

/// What is known of a method without building it.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// The name on the command line.
    pub name: &'static str,
    /// The version of its arithmetic: raised whenever results change by more than rounding.
    pub version: &'static str,
    /// One line.
    pub summary: &'static str,
    /// The paper, as BibTeX.
    pub paper: &'static str,
    /// What it may see of past images.
    pub access: Access,
    /// What it trains, in words.
    pub trains: &'static str,
    /// Presets: a TOML file with one table for each data set, its keys those of the configuration.
    pub presets: &'static str,
}

/// What a method is built on.
pub struct Setup {
    /// The pre-trained backbone.
    pub backbone: Box<dyn Backbone>,
    /// Where to compute.
    pub device: Device,
    /// In which floating-point type.
    pub dtype: DType,
}

/// A method that can be registered: `inventory::submit! { MethodEntry::of::<MyMethod>() }`.
pub trait Registered: Method + Sized + 'static {
    /// Its hyper-parameters.
    type Config: Parameters;
    /// What is known of it without building it.
    const ABOUT: About;

    /// Builds it. Check every hyper-parameter here, before any image is read.
    ///
    /// # Errors
    /// [`Error::Usage`] for a value out of range, [`Error::Unsupported`] for a backbone that lacks a capability.
    fn new(config: Self::Config, setup: Setup) -> Result<Self>;
}
