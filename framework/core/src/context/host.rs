//! The calls of a method to the harness as plain data, and whoever answers them.
//!
//! Every call is a [`Request`] answered by a [`Reply`], so that the same calls cross a plugin
//! boundary. A [`Host`] answers: the protocol's driver in a run, a file of recorded draws in
//! `cilbench verify`.

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::array::Array;
use crate::data::View;
use crate::rng::NormalStream;
use crate::{Error, Result};

/// Where a run computes, and in which floating-point type.
#[derive(Debug, Clone)]
pub struct Placement {
    /// The device.
    pub device: Device,
    /// The floating-point type.
    pub dtype: DType,
}

impl Placement {
    /// The CPU, in this type.
    pub fn cpu(dtype: DType) -> Self {
        Self { device: Device::Cpu, dtype }
    }

    /// A tensor in the run's type on its device.
    pub fn place(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}

/// The distribution of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Law {
    /// Uniform on `[low, high)`.
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// Standard normal.
    Normal,
    /// A random permutation of `0..n` (i64), for a shape of one dimension `n`.
    Permutation,
}

/// A call of a method to the harness.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Random numbers by name and shape, from the method's own stream. Answered by
    /// [`Reply::Array`].
    Draw {
        /// What they are for; the same name drawn again in one task gives new numbers.
        name: String,
        /// The shape.
        shape: Vec<usize>,
        /// The distribution.
        law: Law,
    },
    /// Does the harness prescribe this derived random quantity (a replay does)? Answered by
    /// [`Reply::Given`].
    Given {
        /// Which quantity.
        name: String,
    },
    /// Starts a pass over the current task's training images in canonical order. Answered by
    /// [`Reply::Pass`].
    OpenPass {
        /// With which transform.
        view: View,
        /// Images a batch; the last one may be smaller.
        batch_size: usize,
    },
    /// The next batch of a pass. Answered by [`Reply::Batch`].
    NextBatch {
        /// The pass.
        pass: u32,
    },
    /// Shows the harness a quantity, for diagnosis and replay. Answered by [`Reply::Done`].
    Probe {
        /// Its name.
        name: String,
        /// Its value.
        value: Array,
    },
    /// A call to the memory of exemplars; refused unless the method's entry declares it.
    Memory(MemoryRequest),
}

/// Calls to the memory of exemplars. The harness keeps the images; a method only names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum MemoryRequest {
    /// Stores images of the current task. Answered by [`Reply::Exemplars`], those stored.
    Insert {
        /// Their positions in the current task's training set.
        positions: Vec<usize>,
        /// One row for each, kept beside the image (stored logits).
        payload: Option<Array>,
    },
    /// Forgets exemplars. Answered by [`Reply::Done`].
    Remove {
        /// Which.
        ids: Vec<u64>,
    },
    /// What is stored. Answered by [`Reply::Exemplars`].
    List,
    /// Reads exemplars. Answered by [`Reply::Batch`].
    Read {
        /// Which, in this order.
        ids: Vec<u64>,
        /// With which transform.
        view: View,
    },
}

/// A stored exemplar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Its number; never used again.
    pub id: u64,
    /// Its class, as the model sees it.
    pub label: i64,
    /// The task it came from.
    pub task: usize,
    /// What was stored beside it.
    pub payload: Option<Array>,
}

/// A batch as plain data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlainBatch {
    /// (batch, 3, height, width), f32 in \[0, 1\].
    pub images: Array,
    /// Classes as the model sees them, numbered in the order of their appearance.
    pub labels: Vec<i64>,
    /// Positions in the task's training set (in a read of the memory: the exemplars' ids).
    pub positions: Vec<usize>,
}

/// The harness's answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// Numbers.
    Array(Array),
    /// Numbers, if the harness prescribes them.
    Given(Option<Array>),
    /// A pass was opened.
    Pass(u32),
    /// The next batch, or the end of the pass.
    Batch(Option<PlainBatch>),
    /// Exemplars.
    Exemplars(Vec<Exemplar>),
}

