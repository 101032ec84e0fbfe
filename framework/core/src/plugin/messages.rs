//! The messages between the harness and a plugin. Plain data only: tensors never cross.
//!
//! The harness sends a [`Call`], one for every call of [`Method`](crate::method::Method) and one to
//! build it. While the plugin works on it, it may send [`Request`]s, which the harness answers with
//! a [`Reply`]: the calls of [`Context`](crate::context::Context). It ends with an [`Answer`].
//! [`ToPlugin`] and [`ToHost`] are the frames of a connection; before the first of them the plugin
//! sends its [`Offer`].
//!
//! What is called JSON here is JSON text in a string, in every encoding of the messages.
//!
//! Within a version of the protocol messages may get new keys, which raises the
//! [`PROTOCOL_REVISION`]. A sender writes `?` in front of a key that its peer may skip. A reader
//! refuses any other key that it does not know, by name.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::array::{Array, Element};
use crate::context::{PlainBatch, Reply, Request};
use crate::method::{Access, Losses, Plan};
use crate::scenario::{ScenarioFacts, TaskInfo};
use crate::state::State;

/// The version of these messages. A plugin of another version is refused.
pub const PROTOCOL: u32 = 2;
/// The revision of this version: the number of times that messages got new keys.
pub const PROTOCOL_REVISION: u32 = 0;

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The version of the messages (or of the ABI) that it speaks.
    pub protocol: u32,
    /// The revision of that version.
    #[serde(default)]
    pub revision: u32,
    /// The plugin's name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// Its methods.
    pub methods: Vec<MethodOffer>,
}

/// What a plugin says of one of its methods: [`About`](crate::method::About) and the
/// hyper-parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodOffer {
    /// The name on the command line.
    pub name: String,
    /// The version of its arithmetic.
    pub version: String,
    /// One line.
    pub summary: String,
    /// The paper, as BibTeX.
    pub paper: String,
    /// What it may see of past images.
    pub access: Access,
    /// What it trains, in words.
    pub trains: String,
    /// Presets: a TOML file with one table for each data set.
    pub presets: String,
    /// TOML: the settings with which the conformance suite tries it, on top of its defaults.
    #[serde(default)]
    pub trial_settings: String,
    /// Its hyper-parameters as JSON: `[{"key": "epochs", "default": 5, "doc": "Passes over the
    /// images."}, …]`.
    pub fields: String,
}

/// What a method is built from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Construction {
    /// The method's name.
    pub method: String,
    /// All its hyper-parameters as a JSON object.
    pub config: String,
    /// The backbone it works on.
    pub backbone: BackboneOffer,
    /// Where to compute: `cpu`, or `cuda:<n>`.
    pub device: String,
    /// In which floating-point type.
    pub dtype: Element,
}

/// The backbone of a run, for a plugin to build its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneOffer {
    /// The registry entry that builds it: `vit` for everything that is a plain ViT in a timm-named
    /// file.
    pub entry: String,
    /// The name it was asked for by.
    pub name: String,
    /// Its weights, a safetensors file; it may be gone once the method is built. None for an entry
    /// that brings its own.
    pub weights: Option<String>,
    /// SHA-256 of the weights that the user named.
    pub weights_hash: String,
    /// The width of a token.
    pub dim: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The number of attention heads.
    pub heads: usize,
    /// The side of a patch, in pixels.
    pub patch: usize,
    /// The side of the images, in pixels.
    pub image_size: usize,
    /// Per-channel mean to subtract from images in \[0, 1\].
    pub mean: [f64; 3],
    /// Per-channel standard deviation to divide by.
    pub std: [f64; 3],
}

