//! A method on the other side of a boundary: every call becomes a message.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use toml::Table;

use super::messages::{Answer, BackboneOffer, Call, Construction, MethodOffer, Offer};
use super::{Plugin, weights};
use crate::array::{Array, Element};
use crate::backbone::{BackboneSource, Exported};
use crate::config::{self, Field, Layer};
use crate::context::{Host, Placement, PlainBatch};
use crate::method::{
    About, Batch, Losses, MethodEntry, Plan, Player, Recipe, Saved, Setup, Trial, TrialBackbone,
    check_plan, register,
};
use crate::scenario::{ScenarioFacts, TaskInfo};
use crate::state::State;
use crate::{Error, Result, device};

/// A connection to one instance of a method.
pub trait Link {
    /// Sends a call and waits for its answer; answers the requests that come meanwhile by `host`,
    /// where the call has one.
    ///
    /// # Errors
    /// If the connection fails, or the plugin ends or breaks a rule; [`Answer::Failed`] is an
    /// answer.
    fn call(&mut self, call: Call, host: Option<&mut dyn Host>) -> Result<Answer>;
}

/// Opens connections to a plugin.
pub trait Connect: Send + Sync {
    /// A connection to an instance that is yet to be built.
    ///
    /// # Errors
    /// If the plugin cannot be started.
    fn connect(&self) -> Result<Box<dyn Link>>;
}

/// Registers the methods that a plugin offers.
///
/// # Errors
/// [`Error::Usage`] for a name that is taken; [`Error::Protocol`] for an offer that cannot be
/// understood.
pub fn register_offer(
    offer: &Offer,
    plugin: &Plugin,
    place: &str,
    connect: Arc<dyn Connect>,
) -> Result<Vec<&'static MethodEntry>> {
    if offer.methods.is_empty() {
        return Err(Error::Protocol(format!(
            "{place}: the plugin '{}' has no method in it",
            offer.name
        )));
    }
    let one = |m: &MethodOffer| {
        let fields = config::fields_from_json(&m.fields).map_err(|what| {
            Error::Protocol(format!("{place}: the hyper-parameters of method '{}': {what}", m.name))
        })?;
        let keep = |text: &str| -> &'static str { text.to_owned().leak() };
        let about = About {
            name: keep(&m.name),
            version: keep(&m.version),
            summary: keep(&m.summary),
            paper: keep(&m.paper),
            access: m.access,
            trains: keep(&m.trains),
            presets: keep(&m.presets),
            trial: Trial { settings: keep(&m.trial_settings), backbone: TrialBackbone::Vit },
        };
        let recipe = RemoteRecipe {
            method: m.name.clone(),
            whom: format!("plugin {} ({place})", plugin.name),
            fields,
            connect: connect.clone(),
        };
        register(MethodEntry::loaded(about, plugin.clone(), place, Box::new(recipe)))
    };
    offer.methods.iter().map(one).collect()
}

/// Builds a plugin's method.
pub(super) struct RemoteRecipe {
    pub(super) method: String,
    pub(super) whom: String,
    pub(super) fields: Vec<Field>,
    pub(super) connect: Arc<dyn Connect>,
}

impl Recipe for RemoteRecipe {
    fn fields(&self) -> Vec<Field> {
        self.fields.clone()
    }

    fn merge(&self, layers: &[Layer]) -> Result<Table> {
        config::merge_fields(&self.method, &self.fields, layers)
    }

    fn build(
        &self,
        config: &Table,
        setup: Setup,
        source: Option<&BackboneSource>,
    ) -> Result<Box<dyn Player>> {
        let config = serde_json::to_string(config)
            .map_err(|e| Error::Protocol(format!("the configuration is no JSON: {e}")))?;
        let info = setup.backbone.info().clone();
        let (entry, file) = weights::file(setup.backbone.as_ref(), source)?;
        let path = file.as_ref().map(|f| f.text()).transpose()?;
        let backbone = BackboneOffer {
            entry,
            name: info.name,
            weights: path,
            weights_hash: info.weights_hash,
            dim: info.dim,
            blocks: info.blocks,
            heads: info.heads,
            patch: info.patch,
            image_size: info.image_size,
            mean: info.mean,
            std: info.std,
        };
        let construction = Construction {
            method: self.method.clone(),
            config,
            backbone,
            device: device::name(&setup.placement.device),
            dtype: Element::of(setup.placement.dtype)?,
        };
        drop(setup.backbone); // the plugin builds its own
        let link = RefCell::new(self.connect.connect()?);
        let remote = Remote { whom: self.whom.clone(), link, placement: setup.placement };
        remote.done(Call::Build(construction), None)?;
        Ok(Box::new(remote))
    }
}

/// The method of a plugin, as the harness sees it.
struct Remote {
    /// The plugin, in words.
    whom: String,
    link: RefCell<Box<dyn Link>>,
    placement: Placement,
}