/// Whoever answers a method's calls.
pub trait Host {
    /// Answers one call.
    ///
    /// # Errors
    /// Whatever stands against it: an unreadable image, a memory that was not declared.
    fn answer(&mut self, request: Request) -> Result<Reply>;

    /// The numbers that a [`Request::Draw`] of [`Law::Normal`] gives, where they can be had without
    /// being drawn at once. By default they are drawn.
    ///
    /// # Errors
    /// As [`Host::answer`].
    fn normals(&mut self, name: String, shape: [usize; 2]) -> Result<Drawn> {
        match self.answer(Request::Draw { name, shape: shape.to_vec(), law: Law::Normal })? {
            Reply::Array(array) if array.shape == shape => Ok(Drawn::Array(array)),
            other => Err(unexpected("draw", &other)),
        }
    }

    /// Whether probes are looked at; a method may skip computing one that is not.
    fn probing(&self) -> bool {
        false
    }

    /// The driver is about to make this call of the task. Passes are numbered anew from here, so
    /// that a task that resumes sees the same augmented images.
    fn enter(&mut self, _call: TaskCall) {}
}

/// A call of the driver within a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TaskCall {
    /// The task begins.
    #[default]
    Begin,
    /// The training step of this number, from 0.
    Step(usize),
    /// The task ends.
    End,
}

impl<H: Host + ?Sized> Host for &mut H {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        (**self).answer(request)
    }

    fn normals(&mut self, name: String, shape: [usize; 2]) -> Result<Drawn> {
        (**self).normals(name, shape)
    }

    fn probing(&self) -> bool {
        (**self).probing()
    }

    fn enter(&mut self, call: TaskCall) {
        (**self).enter(call);
    }
}

/// Standard normal numbers that a host gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Drawn {
    /// The first ones of a sequence.
    Stream(NormalStream),
    /// Drawn already.
    Array(Array),
}

/// The memory of exemplars as plain data. Images are named by task and position.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryImage {
    pub(crate) exemplars: Vec<(Exemplar, usize)>,
    pub(crate) next: u64,
    pub(crate) reads: usize,
}

/// Random numbers of a host as a tensor of this shape.
pub(crate) fn draw(
    host: &mut dyn Host,
    name: String,
    shape: &[usize],
    law: Law,
    placement: &Placement,
) -> Result<Tensor> {
    match host.answer(Request::Draw { name, shape: shape.to_vec(), law })? {
        Reply::Array(array) if array.shape == shape => {
            array.to_dtype(placement.dtype, &placement.device)
        }
        other => Err(unexpected("draw", &other)),
    }
}

pub(super) fn unexpected(call: &str, reply: &Reply) -> Error {
    Error::Protocol(format!("{call}: the harness answered with something else: {reply:?}"))
}

/// A host that sends every call and every answer through bytes and back, as a plugin boundary does.
/// For tests.
pub struct Serialised<'a>(pub &'a mut dyn Host);

impl Host for Serialised<'_> {
    fn answer(&mut self, request: Request) -> Result<Reply> {
        let request: Request = round_trip(&request)?;
        let reply = self.0.answer(request)?;
        round_trip(&reply)
    }

    fn probing(&self) -> bool {
        self.0.probing()
    }

    fn enter(&mut self, call: TaskCall) {
        self.0.enter(call);
    }
}

pub(crate) fn round_trip<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> Result<T> {
    let failed = |e: postcard::Error| {
        Error::Protocol(format!("a message did not survive serialisation: {e}"))
    };
    postcard::from_bytes(&postcard::to_stdvec(value).map_err(failed)?).map_err(failed)
}

/// The host of a call in which a method may ask for nothing: every request fails.
pub struct NoHost;

impl Host for NoHost {
    fn answer(&mut self, _: Request) -> Result<Reply> {
        Err(Error::Protocol(
            "the method asked the harness for something in a call that has no context".into(),
        ))
    }
}