/// A call of the harness to a plugin: [`Method`](crate::method::Method), one variant a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// Builds the method; always the first call. Answered by [`Answer::Done`].
    Build(Construction),
    /// Whether its hyper-parameters suit the scenario. Answered by [`Answer::Done`].
    Check {
        /// What is known of the scenario.
        scenario: ScenarioFacts,
    },
    /// Answered by [`Answer::Plan`].
    Plan {
        /// The task.
        task: TaskInfo,
    },
    /// Answered by [`Answer::Done`]. Requests may be sent meanwhile.
    BeginTask {
        /// The task.
        task: TaskInfo,
    },
    /// Answered by [`Answer::Losses`]. Requests may be sent meanwhile.
    Observe {
        /// Images and labels.
        batch: PlainBatch,
        /// The epoch, from 0.
        epoch: usize,
        /// The step within the task, from 0.
        step: usize,
        /// The task.
        task: TaskInfo,
    },
    /// Answered by [`Answer::Done`]. Requests may be sent meanwhile.
    EndTask {
        /// The task.
        task: TaskInfo,
    },
    /// Answered by [`Answer::Logits`].
    Predict {
        /// (batch, 3, height, width), f32 in \[0, 1\].
        images: Array,
    },
    /// Answered by [`Answer::ClsTokens`].
    ClsTokens {
        /// (batch, 3, height, width), f32 in \[0, 1\].
        images: Array,
    },
    /// Answered by [`Answer::State`].
    State,
    /// Answered by [`Answer::Done`].
    Restore {
        /// What [`Call::State`] was answered with, in this run or an earlier one.
        state: State,
        /// The tasks begun so far.
        tasks: Vec<TaskInfo>,
        /// Whether the last of them is still in training.
        running: bool,
    },
    /// Answered by [`Answer::Model`].
    Export,
}

impl Call {
    /// Its name, for messages: that of the function of [`Method`](crate::method::Method).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Build(_) => "build",
            Self::Check { .. } => "check",
            Self::Plan { .. } => "plan",
            Self::BeginTask { .. } => "begin_task",
            Self::Observe { .. } => "observe",
            Self::EndTask { .. } => "end_task",
            Self::Predict { .. } => "predict",
            Self::ClsTokens { .. } => "cls_tokens",
            Self::State => "state",
            Self::Restore { .. } => "restore",
            Self::Export => "export",
        }
    }
}

/// A plugin's answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// How the task's images are to be served.
    Plan(Plan),
    /// The terms of the step's loss, before the update.
    Losses(Losses),
    /// (batch, classes seen so far).
    Logits(Array),
    /// (batch, blocks, dim), if there are any.
    ClsTokens(Option<Array>),
    /// What the method carries.
    State(State),
    /// The model as plain tensors.
    Model(PlainModel),
    /// It failed.
    Failed(Failure),
}

/// [`Exported`](crate::method::Exported) as plain data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainModel {
    /// Tensors by name.
    pub tensors: Vec<(String, Array)>,
    /// The metadata of a weights file.
    pub metadata: Vec<(String, String)>,
}

/// An [`Error`] as plain data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Who has to act.
    pub class: FailureClass,
    /// What was wrong and what to do.
    pub text: String,
}

/// Who has to act on a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// Anything else: [`Error::Protocol`].
    Failed,
    /// [`Error::Usage`]: a value is out of range.
    Usage,
    /// [`Error::Unsupported`].
    Unsupported,
    /// [`Error::Diverged`]: a number is not finite.
    Diverged,
    /// [`Error::Interrupted`].
    Interrupted,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let (class, text) = match error {
            Error::Usage(text) => (FailureClass::Usage, text.clone()),
            // Without the prefix that the error gets again on the other side.
            Error::Unsupported(text) => (FailureClass::Unsupported, text.clone()),
            Error::Diverged(text) => (FailureClass::Diverged, text.clone()),
            Error::Interrupted(text) => (FailureClass::Interrupted, text.clone()),
            other => (FailureClass::Failed, other.to_string()),
        };
        Self { class, text }
    }
}

impl Failure {
    /// The error, of whom it happened to: `plugin my-plugin, in observe`.
    pub fn into_error(self, whom: &str) -> Error {
        Self { text: format!("{whom}: {}", self.text), ..self }.error()
    }

    /// The error.
    pub fn error(self) -> Error {
        let text = self.text;
        match self.class {
            FailureClass::Failed => Error::Protocol(text),
            FailureClass::Usage => Error::Usage(text),
            FailureClass::Unsupported => Error::Unsupported(text),
            FailureClass::Diverged => Error::Diverged(text),
            FailureClass::Interrupted => Error::Interrupted(text),
        }
    }
}

/// A frame from the harness to a plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToPlugin {
    /// A call.
    Call {
        /// Which.
        call: Call,
        /// Whether probes are looked at; one that is not may be left out.
        probing: bool,
    },
    /// The answer to a request.
    Reply(Reply),
    /// The request failed. The plugin ends its call, with this failure or one of its own.
    Failed(Failure),
}

/// A frame from a plugin to the harness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToHost {
    /// What the plugin says of itself: the first frame, unasked.
    Offer(Offer),
    /// A request, while a call is worked on.
    Request(Request),
    /// The call's answer.
    Answer(Answer),
}