impl Remote {
    fn call(&self, call: Call, host: Option<&mut dyn Host>) -> Result<Answer> {
        let name = call.name();
        match self.link.borrow_mut().call(call, host)? {
            Answer::Failed(failure) => {
                Err(failure.into_error(&format!("{}, in {name}", self.whom)))
            }
            answer => Ok(answer),
        }
    }

    fn done(&self, call: Call, host: Option<&mut dyn Host>) -> Result<()> {
        let name = call.name();
        match self.call(call, host)? {
            Answer::Done => Ok(()),
            other => Err(self.unexpected(name, &other)),
        }
    }

    fn unexpected(&self, call: &str, answer: &Answer) -> Error {
        Error::Protocol(format!(
            "{}, in {call}: answered with something else: {answer:?}",
            self.whom
        ))
    }

    /// An array of this many rows as a tensor of the run's type.
    fn rows(&self, call: &str, array: &Array, rows: usize, rank: usize) -> Result<Tensor> {
        if array.shape.len() != rank || array.shape[0] != rows {
            let expected = if rank == 2 { "(images, classes)" } else { "(images, blocks, dim)" };
            let text = format!(
                "answered with shape {:?} for {rows} images; expected {expected}",
                array.shape
            );
            return Err(Error::Protocol(format!("{}, in {call}: {text}", self.whom)));
        }
        array.to_dtype(self.placement.dtype, &self.placement.device)
    }
}

/// Images as they cross: f32, which is what they are read as.
fn plain(images: &Tensor) -> Result<Array> {
    Array::from_tensor(&images.to_dtype(DType::F32)?)
}

impl Player for Remote {
    fn check(&self, scenario: &ScenarioFacts) -> Result<()> {
        self.done(Call::Check { scenario: scenario.clone() }, None)
    }

    fn plan(&self, task: &TaskInfo) -> Result<Plan> {
        match self.call(Call::Plan { task: task.clone() }, None)? {
            Answer::Plan(plan) => check_plan(plan, task)
                .map_err(|e| Error::Protocol(format!("{}, in plan: {e}", self.whom))),
            other => Err(self.unexpected("plan", &other)),
        }
    }

    fn begin_task(&mut self, task: &TaskInfo, host: &mut dyn Host) -> Result<()> {
        self.done(Call::BeginTask { task: task.clone() }, Some(host))
    }

    fn observe(&mut self, batch: &Batch, task: &TaskInfo, host: &mut dyn Host) -> Result<Losses> {
        let Batch { data, epoch, step } = batch;
        let (labels, positions) = (data.host_labels.clone(), data.positions.clone());
        let batch = PlainBatch { images: plain(&data.images)?, labels, positions };
        let call = Call::Observe { batch, epoch: *epoch, step: *step, task: task.clone() };
        match self.call(call, Some(host))? {
            Answer::Losses(losses) => Ok(losses),
            other => Err(self.unexpected("observe", &other)),
        }
    }

    fn end_task(&mut self, task: &TaskInfo, host: &mut dyn Host) -> Result<()> {
        self.done(Call::EndTask { task: task.clone() }, Some(host))
    }

    fn predict(&self, images: &Tensor) -> Result<Tensor> {
        match self.call(Call::Predict { images: plain(images)? }, None)? {
            Answer::Logits(array) => self.rows("predict", &array, images.dim(0)?, 2),
            other => Err(self.unexpected("predict", &other)),
        }
    }

    fn cls_tokens(&self, images: &Tensor) -> Result<Option<Tensor>> {
        match self.call(Call::ClsTokens { images: plain(images)? }, None)? {
            Answer::ClsTokens(array) => {
                array.map(|a| self.rows("cls_tokens", &a, images.dim(0)?, 3)).transpose()
            }
            other => Err(self.unexpected("cls_tokens", &other)),
        }
    }

    fn state(&self) -> Result<State> {
        match self.call(Call::State, None)? {
            Answer::State(state) => Ok(state),
            other => Err(self.unexpected("state", &other)),
        }
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        let Saved { state, tasks, running } = saved;
        self.done(
            Call::Restore { state: state.clone(), tasks: tasks.clone(), running: *running },
            None,
        )?;
        // A method that takes over less than it gave would be scored as something it is not.
        let again = self.state()?;
        let added = || again.iter().find(|(name, _)| state.get(name).is_none());
        match state.iter().find(|(name, entry)| again.get(name) != Some(entry)).or_else(added) {
            None => Ok(()),
            Some((name, _)) => Err(Error::Protocol(format!(
                "{}, in restore: '{name}' is not as it was in the state it was given: state and restore must agree",
                self.whom
            ))),
        }
    }

    fn export(&self) -> Result<Exported> {
        match self.call(Call::Export, None)? {
            Answer::Model(model) => {
                let tensors = model
                    .tensors
                    .into_iter()
                    .map(|(name, array)| Ok((name, array.to_tensor(&Device::Cpu)?)));
                Ok(Exported { tensors: tensors.collect::<Result<_>>()?, metadata: model.metadata })
            }
            other => Err(self.unexpected("export", &other)),
        }
    }
}
